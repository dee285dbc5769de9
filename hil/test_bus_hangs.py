"""A bus on which no call returns: its devices are lost, everything else does not notice."""

import time
from collections.abc import Callable

from scene import Scene

from support.waiting import SLOWNESS


def test_the_other_buses_go_on(begin: Callable[..., Scene]) -> None:
    scene = begin("sensor", "hang", "door", "relay", "serial")
    scene.fresh("sensor")
    scene.rig.hang()
    scene.until(lambda: scene.of("status", device="sensor"), "the status: the bus hangs")
    assert scene.of("status", device="sensor")[0]["reason"] in ("timeout", "bus_fault")
    # All three at work while the thread of the other bus is still inside its call.
    assert scene.switch(True, "on")["state"] == "done"
    scene.rig.door(True)
    scene.until(lambda: scene.of("reading", device="door", values={"active": True}), "the door")
    scene.weigh(12.5)
    assert scene.switch(False, "off")["state"] == "done"
    assert scene.daemon.device("sensor")["state"] != "online"
    scene.rig.release()
    scene.until(lambda: scene.of("status", device="sensor", state="online"), "the sensor back")
    scene.fresh("sensor")
    lost = {event["device"] for event in scene.of("status")}
    assert lost == {"sensor"}
    scene.rig.door(False)
    scene.end()


def test_it_stops_in_order_all_the_same(begin: Callable[..., Scene]) -> None:
    scene = begin("sensor", "hang", "relay")
    assert scene.switch(True, "on")["state"] == "done"
    scene.rig.hang()
    scene.until(lambda: scene.of("status", device="sensor"), "the status: the bus hangs")
    asked_s = time.monotonic()
    assert scene.daemon.stop() == 0
    scene.until(lambda: not scene.rig.relay_on(), "the relay at its safe level")
    off_s = scene.rig.relay_record()[-1].t_s
    assert off_s - asked_s < 5.0 * SLOWNESS, "a bus that hangs made another wait"
    scene.rig.release()
    scene.check_no_bug()
