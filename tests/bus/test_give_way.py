"""On each kind of bus a safe state of another device goes between two transactions of one call."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_agent.bus.config import I2cBusConfig, MqttBusConfig, OneWireBusConfig, SpiBusConfig
from device_agent.bus.core import Bus, Handle, Urgency
from device_agent.bus.factory import make_handle
from device_agent.config import load
from device_agent.errors import BusError
from device_agent.testing.board import Board, open_handle
from support.mosquitto import Broker
from support.waiting import until_async

LIMIT_S = 20.0
SIMULATED = """
[agent]
name = "many_buses"
[buses.i2c]
kind = "i2c"
device = "/dev/i2c-1"
[buses.spi]
kind = "spi"
device = "/dev/spidev0.0"
[buses.w1]
kind = "w1"
[buses.mqtt]
kind = "mqtt"
host = "broker"
[devices.light]
driver = "bh1750"
bus = "i2c"
[devices.volts]
driver = "mcp3008"
bus = "spi"
[devices.soil]
driver = "ds18b20"
bus = "w1"
id = "28-000000000001"
"""
TRANSACTIONS: dict[str, Callable[[Any], Any]] = {
    "i2c": lambda handle: handle.transfer(0x23, b"\x01"),
    "spi": lambda handle: handle.transfer(bytes(3)),
    "w1": lambda handle: handle.read("28-000000000001", "w1_slave"),
    "mqtt": lambda handle: handle.publish("a", b"1"),
}


class OpenedElsewhere(Bus):
    """Its handle may be one of an adapter that is not there: what is asked here comes before any access."""

    async def open(self) -> None:
        with suppress(BusError):
            self.handle.open()
        self.handle, handle = Handle(), self.handle
        await super().open()
        self.handle = handle


async def between(handle: Handle, transaction: Callable[[Any], Any]) -> list[str]:
    """The order of two transactions of one call, and of a safe state that is asked for between them."""
    bus = OpenedElsewhere("bus", handle)
    await bus.open()
    order: list[str] = []
    going_on = threading.Event()

    def call() -> None:
        with suppress(BusError):
            transaction(handle)
        order.append("first")
        assert going_on.wait(LIMIT_S)
        with suppress(BusError):
            transaction(handle)
        order.append("second")

    reading = asyncio.ensure_future(bus.run(call, LIMIT_S, user="gauge"))
    await until_async(lambda: order == ["first"])
    safe = asyncio.ensure_future(
        bus.run(partial(order.append, "safe"), LIMIT_S, urgency=Urgency.SAFE, user="relay")
    )
    await until_async(lambda: bus.waiting == 2)
    going_on.set()
    await asyncio.gather(reading, safe)
    await bus.close()
    bus.stop()
    return order


@pytest.mark.parametrize("kind", TRANSACTIONS)
async def test_on_a_simulated_bus(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(SIMULATED)
    config = load(path)
    devices = {name: (config.drivers[name], options) for name, options in config.devices.items()}
    board = Board(config.buses, devices)
    try:
        handle = open_handle(kind, config.buses[kind], board=board)
        assert await between(handle, TRANSACTIONS[kind]) == ["first", "safe", "second"]
    finally:
        board.close()


@pytest.mark.parametrize(
    "config",
    [
        I2cBusConfig(kind="i2c", device="/dev/i2c-none"),
        SpiBusConfig(kind="spi", device="/dev/spidev-none"),
        OneWireBusConfig(kind="w1", directory="/nowhere"),
    ],
    ids=lambda config: config.kind,
)
async def test_on_the_kernel_s_bus(config: I2cBusConfig | SpiBusConfig | OneWireBusConfig) -> None:
    handle = make_handle("bus", config)
    assert await between(handle, TRANSACTIONS[config.kind]) == ["first", "safe", "second"]


async def test_on_a_broker(broker: Broker) -> None:
    broker.start()
    handle = make_handle("bus", MqttBusConfig(kind="mqtt", host="127.0.0.1", port=broker.port))
    assert await between(handle, TRANSACTIONS["mqtt"]) == ["first", "safe", "second"]
