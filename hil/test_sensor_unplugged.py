"""A sensor is pulled out and put back: it alone is lost, reported once, and comes back by itself."""

from collections.abc import Callable

from scene import Scene


def test_it_is_said_and_it_comes_back(begin: Callable[..., Scene]) -> None:
    scene = begin("sensor", "unplug")
    others = "relay" in scene.rig.abilities()
    before = scene.fresh("sensor")["values"]
    mark = scene.mark
    scene.rig.unplug()
    scene.until(lambda: scene.after(mark, "status", device="sensor"), "the status: the sensor is lost")
    lost = scene.of("status", device="sensor")[0]
    assert lost["state"] in ("offline", "fault")
    assert lost["reason"]
    if others:
        assert scene.switch(True, "on")["state"] == "done", "one sensor is lost, not the rest"
        assert scene.rig.relay_on()
    scene.rig.replug()
    scene.until(lambda: scene.of("status", device="sensor", state="online"), "the sensor back")
    back = scene.of("status", device="sensor", state="online")[0]
    again = scene.fresh("sensor")["values"]
    # It was configured again: a chip that lost its power gives nothing of use otherwise.
    assert set(again) == set(before)
    assert all(value is not None for value in again.values()), again
    absent = range(lost["seq"], back["seq"])
    assert not [event for event in scene.of("reading", device="sensor") if event["seq"] in absent]
    states = [event["state"] for event in scene.of("status", device="sensor")]
    assert states[-1] == "online"
    assert len(states) <= 3, "a loss is reported once for each reason, not at every try"
    assert {event["device"] for event in scene.of("status")} == {"sensor"}
    assert scene.rig.relay_on() or not others
    scene.end()
