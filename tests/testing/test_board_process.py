"""The board as a process: its command line, its record, and what happens when its clients die."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent import config
from device_agent.errors import BusError, BusGone, BusHeld
from device_agent.testing.board import attach_output, ensure_board, open_handle
from device_agent.testing.board.link import answers
from support.processes import json_lines
from support.waiting import until

LIMIT_S = 60.0

CONFIG = """
[agent]
name = "greenhouse_7"
display_name = "Greenhouse 7"
description = "Climate and watering."
version = "1.0.0"
organization = "Example Farm"
tags = ["greenhouse"]

[state]
directory = "state"

[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[buses.meter]
kind = "serial"
port = "/dev/ttyUSB0"

[devices.climate]
driver = "bme280"
bus = "i2c1"
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
active_low = true
safe = false
[devices.console]
driver = "serial-bytes"
bus = "meter"
"""

HOLDER = """
import sys, time
from pathlib import Path
from device_agent.testing.board import open_handle
from device_agent.bus.config import GpioBusConfig
bus = open_handle("pins", GpioBusConfig(kind="gpio", chip="x"), board=Path(sys.argv[1]), by="daemon")
bus.open()
line = bus.output(27, active=True, active_low=True)
print(line.claim, flush=True)
time.sleep(600)
"""


class Running:
    """A board process, its configuration and its command line."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "agent.toml"
        self.config.write_text(CONFIG)
        self.socket = folder / "board.sock"
        self.record_path = folder / "record.jsonl"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "device_agent", "board", "run", "--socket", str(self.socket)),
                *("--config", str(self.config), "--record", str(self.record_path)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], LIMIT_S)[0], "the board is ready in time"
        assert self.process.stdout.readline() == f"board ready at {self.socket}\n"

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "device_agent", "board", *words],
            check=False,
            env={**os.environ, "DEVICE_AGENT_BOARD": str(self.socket)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def shown(self) -> dict[str, Any]:
        return json.loads(self("show", "--json"))

    def handle(self, bus: str, by: str = "daemon") -> Any:
        handle = open_handle(bus, config.load(self.config).buses[bus], board=self.socket, by=by)
        handle.open()
        return handle

    def record(self) -> list[dict[str, Any]]:
        return json_lines(self.record_path)

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.end()


def test_commands_change_the_world_and_show_it(board):
    i2c, pins = board.handle("i2c1"), board.handle("pins")
    door = pins.input(17)
    assert i2c.read_u8(0x76, 0xD0) == 0x60
    board("pin", "pins", "GPIO17", "high")
    assert select.select([door.fileno()], [], [], LIMIT_S)[0]
    assert [edge.active for edge in door.drain()] == [True]
    board("chip", "climate", "temperature=-4.5", "humidity=80")
    shown = board.shown()
    assert shown["devices"]["climate"]["values"]["temperature"] == -4.5
    (line,) = (line for line in shown["buses"]["pins"]["lines"] if line["line"] == 17)
    assert (line["level"], line["holders"], line["by"]) == (1, ["daemon"], "stimulus")
    assert "climate  temperature  -4.5" in board("show")
    board("fault", "i2c1", "nack", "--for", "600", "--device", "climate")
    with pytest.raises(BusError, match="no chip answers at address 0x76"):
        i2c.read_u8(0x76, 0xD0)
    assert "i2c1 (i2c): nack climate" in board("show")
    board("heal")
    assert i2c.read_u8(0x76, 0xD0) == 0x60
    assert [entry["by"] for entry in board.record()] == ["stimulus"] * 3
    door.close()
    pins.close()
    i2c.close()


def test_serial_text_takes_the_escapes_of_a_python_string(board):
    assert "nobody has serial port meter open" in board("feed", "meter", "lost", code=1)
    port = board.handle("meter")
    board("feed", "meter", r"W 12.5\r\n\x02\xff°")
    assert port.read(12, LIMIT_S) == b"W 12.5\r\n\x02\xff\xc2\xb0"
    port.write(b"SP 5\n\x00")
    assert board("sent", "meter") == "SP 5\\n\\x00\n"
    assert json.loads(board("sent", "meter", "--json")) == {"bus": "meter", "bytes": "SP 5\n\x00"}
    port.close()


def test_mistakes_are_one_sentence(board, tmp_path):
    assert "there is no device 'roof'" in board("chip", "roof", "open=1", code=1)
    assert "there are: humidity, pressure, temperature" in board("chip", "climate", "wind=1", code=1)
    assert "temperature is a number" in board("chip", "climate", "temperature=warm", code=1)
    assert "is not POINT=VALUE" in board("chip", "climate", "temperature", code=2)
    assert "meter knows" in board("fault", "meter", "fire", code=1)
    assert "no simulated board answers" in board("show", "--socket", str(tmp_path / "none"), code=69)
    assert "answers at" in board("run", "--socket", str(board.socket), "--config", str(board.config), code=1)
    assert "no configuration" in board(
        "run", "--socket", str(tmp_path / "b"), "--config", "none.toml", code=78
    )


def test_killed_daemon_lets_go_and_the_pull_decides(board):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(board.socket)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline()
    holder.send_signal(signal.SIGKILL)
    holder.wait(LIMIT_S)
    holder.stdout.close()
    until(lambda: len(board.record()) == 2)
    claim, reset = board.record()
    assert (claim["bus"], claim["line"], claim["level"], claim["by"]) == ("pins", 27, 0, "daemon")
    assert (reset["level"], reset["by"]) == (0, "reset")
    assert claim["t"] <= reset["t"] <= time.monotonic()


def test_guard_keeps_a_killed_daemons_line_and_makes_it_safe(board):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(board.socket)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    claim = holder.stdout.readline().strip()
    guard = attach_output(claim, board=board.socket, by="guard")
    holder.send_signal(signal.SIGKILL)
    holder.wait(LIMIT_S)
    holder.stdout.close()
    until(lambda: ["guard"] in [line["holders"] for line in board.shown()["buses"]["pins"]["lines"]])
    guard.write(True)  # the guard knows physical levels
    restarted = board.handle("pins")
    with pytest.raises(BusHeld, match="held by guard"):
        restarted.output(27, active=False, active_low=True)
    guard.close()
    valve = restarted.output(27, active=False, active_low=True)
    assert [(entry["level"], entry["by"]) for entry in board.record()] == [
        (0, "daemon"),
        (1, "guard"),
        (0, "reset"),
        (1, "daemon"),
    ]
    valve.close()
    restarted.close()


def test_a_duplicate_descriptor_keeps_the_line_driven(board):
    bus = board.handle("pins")
    valve = bus.output(27, active=True)
    duplicate = os.dup(valve.fileno())
    with open(valve.fileno(), closefd=True):  # the descriptor ends as with its process, without a goodbye
        pass
    assert ["daemon"] in [line["holders"] for line in board.shown()["buses"]["pins"]["lines"]]
    os.close(duplicate)
    until(lambda: board.record()[-1]["by"] == "reset")
    bus.close()
    valve._link._frames.sock.detach()


def test_a_stuck_call_ends_with_its_client(board):
    board("fault", "i2c1", "stuck")
    script = HOLDER.split("bus =", maxsplit=1)[0].replace("GpioBusConfig", "I2cBusConfig") + (
        'bus = open_handle("i2c1", I2cBusConfig(kind="i2c", device="x"), board=Path(sys.argv[1]))\n'
        "bus.open()\nprint('open', flush=True)\nbus.read_u8(0x76, 0xD0)\n"
    )
    client = subprocess.Popen([sys.executable, "-c", script, str(board.socket)], stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline()
    client.kill()
    client.wait(LIMIT_S)
    client.stdout.close()
    until(lambda: board.threads() <= 3)


def test_end_removes_the_socket_and_a_stale_one_is_taken_over(tmp_path):
    first = Running(tmp_path)
    first.process.kill()
    first.end()
    assert first.socket.exists()
    second = Running(tmp_path)
    assert second.shown()["buses"]
    pins = second.handle("pins")
    second.end()
    assert second.process.returncode == 0
    assert not second.socket.exists()
    with pytest.raises(BusGone):
        pins.input(17)
    pins.close()


def test_ensure_board_attaches_or_starts_one_that_ends_with_its_last_user(tmp_path, board):
    named = ensure_board(board.config, {**os.environ, "DEVICE_AGENT_BOARD": str(board.socket)})
    assert named == board.socket
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom device_agent.testing import ensure_board\n"
        "print(ensure_board(Path(sys.argv[1]), os.environ), flush=True)\ntime.sleep(600)\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "DEVICE_AGENT_BOARD"}
    user = subprocess.Popen(
        [sys.executable, "-c", script, str(board.config)], stdout=subprocess.PIPE, text=True, env=environ
    )
    assert user.stdout is not None
    path = Path(user.stdout.readline().strip())
    assert answers(path)
    assert path.stat().st_mode & 0o777 == 0o600
    board("show", "--socket", str(path))
    user.kill()
    user.wait(LIMIT_S)
    user.stdout.close()
    until(lambda: not path.parent.exists())


def test_a_board_that_does_not_answer_is_said(board, monkeypatch, tmp_path):
    monkeypatch.setattr("device_agent.testing.board.process.ANSWER_LIMIT_S", 0.0)
    with pytest.raises(BusGone, match=r"unset the variable"):
        ensure_board(board.config, {"DEVICE_AGENT_BOARD": str(tmp_path / "none")})
