"""Drivers of every shape for configuration tests, and `load_text`, which needs no installed driver."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, model_validator

from device_agent.config import Config, load
from device_agent.driver import (
    Action,
    Actuator,
    ActuatorConfig,
    Argument,
    Driver,
    DriverConfig,
    GpioBus,
    I2cBus,
    Listener,
    NoBus,
    Point,
    Sensor,
    SerialBus,
    Unit,
)
from device_agent.errors import ConfigError


class ThermoConfig(DriverConfig):
    driver: Literal["thermo"] = "thermo"
    address: int = Field(0x48, ge=0x48, le=0x4B)
    mode: Literal["slow", "fast"] = "slow"
    window: str | list[int] = "all"


class Thermo(Sensor[ThermoConfig, I2cBus]):
    points = (
        Point("temperature", Unit.CELSIUS, low=-40, high=125),
        Point("alert", type="boolean"),
        Point("count", Unit.ONE, "integer", low=0),
    )


class RelayConfig(ActuatorConfig):
    driver: Literal["relay"] = "relay"
    line: int | str


class Relay(Actuator[RelayConfig, GpioBus]):
    points = (Point("on", type="boolean", write=True),)
    actions = (Action("pulse", (Argument("for_s", Unit.SECOND, minimum=0.01, maximum=60),)),)

    @classmethod
    def claims(cls, config: RelayConfig) -> tuple[str, ...]:
        return (f"line {config.line}",)


class FanConfig(ActuatorConfig):
    driver: Literal["fan"] = "fan"
    address: Literal[0x20, 0x21] = 0x20


class Fan(Actuator[FanConfig, I2cBus]):
    points = (
        Point("speed", Unit.PERCENT, write=True, minimum=0, maximum=100),
        Point("steps", Unit.ONE, "integer", write=True, minimum=1, maximum=8),
        Point("label", type="string", write=True),
    )


class MeterConfig(DriverConfig):
    driver: Literal["meter"] = "meter"
    address: int = Field(1, ge=1, le=247)


class Meter(Sensor[MeterConfig, SerialBus]):
    points = (Point("energy", Unit.KILOWATT_HOUR, low=0),)


class ConsoleConfig(DriverConfig):
    driver: Literal["console"] = "console"


class Console(Listener[ConsoleConfig, SerialBus]):
    bytes_side = True


class BoardConfig(DriverConfig):
    driver: Literal["board"] = "board"


class Board(Sensor[BoardConfig, NoBus]):
    points = (Point("load", Unit.ONE, low=0),)


class OddConfig(DriverConfig):
    """A model whose own code fails where its author did not look."""

    driver: Literal["odd"] = "odd"
    how: str = ""
    names: list[str] = []  # noqa: RUF012 - pydantic copies it

    @model_validator(mode="after")
    def _trouble(self) -> "OddConfig":
        if self.how == "model":
            raise KeyError("lost")
        return self


class Odd(Sensor[OddConfig, NoBus]):
    @classmethod
    def points_of(cls, config: Any) -> tuple[Point, ...]:
        if config.how == "points":
            raise RuntimeError("no points today")
        return tuple(Point(name, write=config.how == "write") for name in config.names)


class BlowerConfig(ActuatorConfig):
    driver: Literal["blower", "arm"] = "blower"
    line: int


class Blower(Actuator[BlowerConfig, GpioBus]):
    pulses = "share"
    points = (Point("duty", write=True, minimum=0, maximum=1),)


class Arm(Blower):
    pulses = "position"
    points = (Point("angle", write=True, minimum=-90, maximum=90),)


FAKES: dict[str, type[Driver[Any, Any]]] = {
    "thermo": Thermo,
    "relay": Relay,
    "blower": Blower,
    "arm": Arm,
    "fan": Fan,
    "meter": Meter,
    "console": Console,
    "board": Board,
    "odd": Odd,
}


def load_fake(name: str) -> type[Driver[Any, Any]]:
    if name not in FAKES:
        raise ConfigError(f'driver "{name}" is not installed: Installed are {", ".join(FAKES)}')
    return FAKES[name]


AGENT = '[agent]\nname = "a"\n'


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[..., Config]:
    """Load this TOML text with the fakes as the only drivers."""

    def load_it(text: str, **environ: str) -> Config:
        path = tmp_path / "agent.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ=environ, load_driver=load_fake)

    return load_it


@pytest.fixture
def problems(load_text: Callable[..., Config]) -> Callable[..., tuple[str, ...]]:
    """The problems of a text; the [agent] table is added where there is none. Empty if it loads."""

    def find(text: str) -> tuple[str, ...]:
        try:
            load_text(text if "[agent]" in text else AGENT + text)
        except ConfigError as error:
            return error.problems
        return ()

    return find


@pytest.fixture
def fakes() -> dict[str, type[Driver[Any, Any]]]:
    return FAKES
