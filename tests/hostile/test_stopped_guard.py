"""A guard that was stopped, and a daemon that died meanwhile: what it missed is done all the same."""

import os
import signal

from support.guarded_daemon import VALVE, VALVE_SAFE, Scene, alive
from support.waiting import until


def test_a_guard_that_was_stopped_does_what_it_missed(scene: Scene) -> None:
    scene.drive()
    guard = scene.guard()
    os.kill(guard, signal.SIGSTOP)
    scene.daemon.kill()
    scene.start()
    assert alive(guard)
    # What it had not begun when the daemon came is the daemon's.
    until(lambda: scene.levels(VALVE)[-1][0] == VALVE_SAFE, "the valve at safe")
    until(lambda: scene.shown("relays") == {"a0": False, "b7": False}, "the expander at safe")
    assert scene.holders(VALVE) == ["daemon", "guard"]
    assert [e["pid"] for e in scene.daemon.events() if e["event"] == "guard_silent"] == [guard]
