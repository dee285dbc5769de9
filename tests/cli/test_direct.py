"""`set` where no daemon runs, on a pseudo-terminal as serial port; `tests/guard` has the rest."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli import main

CONFIG = """
[agent]
name = "bench"
[state]
directory = "{folder}/state"
[buses.meter]
kind = "serial"
port = "{port}"
[buses.pins]
kind = "gpio"
chip = "no-such-chip"
[devices.scale]
driver = "serial-lines"
bus = "meter"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+)'
command = "SP {{setpoint}}\\n"
[devices.scale.points]
weight = {{ unit = "g" }}
setpoint = {{ unit = "g", write = true, minimum = 0, maximum = 500, safe = 0 }}
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
[streams.live]
direction = "bidirectional"
devices = ["scale", "valve"]
"""


METER = """
[agent]
name = "bench"
[state]
directory = "{folder}/state"
[buses.meter]
kind = "serial"
port = "{port}"
[devices.scale]
driver = "serial-lines"
bus = "meter"
pattern = '^W +(?P<weight>-?[0-9.]+)'
points.weight = {{ unit = "kg" }}
[streams.live]
direction = "outbound"
devices = ["scale"]
"""


class Far:
    """What the port's far end has heard."""

    def __init__(self, say: Callable[[bytes], None] = lambda data: None) -> None:
        self.data = b""
        self.say = say
        self._more = threading.Condition()

    def take(self, data: bytes) -> None:
        with self._more:
            self.data += data
            self._more.notify_all()

    def wait(self, words: bytes) -> bool:
        with self._more:
            return self._more.wait_for(lambda: words in self.data, 10)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[str, Far]]:
    """A configuration on a pty, and what arrives at the port's far end."""
    far, near = pty.openpty()
    heard = Far(lambda data: os.write(far, data) and None)

    def listen() -> None:
        while True:
            try:
                heard.take(os.read(far, 1000))
            except OSError:
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(folder=tmp_path, port=os.ttyname(near)))
    (tmp_path / "meter.toml").write_text(METER.format(folder=tmp_path, port=os.ttyname(near)))
    tty.setraw(near)
    yield str(path), heard
    os.close(near)
    os.close(far)


def test_a_serial_device_is_held_without_a_daemon(bench: tuple[str, Far]) -> None:
    path, heard = bench
    command = [sys.executable, "-m", "device_agent", "--config", path]
    with subprocess.Popen(
        [*command, "set", "scale", "setpoint", "120", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert b"held until Ctrl-C" in process.stderr.readline()
        assert heard.wait(b"SP 120")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    ack = json.loads(out)
    assert (ack["commanded"], ack["applied"]) == ({"setpoint": 120}, {}), "sent, and nobody confirmed it"
    assert heard.wait(b"SP 120\nSP 0\n")


def test_its_range_holds_without_a_daemon_too(bench: tuple[str, Far], capsys: Any) -> None:
    path, heard = bench
    assert main(["--config", path, "set", "scale", "setpoint", "501"]) == 1
    assert "outside 0 to 500 g" in capsys.readouterr().err
    assert b"501" not in heard.data


def test_a_chip_that_is_not_there_is_named(bench: tuple[str, Far], capsys: Any) -> None:
    assert main(["--config", bench[0], "set", "valve", "on", "true"]) == 1
    assert "no-such-chip" in capsys.readouterr().err


@contextmanager
def saying(heard: Far, text: bytes) -> Iterator[None]:
    """The far end says this again and again."""
    ended = threading.Event()

    def talk() -> None:
        while not ended.wait(0.1):
            heard.say(text)

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        yield
    finally:
        ended.set()
        talking.join()


def read(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "device_agent", "--config", str(path), "read", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("file", "unit"), [("agent.toml", "g"), ("meter.toml", "kg")])
def test_read_waits_for_a_device_that_talks_and_moves_nothing(
    bench: tuple[str, Far], file: str, unit: str
) -> None:
    path, heard = Path(bench[0]).with_name(file), bench[1]
    with saying(heard, b"W  12.5\r\n"):
        done = read(path, "scale", "--json")
    reading = json.loads(done.stdout)
    assert (reading["values"]["weight"], reading["units"]["weight"]) == (12.5, unit), done.stderr
    assert heard.data == b"", "not even the safe value"


def test_read_says_what_a_line_looks_like_that_nobody_understands(bench: tuple[str, Far]) -> None:
    """A meter of 7 bits with even parity, read as 8N1."""
    path, heard = Path(bench[0]).with_name("meter.toml"), bench[1]
    sent = bytes(byte | (byte.bit_count() % 2) << 7 for byte in b"1-0:1.8.0(000123.45*kWh)\r\n")
    with saying(heard, sent):
        done = read(path, "scale")
    assert done.returncode == 1
    wanted = r"device scale: \d+ bytes/s, nothing understood: looks like 7E1"
    assert re.search(wanted, done.stderr), done.stderr


def test_reading_an_output_that_opening_would_move_is_refused(bench: tuple[str, Far]) -> None:
    done = read(Path(bench[0]), "valve")
    assert done.returncode == 1
    assert "reading moves nothing" in done.stderr
