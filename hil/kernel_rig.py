"""A rig of real lines, buses and ports, as the rig file names them."""

import os
import pty
import select
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import gpiod
import pytest
import rig_file
import serial
from gpiod.line import Direction, Edge, Value
from rigs import LevelChange, Rig

from support.processes import BoardProcess
from support.waiting import until

# A file of a simulated chip tells of no edges: it is looked at this often.
LOOK_S = 0.002
COMMAND_LIMIT_S = 60.0


class KernelRig(Rig):
    """Lines are requested from the start of a scenario to its end; the far ends move on a test's order."""

    def __init__(self, file: rig_file.RigFile) -> None:
        self.name = file.name
        self._file = file
        self._stack = ExitStack()
        self._drive: Callable[[bool], None] = _no_way
        self._say: Callable[[bytes], None] = _no_way
        self._door: list[LevelChange] = []
        self._relay: list[LevelChange] = []
        self._pty: tuple[int, str] | None = None

    def abilities(self) -> set[str]:
        gpio, sensor = self._file.gpio, self._file.sensor
        there = {
            "door": gpio is not None and gpio.door is not None,
            "relay": gpio is not None and gpio.relay is not None,
            "sensor": sensor is not None,
            "unplug": sensor is not None and sensor.unplug is not None,
            "hang": sensor is not None and sensor.hang is not None,
            "serial": self._file.serial is not None,
        }
        return {name for name, is_there in there.items() if is_there}

    def options(self) -> dict[str, str]:
        gpio, sensor, port = self._file.gpio, self._file.sensor, self._file.serial
        options: dict[str, Any] = {}
        if gpio is not None:
            options["chip"] = gpio.chip
            options |= {"door": gpio.door.sensed} if gpio.door is not None else {}
            options |= {"relay": gpio.relay.driven} if gpio.relay is not None else {}
        if sensor is not None:
            options |= {"i2c": sensor.device, "sensor": sensor.driver, "address": hex(sensor.address)}
        if port is not None:
            options |= {"port": self._port(port), "baud": port.baud}
        return {name: str(value) for name, value in options.items()}

    def _port(self, port: rig_file.Serial) -> str:
        if port.port != "pty":
            return port.port
        if self._pty is None:
            far, near = pty.openpty()
            tty.setraw(near)
            # The near end stays open here, or the far end would see a hang-up between two daemons.
            self._pty = far, os.ttyname(near)
            self._stack.callback(os.close, near)
            self._stack.callback(os.close, far)
        return self._pty[1]

    @contextmanager
    def running(self, board: BoardProcess | None) -> Iterator[Rig]:
        with self._stack:
            self._run(self._file.prepare)
            if self._file.gpio is not None:
                self._wire(self._file.gpio)
            if self._file.serial is not None:
                self._say = self._far_end(self._file.serial)
            if self._file.sensor is not None:
                self._run(self._file.sensor.replug)
                self._stack.callback(self._run, self._file.sensor.replug)
                self._run(self._file.sensor.release)
                self._stack.callback(self._run, self._file.sensor.release)
            yield self

    # -- wires ----------------------------------------

    def _wire(self, gpio: rig_file.Gpio) -> None:
        chip = _chip_path(gpio.chip)
        if gpio.door is not None:
            if gpio.door.pull_file is not None:
                self._drive = _pull(gpio.door.pull_file)
            else:
                self._drive = self._driven(chip, gpio.door.driven)
            self._drive(False)
        if gpio.relay is not None:
            ended = threading.Event()
            if gpio.relay.value_file is not None:
                watch, what = self._look, gpio.relay.value_file
            else:
                watch, what = self._listen, self._sensed(chip, gpio.relay.watched)
            thread = threading.Thread(target=watch, args=(what, ended), daemon=True)
            thread.start()
            self._stack.callback(thread.join)
            self._stack.callback(ended.set)

    def _driven(self, chip: str, line: Any) -> Callable[[bool], None]:
        settings = gpiod.LineSettings(direction=Direction.OUTPUT, output_value=Value.INACTIVE)
        request = self._stack.enter_context(
            gpiod.request_lines(chip, consumer="device-agent rig", config={line: settings})
        )
        return lambda level: request.set_value(line, Value.ACTIVE if level else Value.INACTIVE)

    def _sensed(self, chip: str, line: Any) -> Any:
        settings = gpiod.LineSettings(direction=Direction.INPUT, edge_detection=Edge.BOTH)
        return self._stack.enter_context(
            gpiod.request_lines(chip, consumer="device-agent rig", config={line: settings})
        )

    def _listen(self, request: Any, ended: threading.Event) -> None:
        self._relay.append(LevelChange(time.monotonic(), request.get_values()[0] is Value.ACTIVE))
        while not ended.is_set():
            if request.wait_edge_events(timedelta(seconds=0.1)):
                for event in request.read_edge_events():
                    rising = event.event_type is event.Type.RISING_EDGE
                    self._relay.append(LevelChange(event.timestamp_ns / 1e9, rising))

    def _look(self, path: Path, ended: threading.Event) -> None:
        while not ended.wait(LOOK_S):
            level = path.read_text().strip() == "1"
            if not self._relay or self._relay[-1].level is not level:
                self._relay.append(LevelChange(time.monotonic(), level))

    # -- the serial line ----------------------------------------

    def _far_end(self, port: rig_file.Serial) -> Callable[[bytes], None]:
        if self._pty is not None:
            far = self._pty[0]
            return lambda data: _write_all(far, data)
        opened = self._stack.enter_context(serial.Serial(port.far_end, port.baud, exclusive=True))
        return lambda data: _write_all(opened.fd, data)

    # -- Rig ----------------------------------------

    def _run(self, command: str | None) -> None:
        if command is None:
            return
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"

    def door(self, active: bool) -> None:
        began_s = time.monotonic()
        self._drive(active)
        now_s = time.monotonic()
        self._door.append(LevelChange(now_s, active, now_s - began_s))

    def feed(self, data: bytes) -> None:
        self._say(data)

    def unplug(self) -> None:
        self._run(self._file.sensor.unplug if self._file.sensor else None)

    def replug(self) -> None:
        self._run(self._file.sensor.replug if self._file.sensor else None)

    def hang(self) -> None:
        self._run(self._file.sensor.hang if self._file.sensor else None)

    def release(self) -> None:
        self._run(self._file.sensor.release if self._file.sensor else None)

    def door_record(self) -> list[LevelChange]:
        return list(self._door)

    def relay_record(self) -> list[LevelChange]:
        return list(self._relay)


def _no_way(*_: object) -> None:
    pytest.skip("the rig file wires nothing here")


def _pull(path: Path) -> Callable[[bool], None]:
    """gpio-sim: what the outside world puts on a line."""
    return lambda level: _written(path, "pull-up" if level else "pull-down")


def _written(path: Path, text: str) -> None:
    path.write_text(text)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        until(lambda: select.select([], [fd], [], 0.1)[1], "room in the serial line")
        rest = rest[os.write(fd, rest) :]


def _chip_path(wanted: str) -> str:
    """A chip by its label or path, as in the agent's configuration."""
    if wanted.startswith("/"):
        return wanted
    for path in sorted(Path("/dev").glob("gpiochip*")):
        with gpiod.Chip(str(path)) as chip:
            if chip.get_info().label == wanted:
                return str(path)
    raise ValueError(f"no GPIO chip is labelled {wanted!r}")
