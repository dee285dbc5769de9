"""Where the contract is tested: a device on a simulated board, or on what a rig file says is wired here."""

import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from device_agent import registry
from device_agent.bus.config import BusConfig
from device_agent.bus.core import Handle
from device_agent.bus.factory import make_handle
from device_agent.testing import Board, SteppedClock, open_handle
from device_agent.testing.check_live import speak
from support.contract_cases import CASES

NAME = "device"
COMMAND_LIMIT_S = 60
_SIMULATED = {
    "i2c": {"device": "simulated"},
    "gpio": {"chip": "simulated"},
    "serial": {"port": "simulated"},
    "mqtt": {"host": "simulated"},
    "spi": {"device": "simulated"},
    "w1": {},
}


class Place:
    """One device of one driver on one bus, and what can be done to it from outside."""

    def __init__(self, driver: str, options: dict[str, Any], bus: dict[str, Any]) -> None:
        self.driver = registry.load(driver)
        self.bus: BusConfig = TypeAdapter(BusConfig).validate_python(bus)
        self.config = self.driver.Config.model_validate({**options, "driver": driver, "bus": "bus"})

    def handle(self) -> Handle:
        """As the daemon would make it; not opened."""
        raise NotImplementedError

    def wait(self, seconds: float) -> None:
        """Time passes: a chip converts."""
        raise NotImplementedError

    def do(self, what: str) -> None:
        """`unplug` `replug` `hang` `release` `speak`; skips the test where this place cannot."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave it as it was found."""


class SimulatedPlace(Place):
    def __init__(self, driver: str) -> None:
        options, self._feed = CASES[driver]
        kind = registry.load(driver).Bus.kind
        super().__init__(driver, options, {"kind": kind, **_SIMULATED[kind]})
        self._clock = SteppedClock()
        self._board = Board({"bus": self.bus}, {NAME: (self.driver, self.config)}, clock=self._clock)

    def handle(self) -> Handle:
        return open_handle("bus", self.bus, board=self._board)

    def wait(self, seconds: float) -> None:
        self._clock.step(seconds)

    def do(self, what: str) -> None:
        match what:
            case "unplug" | "replug":
                self._board.fault("bus", what)
            case "hang":
                self._board.fault("bus", "stuck")
            case "release":
                self._board.heal()
            case _:
                speak(self._board, NAME, self._feed, self._clock)

    def close(self) -> None:
        self._board.heal()
        self._board.close()


class Wired(BaseModel):
    """An entry of a rig file; the commands go to the shell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: str
    bus: dict[str, Any]
    options: dict[str, Any] = {}
    prepare: str | None = Field(None, description="Before each test.")
    speak: str | None = Field(None, description="Makes a device that is only told say something.")
    unplug: str | None = None
    replug: str | None = None
    hang: str | None = Field(None, description="Calls take longer than the bus's `timeout_s`.")
    release: str | None = None


class WiredPlace(Place):
    def __init__(self, wired: Wired) -> None:
        super().__init__(wired.driver, wired.options, wired.bus)
        self._wired = wired
        if wired.prepare:
            self._run(wired.prepare)

    def handle(self) -> Handle:
        return make_handle("bus", self.bus)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def do(self, what: str) -> None:
        command = getattr(self._wired, what)
        if command is None:
            pytest.skip(f"the rig file has no `{what}` for {self._wired.driver}")
        self._run(command)

    def _run(self, command: str) -> None:
        done = subprocess.run(
            [shutil.which("bash") or "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def places(rig: Path | None) -> Iterator[tuple[str, Any]]:
    """The name of each place and how it is made."""
    if rig is None:
        for name in CASES:
            if registry.load(name).Bus.kind != "none":
                yield name, lambda name=name: SimulatedPlace(name)
        return
    entries: Sequence[Any] = tomllib.loads(rig.read_text())["device"]
    for entry in entries:
        wired = Wired.model_validate(entry)
        yield wired.driver, lambda wired=wired: WiredPlace(wired)
