"""A device that times out again and again is lost alone: its neighbour on the bus is not made safe for it."""

from pathlib import Path

import pytest

from device_agent.bus.core import FAILURES_MAX
from device_agent.clock import SystemClock
from device_agent.config import load
from device_agent.devices import device as device_module
from device_agent.devices.hardware import Hardware
from device_agent.errors import BusTimeout
from device_agent.records import DeviceState
from device_agent.testing.board import Board
from device_agent.testing.board.handles import SimulatedI2c
from support.board_devices import States
from support.waiting import until_async

AILING = 0x23
CONFIG = """
[agent]
name = "greenhouse"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[devices.light]
driver = "bh1750"
bus = "i2c1"
address = 0x23
every_s = 0.05
[devices.relays]
driver = "pcf8574"
bus = "i2c1"
address = 0x20
every_s = 3600
outputs = ["p0"]
safe = false
"""


class Ailing(SimulatedI2c):
    """One chip holds the clock until the kernel gives up; with `all_`, the lines are held for all."""

    failures = 0
    all_ = False

    def transfer(self, address: int, write: bytes, read_size: int = 0) -> bytes:
        if address == AILING or self.all_:
            self.failures += 1
            raise BusTimeout(f"bus {self.name}, address {address:#04x}: the bus timed out")
        return super().transfer(address, write, read_size)


async def test_a_chip_that_times_out_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "REOPEN_MAX_S", 0.1)
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG)
    config = load(path)
    devices = {name: (config.drivers[name], options) for name, options in config.devices.items()}
    board = Board(config.buses, devices)
    states = States()
    handle = Ailing("i2c1", board, "daemon")
    hardware = Hardware(config, lambda name, bus: handle, states, SystemClock(), {})
    hardware.start()
    try:
        bus = hardware.supervisors["i2c1"].bus
        await until_async(lambda: DeviceState.ONLINE in states.of.get("relays", []))
        seen = handle.failures
        await until_async(lambda: handle.failures > seen + 4 * FAILURES_MAX)
        assert bus.faults == 0
        assert states.of["relays"] == [DeviceState.ONLINE]
        assert states.of["light"] == [DeviceState.OFFLINE]

        # When nothing works any more the idle neighbour is asked, long before its period of an hour.
        handle.all_ = True
        await until_async(lambda: bus.faults > 0)
    finally:
        await hardware.close()
        board.close()
