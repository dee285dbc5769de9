"""The emergency stop's button, while the daemon hangs and while it does not."""

from pathlib import Path
from typing import Any

import pytest

from support.guarded_daemon import (
    AWAY,
    BUTTON,
    LAMP,
    LAMP_SAFE,
    VALVE,
    VALVE_SAFE,
    Question,
    Scene,
    Service,
    environment_of,
)
from support.waiting import until


@pytest.fixture
def scene(new_scene: Any) -> Scene:
    """The guard is patient: what it does here, it does for the button."""
    made: Scene = new_scene(60.0)
    made.start()
    assert made.daemon.ask("status")["guard"]["stop_input"]
    made.drive()
    return made


def late_s(scene: Scene, entry: dict[str, Any]) -> float:
    """From the contact to this entry, by the board's record."""
    (contact,) = scene.entries(bus="pins", line=BUTTON, by="stimulus")
    return float(entry["t"] - contact["t"])


def test_it_works_while_the_daemon_hangs_and_is_latched_when_it_wakes(scene: Scene) -> None:
    scene.freeze()
    scene.press()
    valve = scene.wait_guard(bus="pins", line=VALVE, level=VALVE_SAFE)
    lamp = scene.wait_guard(bus="pins", line=LAMP, level=LAMP_SAFE)
    scene.wait_all_safe()
    print(f"contact to safe: {late_s(scene, valve) * 1000:.1f} and {late_s(scene, lamp) * 1000:.1f} ms")
    late = Question(scene.folder, op="set", device="valve", values=AWAY["valve"], id="late")
    scene.press(pressed=False)
    scene.thaw()
    # A command that waited may be read before the stop is; then the guard has the line safe again at once.
    late.answer()
    until(lambda: scene.daemon.ask("status")["emergency_stop"]["latched"], "the latch")
    until(lambda: {entry["device"] for entry in scene.journal()} >= {"valve", "lamp"}, "the Journal")
    until(lambda: scene.levels(VALVE)[-1][0] == VALVE_SAFE, "the valve at safe")
    assert scene.daemon.ask("set", device="valve", values=AWAY["valve"])["state"] == "rejected"
    assert scene.daemon.ask("status")["emergency_stop"]["who"] == "the line of button"


def test_it_works_at_once_while_the_daemon_is_well(scene: Scene) -> None:
    scene.press()
    until(lambda: scene.levels(VALVE)[-1][0] == VALVE_SAFE, "the valve at safe")
    until(lambda: scene.daemon.ask("status")["emergency_stop"]["latched"], "the latch")
    until(lambda: scene.shown("relays") == {"a0": False, "b7": False}, "the expander at safe")


def test_what_was_pressed_while_the_daemon_hung_binds_the_next_one(new_scene: Any, service: Service) -> None:
    scene: Scene = new_scene(60.0)
    scene.start(**environment_of(service))
    scene.drive(("valve",))
    scene.freeze()
    scene.press()
    scene.wait_guard(bus="pins", line=VALVE, level=VALVE_SAFE)
    scene.press(pressed=False)
    scene.daemon.kill()
    scene.start(**environment_of(service))
    until(lambda: scene.daemon.ask("status")["emergency_stop"]["latched"], "the latch")
    scene.daemon.ask("release")
    assert scene.daemon.ask("set", device="valve", values={"on": True})["state"] == "done"


def test_a_device_that_is_opened_again_is_watched_again(scene: Scene, tmp_path: Path) -> None:
    scene.fault("pins", "unplug")
    until(lambda: scene.daemon.device("button")["state"] != "online", "the loss of the chip")
    scene.heal("pins")
    until(scene.online, "the chip's return")
    scene.drive(("valve",))
    scene.freeze()
    scene.press()
    scene.wait_guard(bus="pins", line=VALVE, level=VALVE_SAFE)
    scene.thaw()
