"""The daemon and a unit of another implementation, each a process of its own, on one serial line."""

import os
import pty
import select
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import processes
from support.processes import Daemon
from support.waiting import LIMIT_S, until

pytest.importorskip("pymodbus", reason="pip install -e '.[dev]'")

PROGRAM = Path(processes.__file__).with_name("pymodbus_unit.py")
CONFIG = """
[agent]
name = "line"
[network]
cdm_url = "http://127.0.0.1:9"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 10
[buses.line]
kind = "serial"
port = "{port}"
baud = 19200
[devices.meter]
driver = "modbus-rtu"
bus = "line"
unit = 17
every_s = 0.2
points.voltage = {{ address = 0, type = "float32", unit = "V" }}
points.power = {{ address = 2, type = "int32", unit = "W" }}
points.energy = {{ address = 4, type = "uint64", unit = "W.h" }}
points.model = {{ address = 8, type = "string", length = 4 }}
points.setpoint = {{ address = 100, scale = 0.1, unit = "Cel", write = true, maximum = 60, safe = 5 }}
points.absent = {{ address = 500 }}
points.level = {{ kind = "input", address = 0, type = "float64" }}
points.on = {{ kind = "coil", address = 3, write = true, safe = false }}
points.alarm = {{ kind = "discrete", address = 1 }}
"""
MEASURED = {
    "voltage": 230.2,
    "power": -1234567,
    "energy": 2**53 + 1,
    "model": "EM-4 rev",
    "setpoint": 5,
    "absent": None,
    "level": -52.5,
    "on": False,
    "alarm": True,
}


class Wire:
    """Two pseudo-terminals; what one end sends the other one hears."""

    def __init__(self) -> None:
        self._ends = [pty.openpty(), pty.openpty()]
        for fd in (fd for end in self._ends for fd in end):
            tty.setraw(fd)
        self.ports = [os.ttyname(far) for _, far in self._ends]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        (a, _), (b, _) = self._ends
        while not self._ended.is_set():
            for fd in select.select([a, b], [], [], 0.05)[0]:
                os.write(b if fd == a else a, os.read(fd, 1024))

    def forget(self) -> None:
        """What came while nobody listened: a line keeps nothing, a pseudo-terminal does."""
        termios.tcflush(self._ends[1][1], termios.TCIFLUSH)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for end in self._ends:
            for fd in end:
                os.close(fd)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def unit(port: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(PROGRAM), port], stderr=subprocess.DEVNULL)


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(LIMIT_S)


def test_another_implementation_is_read_and_set(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(folder=tmp_path, port=wire.ports[0]))
    far_end = unit(wire.ports[1])
    daemon = Daemon(tmp_path, path, {"BLOCKS_API_KEY": "bk_device"}, [])
    try:
        daemon.wait_logged("device_online")

        def read() -> dict[str, object]:
            return daemon.ask("read", device="meter")  # type: ignore[no-any-return]

        told = until(lambda: (found := read()).get("values") and found, "a reading")
        assert {**told["values"], "voltage": round(told["values"]["voltage"], 4)} == MEASURED
        assert told["flags"] == {"absent": "refused"}
        for values in ({"on": True}, {"setpoint": 21.5}, {"setpoint": 7.3, "on": False}):
            answer = daemon.ask("set", device="meter", values=values)
            assert (answer["state"], answer["verified"], answer["applied"]) == ("done", True, values)
        ended(far_end)
        until(lambda: daemon.device("meter")["state"] == "offline", "the unit is missed")
        wire.forget()
        far_end = unit(wire.ports[1])
        until(lambda: daemon.device("meter")["state"] == "online", "it is back")
        assert read()["values"]["setpoint"] == 5, "made safe when it was opened again"  # type: ignore[index]
    finally:
        daemon.stop()
        ended(far_end)
