"""A sensor is pulled out and put back: it alone is lost, that is said once, and it comes back by itself."""

from collections.abc import Callable

from scenery import Scene


def test_it_is_said_and_it_comes_back(begin: Callable[..., Scene]) -> None:
    scene = begin("sensor", "unplug")
    before = scene.fresh("sensor")["values"]
    mark = scene.mark
    scene.rig.unplug()
    scene.until(lambda: scene.after(mark, "status", device="sensor"), "word that the sensor is lost")
    lost = scene.after(mark, "status", device="sensor")[0]
    assert lost["state"] in ("offline", "fault")
    assert lost["reason"]
    assert not scene.after(mark, "reading", device="sensor", seq=lost["seq"] + 1), "a reading of nothing"
    mark = scene.mark
    scene.rig.replug()
    scene.until(lambda: scene.after(mark, "status", device="sensor", state="online"), "the sensor back")
    again = scene.fresh("sensor")["values"]
    # It was configured again: a chip that lost its power gives nothing of use otherwise.
    assert set(again) == set(before)
    assert all(value is not None for value in again.values()), again
    assert len(scene.of("status", device="sensor")) == 2, "lost and back are each said once"
    scene.end()


def test_the_others_go_on(begin: Callable[..., Scene]) -> None:
    scene = begin("sensor", "unplug", "relay")
    scene.fresh("sensor")
    scene.rig.unplug()
    scene.until(lambda: scene.of("status", device="sensor"), "word that the sensor is lost")
    assert scene.switch(True, "on")["state"] == "done"
    assert scene.rig.relay_on()
    scene.rig.replug()
    scene.until(lambda: scene.of("status", device="sensor", state="online"), "the sensor back")
    assert scene.rig.relay_on()
    assert not scene.of("status", device="relay")
    scene.end()
