"""The monitor: what it shows, on a terminal of any size, and in lines where there is none."""

import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from device_agent.cli.live import Line
from device_agent.cli.monitor import Picture, status_line
from support.terminal import Terminal

NOW_S = 1_800_000_000.0
UNITS = {"climate": {"temperature": "Cel", "humidity": "%"}, "tank": {"weight": "kg"}, "valve": {"on": ""}}
LIMIT_S = 60


def status(**more: Any) -> dict[str, Any]:
    at_ms = (NOW_S - 2) * 1000
    return {
        "agent": "greenhouse_7",
        "link": {"state": "joined", "joined": True, "up": True, "losses": 0, "trouble": ""},
        "outbox": {"events": 12, "bytes": 900, "max_bytes": 32_000_000, "dropped": 0},
        "sessions": [],
        "requests": 0,
        "devices": [
            {
                "device": "climate", "state": "online",
                "latest": {
                    "device": "climate", "at": at_ms,
                    "values": {"temperature": 21.5, "humidity": 45.0}, "flags": {"humidity": "frozen"},
                },
            },
            {"device": "tank", "state": "offline", "detail": "no answer on /dev/ttyUSB0", "reason": "absent"},
            {
                "device": "valve", "state": "online", "at_safe": False, "driven_by": "a caller (user user_9)",
                "away_s": 35, "safe_in_s": 565,
                "latest": {"device": "valve", "at": at_ms, "values": {"on": True}},
            },
        ],
        **more,
    }  # fmt: skip


def lines(picture: Picture, columns: int = 80, rows: int = 24) -> list[str]:
    def text(line: Line) -> str:
        return "".join(part for part, _ in line).rstrip()

    return [text(line) for line in picture.lines(NOW_S, columns, rows)]


def test_values_units_ages_bars_link_outbox_and_who_drives() -> None:
    picture = Picture(UNITS)
    recorded = [
        {"device": "climate", "at": (NOW_S - 600 + 10 * n) * 1000, "values": {"temperature": 20.0 + n / 10}}
        for n in range(50)
    ]
    picture.recall({"readings": recorded})
    picture.take(status(), NOW_S)
    shown = lines(picture)
    assert len(shown) == 24
    assert shown[0] == "greenhouse_7  joined, link up, 0 losses"
    assert shown[1].startswith("outbox   12 events, ")
    (temperature,) = [line for line in shown if "temperature" in line]
    assert re.fullmatch(r" climate +temperature +21\.5 °C +[▁▂▃▄▅▆▇█]{20,32} +2\.0 s", temperature)
    (humidity,) = [line for line in shown if "humidity" in line]
    assert humidity.split() == ["climate", "humidity", "45", "%", "frozen", "2.0", "s"]
    (tank,) = [line for line in shown if "tank" in line]
    assert tank.split()[:3] == ["tank", "weight", "offline"]
    assert "no answer on /dev/ttyUSB0" in tank
    assert " valve is driven by a caller (user user_9), for 35 s, safe in 9 min" in shown
    assert shown[-1].endswith("q quits")


def test_a_small_screen_has_pages() -> None:
    picture = Picture({"host": {f"p{n}": "1" for n in range(20)}})
    values = {f"p{n}": n for n in range(20)}
    latest = {"device": "host", "at": NOW_S * 1000, "values": values}
    picture.take(status(devices=[{"device": "host", "state": "online", "latest": latest}]), NOW_S)
    seen: set[str] = set()
    for _ in range(4):
        shown = lines(picture, 80, 14)
        assert len(shown) == 14
        assert shown[-1].endswith("space: more (20 points)")
        seen |= {word for line in shown for word in line.split() if re.fullmatch(r"p\d+", word)}
        picture.turn_page()
    assert seen == set(values)


def test_while_no_daemon_answers_it_says_so() -> None:
    picture = Picture(UNITS)
    picture.take(None, NOW_S)
    assert lines(picture, 40, 5)[0] == "no daemon answers: waiting for it"
    assert status_line(None, UNITS) == "no daemon answers"


def test_one_line_has_it_all() -> None:
    assert status_line(status(), UNITS) == (
        "joined, 12 waiting, 0 sessions | climate: temperature = 21.5 °C, humidity = 45 % | tank: offline | "
        "valve: on = on"
    )


# -- as a process -------------------------------------------------------------------------------------------


@pytest.fixture
def command(calls: Any) -> list[str]:
    path = calls.world.socket.parent / "agent.toml"
    return [sys.executable, "-m", "device_agent", "--config", str(path), "monitor"]


@pytest.fixture
def terminal(command: list[str]) -> Iterator[Terminal]:
    quiet = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    made = Terminal(command, quiet, 80, 24)
    yield made
    made.close()


def test_on_a_terminal_it_lives_and_shows_who_drives(terminal: Terminal, calls: Any) -> None:
    terminal.wait(r"climate +temperature +\d+\.\d+ °C +[▁▂▃▄▅▆▇█]")
    done = calls("set", "valve", "on", "on", "--for", "30")
    assert done.returncode == 0, done.stderr
    terminal.wait(r"valve is driven .*for \d+ s, safe in \d+")
    assert set(re.findall(r"\x1b\[[0-9;]*m", terminal.text)) <= {"\x1b[0m"}
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
    assert terminal.text.endswith("\x1b[0m\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(terminal.slave)[3] == terminal.before[3]


def test_q_and_a_signal_end_it_in_order(terminal: Terminal) -> None:
    terminal.wait("q quits")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 0
    assert terminal.text.endswith("\x1b[?1049l")


def test_without_a_terminal_it_writes_lines(command: list[str]) -> None:
    done = subprocess.run(
        [*command, "--times", "2"], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
    assert re.match(r"\d{4}-\d\d-\d\d [\d:]{8}  joined, \d+ waiting, ", done.stdout)
    told = subprocess.run(
        [*command, "--json", "--times", "1"], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    status = json.loads(told.stdout)
    assert (status["agent"], status["units"]["climate"]["temperature"]) == ("demo_greenhouse", "Cel")
