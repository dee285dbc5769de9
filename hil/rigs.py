"""What a scenario may do to the hardware around the daemon and see of it; and the simulated board.

The other implementation, of real lines, buses and ports, is `kernel_rig`.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from device_agent.testing.board.link import SocketLink
from device_agent.testing.board.server import STIMULUS
from support.processes import BoardProcess, json_lines

ABILITIES = {
    "door": "a line that the test drives and the agent senses: [gpio.door]",
    "relay": "a line that the agent drives and the test watches: [gpio.relay]",
    "sensor": "an I2C sensor: [sensor]",
    "unplug": "a way to take the sensor away: sensor.unplug and sensor.replug",
    "hang": "a way to hang the sensor's bus: sensor.hang and sensor.release",
    "serial": "a serial port with a far end: [serial]",
}
"""What scenarios may need, and what gives it in the rig file."""


@dataclass(frozen=True, slots=True)
class LevelChange:
    """A line took this physical level at `t_s` (CLOCK_MONOTONIC), or up to `before_s` earlier."""

    t_s: float
    level: bool
    before_s: float = 0.0


class Rig(ABC):
    """One device under test. The relay is active low, the door active high."""

    name = ""
    simulated = False

    @abstractmethod
    def abilities(self) -> set[str]:
        """Which of `ABILITIES` it has."""

    @abstractmethod
    def options(self) -> dict[str, str]:
        """What the configuration's template needs to know: buses, the sensor, lines."""

    @contextmanager
    def running(self, board: BoardProcess | None) -> Iterator["Rig"]:
        """From before the daemon starts until after it ended."""
        yield self

    def need(self, *wanted: str) -> None:
        """Skips a scenario that this rig cannot do."""
        for ability in wanted:
            if ability not in self.abilities():
                pytest.skip(f"the rig {self.name} lacks {ABILITIES[ability]}")

    # -- what it does to the hardware ----------------------------------------

    @abstractmethod
    def door(self, active: bool) -> None:
        """Drive the door's line."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Bytes from the far end of the serial line."""

    @abstractmethod
    def unplug(self) -> None:
        """Take the sensor away."""

    @abstractmethod
    def replug(self) -> None:
        """Put it back: it comes up in its power-on state."""

    @abstractmethod
    def hang(self) -> None:
        """From now on no call on the sensor's bus returns in time."""

    @abstractmethod
    def release(self) -> None:
        """The bus works again."""

    # -- what it records ----------------------------------------

    @abstractmethod
    def door_record(self) -> list[LevelChange]:
        """Every change of the door's line since the start."""

    @abstractmethod
    def relay_record(self) -> list[LevelChange]:
        """Every level that the relay's line took since the start."""

    def relay_on(self) -> bool:
        record = self.relay_record()
        return bool(record) and not record[-1].level


class SimulatedRig(Rig):
    """The board of `device-agent board`, a process of its own whose record tells the times."""

    name = "simulated"
    simulated = True
    DOOR, RELAY = 17, 27

    def __init__(self) -> None:
        self._board: BoardProcess | None = None
        self._link: SocketLink | None = None
        self._lock = threading.Lock()

    def abilities(self) -> set[str]:
        return set(ABILITIES)

    def options(self) -> dict[str, str]:
        return {
            "i2c": "/dev/i2c-1",
            "chip": "pinctrl-bcm2835",
            "port": "/dev/ttyUSB0",
            "baud": "9600",
            "sensor": "bme280",
            "address": "0x76",
            "door": str(self.DOOR),
            "relay": str(self.RELAY),
        }

    @contextmanager
    def running(self, board: BoardProcess | None) -> Iterator[Rig]:
        assert board is not None
        self._board, self._link = board, SocketLink(board.socket, STIMULUS)
        # The pull-up of the relay's module, which keeps it off while nobody drives the line.
        self._call("pin", "pins", self.RELAY, True)
        try:
            yield self
        finally:
            self._link.close()
            self._board = self._link = None

    def _call(self, op: str, *arguments: Any) -> Any:
        # The command line would do the same, and take too long for a contact that bounces.
        assert self._link is not None
        with self._lock:
            return self._link.call(op, *arguments)

    def door(self, active: bool) -> None:
        self._call("pin", "pins", self.DOOR, active)

    def feed(self, data: bytes) -> None:
        self._call("feed", "meter", data)

    def unplug(self) -> None:
        self._call("fault", "i2c1", "unplug", None, "sensor")

    def replug(self) -> None:
        self._call("reset", "sensor")
        self._call("fault", "i2c1", "replug", None, "sensor")

    def hang(self) -> None:
        self._call("fault", "i2c1", "stuck", None, None)

    def release(self) -> None:
        self._call("heal", "i2c1")

    def door_record(self) -> list[LevelChange]:
        return self._changes(self.DOOR, lambda entry: entry["by"] == "stimulus")

    def relay_record(self) -> list[LevelChange]:
        return self._changes(self.RELAY, lambda entry: True)

    def _changes(self, line: int, meant: Callable[[dict[str, Any]], bool]) -> list[LevelChange]:
        assert self._board is not None
        entries = json_lines(self._board.record_path)
        return [LevelChange(e["t"], bool(e["level"])) for e in entries if e.get("line") == line and meant(e)]
