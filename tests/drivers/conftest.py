"""Drivers on a simulated board whose clock the test steps: the real driver code, no real time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device_agent.bus.config import (
    GpioBusConfig,
    I2cBusConfig,
    MqttBusConfig,
    OneWireBusConfig,
    SerialBusConfig,
    SpiBusConfig,
)
from device_agent.driver import Driver
from device_agent.testing import Board, SteppedClock, open_handle

BUSES: dict[str, Any] = {
    "i2c1": I2cBusConfig(kind="i2c", device="/dev/i2c-1"),
    "pins": GpioBusConfig(kind="gpio", chip="pinctrl-bcm2835"),
    "meter": SerialBusConfig(kind="serial", port="/dev/ttyUSB0"),
    "broker": MqttBusConfig(kind="mqtt", host="localhost"),
    "spi0": SpiBusConfig(kind="spi", device="/dev/spidev0.0"),
    "w1": OneWireBusConfig(kind="w1"),
}


class Bench:
    """One device on one simulated bus."""

    def __init__(self, driver: type[Driver[Any, Any]], bus: str, options: dict[str, Any]) -> None:
        self.clock = SteppedClock()
        self.bus = bus
        config = driver.Config.model_validate({"bus": bus, **options})
        self.board = Board({bus: BUSES[bus]}, {"it": (driver, config)}, clock=self.clock)
        self.handle = open_handle(bus, BUSES[bus], board=self.board)
        self.handle.open()
        self.driver: Any = driver(config, self.handle, sleep=self.clock.sleep)

    def measure(self) -> dict[str, Any]:
        """Trigger, wait, read, as a device does."""
        self.driver.trigger()
        self.clock.step(self.driver.settle_s)
        return dict(self.driver.read())

    def close(self) -> None:
        self.driver.close()
        self.handle.close()
        self.board.close()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(driver: type[Driver[Any, Any]], bus: str, **options: Any) -> Bench:
        made.append(Bench(driver, bus, options))
        return made[-1]

    yield make
    for one in made:
        one.close()
