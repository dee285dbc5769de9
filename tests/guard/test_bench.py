"""`set`, `do` and `safe` without a daemon: what they move is watched until it is safe again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.cli import main
from support.guarded_daemon import VALVE, VALVE_SAFE, Scene
from support.waiting import LIMIT_S, until

ON = 1 - VALVE_SAFE
CHILD = Path(__file__).parent / "bench_child.py"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path, 10.0) as scene:
        yield scene


class Command:
    """One command line as a process."""

    def __init__(self, scene: Scene, *words: str) -> None:
        self.scene = scene
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), *words, "--config", str(scene.config)],
            env={**os.environ, **scene.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def held(self) -> str:
        """Wait until it says that it holds; that line."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def kill(self) -> None:
        """Its guard goes on, and keeps standard error open."""
        self.process.kill()
        self.process.wait(LIMIT_S)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        if number is not None:
            self.process.send_signal(number)
        out, errors = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, out, errors


def edit(scene: Scene, before: str, after: str) -> None:
    text = scene.config.read_text()
    assert before in text
    scene.config.write_text(text.replace(before, after, 1))


def levels(scene: Scene) -> list[int]:
    """As it was driven; a line that nobody drives is at 0 on this board."""
    return [level for level, by in scene.levels(VALVE) if by != "reset"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_set_is_held_until_the_end_and_then_safe(ground: Scene, number: int) -> None:
    command = Command(ground, "set", "valve", "on", "on")
    assert "held until Ctrl-C" in command.held()
    assert levels(ground)[-2:] == [VALVE_SAFE, ON]
    code, out, errors = command.end(number)
    assert (code, errors) == (0, "")
    assert "on = on (read back)" in out
    # Safe, and only then let go.
    assert ground.levels(VALVE)[-2:] == [(VALVE_SAFE, "daemon"), (0, "reset")]
    assert main(["journal", "--verify", "--config", str(ground.config)]) == 0


def test_its_limits_end_it(ground: Scene) -> None:
    edit(ground, "line = 27\n", "line = 27\nmax_on_s = 0.5\nmin_off_s = 3600\n")
    command = Command(ground, "set", "valve", "on", "on")
    assert "at most 0.5 s" in command.held()
    assert command.end()[0] == 0
    assert levels(ground)[-2:] == [ON, VALVE_SAFE]
    # The rest holds for the next process too.
    code, _, errors = Command(ground, "set", "valve", "on", "on").end()
    assert code == 1
    assert "must rest min_off_s = 3600" in errors
    assert levels(ground).count(ON) == 1


def test_safe_values_and_refusals_hold_nothing(ground: Scene) -> None:
    assert Command(ground, "set", "valve", "on", "off").end()[0] == 0
    code, _, errors = Command(ground, "set", "scale", "setpoint", "501").end()
    assert code == 1
    assert "outside 0 to 500 g" in errors


def test_who_is_killed_leaves_it_to_the_guard(ground: Scene) -> None:
    command = Command(ground, "set", "valve", "on", "on")
    command.held()
    command.kill()
    ground.wait_guard(bus="pins", line=VALVE, level=VALVE_SAFE)
    seen = len(ground.levels(VALVE))
    assert ground.levels(VALVE)[seen - 2 :] == [(ON, "daemon"), (VALVE_SAFE, "guard")]
    # The next one takes the line over at safe, and says what the guard did.
    assert Command(ground, "set", "valve", "on", "off").end()[0] == 0


def test_others_reach_it_and_no_second_owner_comes(ground: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(ground, "set", "valve", "on", "on")
    command.held()
    code, _, errors = Command(ground, "run", "--simulate").end()
    assert code == 1
    assert "another daemon or command uses" in errors
    assert main(["safe", "--config", str(ground.config)]) == 0
    assert command.end()[0] == 0
    assert ground.levels(VALVE)[-2] == (VALVE_SAFE, "daemon")


def test_the_latch_holds_without_a_daemon(ground: Scene) -> None:
    command = Command(ground, "set", "valve", "on", "on")
    command.held()
    assert main(["estop", "--config", str(ground.config)]) == 0
    assert command.end()[0] == 0
    code, _, errors = Command(ground, "set", "valve", "on", "on").end()
    assert code == 77
    assert "emergency stop was pressed" in errors
    assert levels(ground).count(ON) == 1


def test_a_safe_that_cannot_open_the_chip_leaves_the_line_held(ground: Scene) -> None:
    command = Command(ground, "set", "valve", "on", "on")
    command.held()
    command.kill()
    ground.wait_guard(bus="pins", line=VALVE, level=VALVE_SAFE)
    ground.fault("pins", "stuck")
    code, _, _ = Command(ground, "safe").end()
    assert code == 1
    ground.heal("pins")
    assert ground.holders(VALVE) == ["guard"]
    assert ground.levels(VALVE)[-1] == (VALVE_SAFE, "guard")


def test_safe_reaches_what_a_dead_daemon_left(ground: Scene) -> None:
    """A chip that keeps its outputs when nobody is there."""
    command = Command(ground, "set", "relays", "a0", "on")
    command.held()
    place = str(ground.folder / "state" / "run" / "guard.sock").encode()
    guards = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if place in _words(path)]
    for pid in map(int, guards):
        os.kill(pid, signal.SIGKILL)
    command.kill()
    assert ground.shown("relays")["a0"] is True
    code, out, _ = Command(ground, "safe").end()
    assert code == 0
    assert "relays" in out
    until(lambda: ground.shown("relays") == {"a0": False, "b7": False}, "the expander at safe")


def _words(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile
