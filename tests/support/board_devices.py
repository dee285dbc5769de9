"""A board's buses and devices for the tests beside this file, and what they do with them."""

import select
from typing import Literal

from device_agent.bus.config import GpioBusConfig, I2cBusConfig, MqttBusConfig, SerialBusConfig
from device_agent.driver import Actuator, DriverConfig, GpioBus, I2cBus, Listener, MqttBus, Sensor, SerialBus
from device_agent.records import DeviceState, Reading, ReadingSubscriber, Status
from device_agent.testing import Board, Quantity, RegisterChip, SerialChip, open_handle

LIMIT_S = 10.0


class ThermometerConfig(DriverConfig):
    driver: Literal["thermometer"] = "thermometer"
    address: int = 0x48


class Thermometer(Sensor[ThermometerConfig, I2cBus]):
    simulator = lambda config: RegisterChip(  # noqa: E731
        {0x0F: b"\x01\x17"},
        {
            "temperature": Quantity(
                0x00, lambda value: round(value * 128).to_bytes(2, "big", signed=True), 25.0
            )
        },
    )


class ContactConfig(DriverConfig):
    driver: Literal["contact"] = "contact"
    line: int = 17
    active_low: bool = False


class Contact(Listener[ContactConfig, GpioBus]):
    @classmethod
    def claims(cls, config: ContactConfig) -> tuple[str, ...]:
        return (f"line {config.line}",)


class Relay(Actuator[ContactConfig, GpioBus]):
    pass


class Echo(SerialChip):
    def receive(self, data: bytes) -> None:
        self.say(data.upper())


class PortConfig(DriverConfig):
    driver: Literal["port"] = "port"


class Port(Listener[PortConfig, SerialBus]):
    simulator = lambda config: Echo()  # noqa: E731


class Topic(Listener[PortConfig, MqttBus]):
    pass


BUSES = {
    "i2c1": I2cBusConfig(kind="i2c", device="/dev/i2c-1"),
    "pins": GpioBusConfig(kind="gpio", chip="pinctrl-bcm2835"),
    "meter": SerialBusConfig(kind="serial", port="/dev/ttyUSB0"),
    "broker": MqttBusConfig(kind="mqtt", host="localhost"),
}
DEVICES = {
    "climate": (Thermometer, ThermometerConfig(bus="i2c1")),
    "door": (Contact, ContactConfig(bus="pins", active_low=True)),
    "valve": (Relay, ContactConfig(bus="pins", line=27)),
    "echo": (Port, PortConfig(bus="meter")),
    "tank": (Topic, PortConfig(bus="broker")),
}


def opened(name: str, place, by: str = "daemon"):
    handle = open_handle(name, BUSES[name], board=place, by=by)
    handle.open()
    return handle


def arrived(source, count: int) -> list:
    """The next `count` chunks of a source."""
    chunks: list = []
    while len(chunks) < count:
        assert select.select([source.fileno()], [], [], LIMIT_S)[0], f"{len(chunks)} of {count} arrived"
        chunks.extend(source.drain())
    return chunks


def levels(board: Board, line: int) -> list[tuple[int, str]]:
    return [(entry["level"], entry["by"]) for entry in board.record.entries if entry.get("line") == line]


class States(ReadingSubscriber):
    """Which states each device has reported, in order."""

    def __init__(self) -> None:
        self.of: dict[str, list[DeviceState]] = {}

    def on_reading(self, reading: Reading) -> None: ...

    def on_status(self, status: Status) -> None:
        self.of.setdefault(status.device, []).append(status.state)
