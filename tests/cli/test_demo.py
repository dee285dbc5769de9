"""The demo as a newcomer starts it: with and without a terminal, ended in every way, nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.terminal import Terminal

LIMIT_S = 90.0
COMMAND = [sys.executable, "-m", "device_agent", "demo"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "TERM": "xterm-256color", "PYTHONUTF8": "1", **more}


def children(pid: int) -> set[int]:
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found.update(map(int, path.read_text().split()))
    return found


def gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


@pytest.fixture
def terminal(short_folder: Path) -> Iterator[Terminal]:
    made = Terminal(COMMAND, environment(short_folder))
    yield made
    made.close()


def test_without_a_terminal_it_tells_its_story_and_ends(short_folder: Path) -> None:
    done = subprocess.run(
        COMMAND, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
        env=environment(short_folder), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert re.search(r"first reading at the caller +temperature \d+\.\d+ °C", done.stdout)
    assert re.search(r"ack: open valve: done, read back from the pin, \d+ ms", done.stdout)
    assert "climate is offline (absent)" in done.stdout
    assert "climate is online again" in done.stdout
    assert "tank is offline" not in done.stdout, "it had only not yet spoken"
    assert re.search(r"\d+ readings came, 0 are missing; 2 commands", done.stdout)
    assert re.search(r"^Next: `\S*device-agent scan` shows", done.stdout.splitlines()[-2])
    assert list(short_folder.iterdir()) == []


def test_in_a_terminal_the_keys_work_and_q_ends_it(terminal: Terminal, short_folder: Path) -> None:
    terminal.wait("WHAT THE CALLER SEES")
    started = children(terminal.process.pid)
    assert len(started) == 3
    terminal.wait(r"temperature.*\d+\.\d\d.*°C")
    terminal.press("r")
    terminal.wait(r"ack: \w+ valve: done, read back from the pin")
    terminal.press("u")
    terminal.wait("climate is offline")
    terminal.press("u")
    terminal.wait("climate is online again")
    terminal.press("n")
    terminal.wait("LINK CUT")
    terminal.wait(r"[3-9]\d waiting")
    terminal.resize(60, 18)
    terminal.wait("device-agent demo")
    terminal.resize(120, 40)
    terminal.press("n")
    terminal.wait(r"(\d+) from the time without link")
    terminal.press("q")
    assert terminal.end() == 0
    assert re.search(r"readings came \(\d+ of them late\), 0 are missing", terminal.text), terminal.text
    assert "\x1b[?1049l" in terminal.text, "the screen is given back"
    assert termios.tcgetattr(terminal.slave)[3] == terminal.before[3], "and the keyboard"
    assert [pid for pid in started if not gone(pid)] == []
    assert list(short_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "WHAT HAPPENED"),
        (signal.SIGTERM, "simulated board"),
        (signal.SIGKILL, "simulated board"),
    ],
)
def test_however_it_ends_no_process_is_left(short_folder: Path, number: int, moment: str) -> None:
    terminal = Terminal(COMMAND, environment(short_folder, NO_COLOR="1"), 80, 24)
    try:
        terminal.wait(moment)
        started = children(terminal.process.pid)
        assert started
        terminal.process.send_signal(number)
        assert terminal.end() == {signal.SIGINT: 0, signal.SIGTERM: 130, signal.SIGKILL: -9}[number]
        deadline_s = time.monotonic() + LIMIT_S
        while not all(map(gone, started)):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert number == signal.SIGKILL or list(short_folder.iterdir()) == []
        # $NO_COLOR: only the cursor is moved, hidden and shown.
        assert set(re.findall(r"\x1b\[[0-9;]*m", terminal.text)) <= {"\x1b[0m"}
    finally:
        terminal.close()


def test_without_the_sdk_it_says_how_to_get_it(short_folder: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'blocks_network' else find(name, *rest)\n"
        "from device_agent.cli import main\n"
        "sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=LIMIT_S, env=environment(short_folder), check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "-m pip install 'blocks-network" in done.stderr
    assert len(done.stderr.splitlines()) == 1
