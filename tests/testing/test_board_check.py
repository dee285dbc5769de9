"""`check_driver` passes good drivers and names the rule that a bad one breaks."""

import threading
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from pydantic import Field

from device_agent import registry
from device_agent.driver import (
    Actuator,
    ActuatorConfig,
    ChipReset,
    DriverConfig,
    I2cBus,
    Listener,
    Point,
    Sensor,
    SerialBus,
    Unit,
    Value,
    WrongChip,
)
from device_agent.testing import RegisterChip, check_driver


class Tmp117Config(DriverConfig):
    driver: Literal["tmp117"] = "tmp117"
    address: int = Field(0x48, ge=0x48, le=0x4B)


class Tmp117(Sensor[Tmp117Config, I2cBus]):
    points: tuple[Point, ...] = (Point("temperature", Unit.CELSIUS, low=-55, high=150),)
    simulator = lambda config: RegisterChip({0x0F: b"\x01\x17", 0x00: b"\x0c\x80"})  # noqa: E731

    def open(self) -> None:
        if self.bus.read_u16(self.config.address, 0x0F) & 0xFFF != 0x117:
            raise WrongChip(f"no TMP117 at {self.config.address:#04x}")

    def read(self) -> Mapping[str, Value]:
        return {"temperature": self.bus.read_s16(self.config.address, 0x00) / 128}


REGISTERS = {0x0F: b"\x01\x17", 0x00: b"\x0c\x80"}


def test_a_third_partys_driver_passes():
    check_driver(Tmp117)
    check_driver(Tmp117, registers=REGISTERS)
    check_driver(Tmp117, {"address": 0x4B}, chip=RegisterChip(REGISTERS))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bme280", {}),
        ("gpio-input", {"line": 17, "active_low": True, "count": True}),
        ("gpio-output", {"line": 27, "active_low": True, "safe": False}),
        ("serial-bytes", {}),
        (
            "serial-lines",
            {
                "pattern": "^W +(?P<weight>-?[0-9.]+)",
                "command": "SP {setpoint}\n",
                "points": {
                    "weight": {"unit": "g"},
                    "setpoint": {"unit": "g", "write": True, "minimum": 0, "maximum": 500, "safe": 0},
                },
            },
        ),
        (
            "mqtt-topic",
            {
                "points": {
                    "level": {"unit": "mm", "topic": "tank/level"},
                    "pump": {
                        "type": "boolean",
                        "write": True,
                        "topic": "tank/pump",
                        "write_topic": "tank/pump/set",
                        "safe": False,
                    },
                }
            },
        ),
        ("host", {}),
    ],
)
def test_the_first_bundled_drivers_pass(name: str, config: dict[str, Any]):
    check_driver(registry.load(name), config)


class LooseConfig(DriverConfig):
    driver: str = "loose"  # type: ignore[assignment]


class Loose(Sensor[LooseConfig, I2cBus]):
    points = (Point("temperature"),)


class BadName(Tmp117):
    points = (Point("Temp C", Unit.CELSIUS),)


class BadUnit(Tmp117):
    points = (Point("temperature", "Celsius"),)  # type: ignore[arg-type]


class WriteOnly(Tmp117):
    points = (Point("temperature", Unit.CELSIUS, write=True),)


class NoSimulator(Tmp117):
    simulator = None


class Incomplete(Tmp117):
    points = (*Tmp117.points, Point("humidity", Unit.PERCENT))


class NotANumber(Tmp117):
    def read(self) -> Mapping[str, Value]:
        self.bus.read_u16(self.config.address, 0x00)
        return {"temperature": float("nan")}


class Sleeper(Tmp117):
    def read(self) -> Mapping[str, Value]:
        self.sleep(0.5)
        return super().read()


class Guesser(Tmp117):
    """Believes that the bus is always there."""

    def read(self) -> Mapping[str, Value]:
        return {"temperature": 21.0}


class Threaded(Tmp117):
    ended = threading.Event()

    def open(self) -> None:
        super().open()
        threading.Thread(target=self.ended.wait, name="tmp117-poller", daemon=True).start()


