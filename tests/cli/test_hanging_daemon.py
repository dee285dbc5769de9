"""Commands to a daemon that is there and answers nothing, as processes."""

import signal
from typing import Any

from support.waiting import until


def test_an_emergency_stop_does_not_wait_for_a_daemon_that_hangs(calls: Any) -> None:
    world, owner = calls.world, calls.owner
    assert owner("set", "valve", "on", "true").returncode == 0
    world._daemon.send_signal(signal.SIGSTOP)
    try:
        asked = [
            owner.begin(*words)
            for words in (["estop"], ["safe"], ["status"], ["may-update"], ["monitor", "--times", "1"])
        ]
        until(lambda: world.valve_open() is False, "the guard makes it safe")
        # 10 s, and what a process takes to start on a busy machine.
        for one in asked:
            out, err = one.communicate(timeout=45)
            assert (one.returncode, out) == (69, ""), err
            assert "has not answered for 10 s: look at what it drives" in err
    finally:
        world._daemon.send_signal(signal.SIGCONT)
    # What the stopped daemon had been asked it does now.
    until(lambda: world.status()["emergency_stop"]["latched"], "the stop")
    assert owner("release").returncode == 0
