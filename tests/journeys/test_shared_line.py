"""One RS-485 line with a relay and a meter that is slow or sends half frames: the relay is obeyed."""

import os
import pty
import select
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_agent_drivers.modbus import framed
from support.processes import Daemon
from support.waiting import until

METER, RELAY = 17, 18
MAX_ON_S = 3.0
POINTS = 40
# Transactions of the meter that may come in between, counted and not timed, for a busy machine is slow at
# everything. Its reading takes POINTS of them.
BETWEEN_MAX = POINTS / 4
CONFIG = """
[agent]
name = "line"
display_name = "Line"
description = "A relay and a meter on one line."
organization = "Tests"
tags = ["test"]
[network]
cdm_url = "http://127.0.0.1:9"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 10
[buses.line]
kind = "serial"
port = "{port}"
[devices.relay]
driver = "modbus-rtu"
bus = "line"
unit = 18
every_s = 1
max_on_s = {max_on_s}
points.on = {{ kind = "coil", address = 0, write = true, safe = false }}
[devices.meter]
driver = "modbus-rtu"
bus = "line"
unit = 17
every_s = 0.1
timeout_s = 0.3
"""


class Line:
    """Both units at the other end of a pseudo-terminal. The meter takes `delay_s`."""

    def __init__(self, delay_s: float, meter_bytes: int | None) -> None:
        self.delay_s = delay_s
        self.meter_bytes = meter_bytes
        self.fd, self._far = pty.openpty()
        tty.setraw(self.fd)
        tty.setraw(self._far)
        self.port = os.ttyname(self._far)
        self.coil: list[tuple[float, bool]] = []
        """Each setting of the relay with its monotonic time."""
        self.asked_at_s: list[float] = []
        self.relay_asked = 0
        self.mute = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self.fd)
        os.close(self._far)

    @property
    def asked(self) -> int:
        return len(self.asked_at_s)

    def between(self, since_s: float) -> int:
        """How often the meter was asked from then until the relay was set last."""
        return sum(since_s < at_s < self.coil[-1][0] for at_s in self.asked_at_s)

    @property
    def is_on(self) -> bool:
        return bool(self.coil) and self.coil[-1][1]

    def _work(self) -> None:
        received = b""
        while not self._ended.is_set():
            if not select.select([self.fd], [], [], 0.05)[0]:
                received = b""
                continue
            received += os.read(self.fd, 1024)
            while len(received) >= 8:
                question, received = received[:8], received[8:]
                os.write(self.fd, self._answer(question))

    def _answer(self, question: bytes) -> bytes:
        if question[0] == METER:
            self.asked_at_s.append(time.monotonic())
            time.sleep(self.delay_s)
            return framed(bytes((METER, question[1], 2, 0, 7)))[: self.meter_bytes]
        self.relay_asked += 1
        if self.mute:
            return b""
        if question[1] == 5:
            self.coil.append((time.monotonic(), question[4] == 0xFF))
            return question
        return framed(bytes((RELAY, 1, 1, self.is_on)))


@contextmanager
def at_work(folder: Path, line: Line) -> Iterator[Daemon]:
    path = folder / "agent.toml"
    points = "".join(f'points.p{n} = {{ kind = "input", address = {2 * n} }}\n' for n in range(POINTS))
    path.write_text(CONFIG.format(folder=folder, port=line.port, max_on_s=MAX_ON_S) + points)
    daemon = Daemon(folder, path, {"BLOCKS_API_KEY": "bk_device"}, [])
    try:
        daemon.wait_logged("device_online")
        until(lambda: state(daemon, "relay") == "online", "the relay online")
        yield daemon
    finally:
        daemon.stop()
        line.close()


def state(daemon: Daemon, name: str) -> str:
    return str(daemon.device(name)["state"])


def switch_on(daemon: Daemon) -> None:
    answer = daemon.ask("set", device="relay", values={"on": True})
    assert answer["state"] == "done", answer


@pytest.mark.parametrize(("delay_s", "meter_bytes"), [(0.07, None), (0.0, 4)], ids=["slow", "garbling"])
def test_a_limit_and_a_stop_wait_for_one_transaction(
    tmp_path: Path, delay_s: float, meter_bytes: int | None
) -> None:
    line = Line(delay_s, meter_bytes)
    with at_work(tmp_path, line) as daemon:
        until(lambda: line.asked > POINTS / 2, "the meter asked")
        switch_on(daemon)
        on_s = line.coil[-1][0]
        until(lambda: not line.is_on, "the relay off")
        assert line.between(on_s + MAX_ON_S) <= BETWEEN_MAX

        switch_on(daemon)
        asked_s = time.monotonic()
        assert daemon.ask("estop")["relay"] is True
        assert not line.is_on
        assert line.between(asked_s) <= BETWEEN_MAX
        assert state(daemon, "relay") == "online"
        if meter_bytes is None:
            until(lambda: state(daemon, "meter") == "online", "the slow meter online")


def test_a_relay_that_is_lost_is_made_safe_when_it_answers_again(tmp_path: Path) -> None:
    """While it is mute its limit ends; nobody waits for the pause before it would be opened again."""
    line = Line(0.0, None)
    with at_work(tmp_path, line) as daemon:
        switch_on(daemon)
        line.mute = True
        until(lambda: state(daemon, "relay") != "online", "the relay lost")
        time.sleep(MAX_ON_S)
        # By now it is tried once in up to 15 s, unless it has to be made safe.
        began_s, tries = time.monotonic(), line.relay_asked
        until(lambda: line.relay_asked >= tries + 6, "six tries")
        assert time.monotonic() - began_s < 60
        assert line.is_on
        line.mute = False
        until(lambda: not line.is_on, "the relay off")