class Unconfigured(Tmp117):
    """Sets the scale once and never looks again."""

    simulator = lambda config: _Scaled({0x0F: b"\x01\x17", 0x20: b"\x01"})  # noqa: E731

    def open(self) -> None:
        super().open()
        self.bus.write_u8(self.config.address, 0x20, 2)


class Attentive(Unconfigured):
    def read(self) -> Mapping[str, Value]:
        if self.bus.read_u8(self.config.address, 0x20) != 2:
            raise ChipReset("lost its scale")
        return super().read()


class LeftAsFound(Tmp117):
    """Trusts that half of a register was left alone by the program before."""

    simulator = lambda config: _Scaled({0x0F: b"\x01\x17", 0x20: b"\x02"})  # noqa: E731

    def open(self) -> None:
        super().open()
        self.bus.write_u8(self.config.address, 0x20, self.bus.read_u8(self.config.address, 0x20))


class _Scaled(RegisterChip):
    def on_read(self, register: int, value: int) -> int:
        return self[0x20] if register == 0x00 else value


class Whole(Listener[Tmp117Config, SerialBus]):
    """Takes it for granted that a chunk is a line."""

    points = (Point("weight", Unit.GRAM),)

    def feed(self, chunk: bytes) -> list[dict[str, Value]]:
        return [{"weight": 1.0}] if chunk.endswith(b"\n") and len(chunk) > 2 else []


class RelayConfig(ActuatorConfig):
    driver: Literal["expander"] = "expander"
    address: int = 0x20


class Expander(Actuator[RelayConfig, I2cBus]):
    points = (Point("on", type="boolean", write=True),)
    simulator = lambda config: _Latch({0x00: b"\x00"})  # noqa: E731

    def open(self) -> None:
        self.safe()

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self.bus.write_u8(self.config.address, 0, int(bool(values["on"])))
        return {"on": bool(self.bus.read_u8(self.config.address, 0))}


class _Latch(RegisterChip):
    def outputs(self) -> dict[str, float | bool | str]:
        return {"on": bool(self[0])}


class OpensOn(Expander):
    def open(self) -> None:
        self.write({"on": True})


class ReadsBackNothingTrue(Expander):
    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        super().write(values)
        return {"on": False}


def test_an_actuator_passes():
    check_driver(Expander, {"safe": False})


def test_a_chip_reset_that_is_noticed_passes():
    check_driver(Attentive)


@pytest.mark.parametrize(
    ("driver", "options", "sentence"),
    [
        (Loose, {}, "without `driver: Literal"),
        (BadName, {}, "names are lower-case words"),
        (BadUnit, {}, "take one of `Unit`"),
        (WriteOnly, {}, "is no Actuator"),
        (NoSimulator, {}, "brings no `simulator`"),
        (Incomplete, {}, "a reading without humidity"),
        (NotANumber, {}, "the value nan"),
        (Sleeper, {}, "sleeps 0.5 s inside a call"),
        (Guesser, {}, "raises no BusError while its bus is unplugged"),
        (Threaded, {}, "leaves threads behind: tmp117-poller"),
        (Unconfigured, {}, "after its chip lost power and came back, without a word"),
        (LeftAsFound, {}, "left every register otherwise"),
        (Whole, {"feed": [b"W 1\n"]}, "when they come one by one"),
        (Whole, {}, "says nothing although its far end spoke"),
        (Expander, {}, "does not take the configuration"),
        (Expander, {"config": {"safe": 5}}, "its safe value 5"),
        (OpensOn, {"config": {"safe": False}}, "nothing moves"),
        (ReadsBackNothingTrue, {"config": {"safe": False}}, "reads back False"),
    ],
)
def test_a_broken_rule_is_named(driver, options, sentence):
    try:
        with pytest.raises(AssertionError, match=sentence):
            check_driver(driver, **options)
    finally:
        if driver is Threaded:
            Threaded.ended.set()
