"""`set` where no daemon runs, on a pseudo-terminal as serial port; `tests/guard` has the rest."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
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


class Far:
    """What the port's far end has heard."""

    def __init__(self) -> None:
        self.data = b""
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
    heard = Far()

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
    assert json.loads(out)["applied"] == {"setpoint": 120}
    assert heard.wait(b"SP 120\nSP 0\n")


def test_its_range_holds_without_a_daemon_too(bench: tuple[str, Far], capsys: Any) -> None:
    path, heard = bench
    assert main(["--config", path, "set", "scale", "setpoint", "501"]) == 1
    assert "outside 0 to 500 g" in capsys.readouterr().err
    assert b"501" not in heard.data


def test_a_chip_that_is_not_there_is_named(bench: tuple[str, Far], capsys: Any) -> None:
    assert main(["--config", bench[0], "set", "valve", "on", "true"]) == 1
    assert "no-such-chip" in capsys.readouterr().err
