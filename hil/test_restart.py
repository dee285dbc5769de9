"""The daemon ends in mid-session and starts again: same task, same stream, nothing twice, no hole."""

import time
from collections.abc import Callable

from scene import Scene

from support.waiting import SLOWNESS

KILLS = 2
# The guard acts within this, on a machine that has nothing else to do.
GUARD_S = 1.0
PATIENCE_S = 4.0 * SLOWNESS


def numbers(scene: Scene) -> list[int]:
    return [event["seq"] for event in list(scene.events.events)]


def whole(scene: Scene, up_to: int) -> bool:
    return set(range(1, up_to + 1)) <= set(numbers(scene))


def go_on(scene: Scene) -> None:
    """Start again, and see the session go on where it was."""
    mark, highest = scene.mark, max(numbers(scene))
    scene.daemon = scene.world.start()
    scene.until(lambda: len(scene.after(mark, "reading")) >= 3, "readings after the restart")
    scene.until(lambda: whole(scene, highest + 3), "every number")
    assert len(scene.of("control", about="session")) == 1, "a session begins once"


def test_sigterm_is_a_pause(begin: Callable[..., Scene]) -> None:
    scene = begin("sensor", "relay")
    scene.fresh("sensor")
    assert scene.switch(True, "on")["state"] == "done"
    assert scene.rig.relay_on()
    assert scene.daemon.stop() == 0
    assert not scene.rig.relay_on(), "the process ended before the relay was safe"
    stopped = len(scene.rig.relay_record())
    go_on(scene)
    assert all(change.level for change in scene.rig.relay_record()[stopped:]), "it moved by itself"
    same = {"kind": "set", "id": scene.own("on"), "device": "relay", "values": {"on": True}}
    scene.events.stream.write(same)
    scene.wait("ack", id=scene.own("on"), repeated=True)
    assert not scene.rig.relay_on()
    assert scene.switch(True, "again")["state"] == "done"
    assert scene.rig.relay_on()
    scene.end()
    scene.until(lambda: not scene.rig.relay_on(), "the relay safe after the session")


def test_sigkill_costs_nothing(begin: Callable[..., Scene]) -> None:
    scene = begin("sensor", "relay")
    for number in range(KILLS):
        scene.fresh("sensor")
        assert scene.switch(True, f"on {number}")["state"] == "done"
        killed_s = time.monotonic()
        scene.daemon.kill()
        scene.until(lambda: not scene.rig.relay_on(), "the relay made safe without the daemon")
        assert scene.rig.relay_record()[-1].t_s - killed_s < GUARD_S + PATIENCE_S
        go_on(scene)
        assert not scene.rig.relay_on(), "a daemon that starts knows nothing of who switched it on"
    assert scene.switch(True, "again")["state"] == "done"
    scene.end()
    scene.until(lambda: not scene.rig.relay_on(), "the relay safe after the session")
