"""One device at a line that the chip does not have: its neighbours on the bus do not notice."""

from functools import partial
from pathlib import Path

import pytest

from device_agent.bus.core import Bus
from device_agent.clock import SystemClock
from device_agent.config import load
from device_agent.devices import device as device_module
from device_agent.devices.hardware import Hardware
from device_agent.records import DeviceState
from device_agent.testing.board import Board, open_handle
from support.board_devices import States
from support.waiting import until_async

CONFIG = """
[agent]
name = "shed"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
[devices.bad]
driver = "gpio-input"
bus = "pins"
line = "NOWHERE"
"""
# More openings in vain than the bus would bear if they counted against it.
OPENINGS = 5


async def test_a_line_that_is_not_there_costs_its_own_device_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "REOPEN_MAX_S", 0.5)
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG)
    config = load(path)
    devices = {name: (config.drivers[name], options) for name, options in config.devices.items()}
    board = Board(config.buses, devices)
    states = States()
    hardware = Hardware(config, partial(open_handle, board=board), states, SystemClock(), {})
    tried: list[BaseException] = []
    note = Bus.note_failure
    monkeypatch.setattr(
        Bus, "note_failure", lambda bus, user, error: (tried.append(error), note(bus, user, error))
    )
    hardware.start()
    try:
        await until_async(lambda: len(tried) >= OPENINGS)
        assert hardware.supervisors["pins"].bus.faults == 0
        assert states.of["door"] == states.of["valve"] == [DeviceState.ONLINE]
        assert states.of["bad"] == [DeviceState.OFFLINE]
    finally:
        await hardware.close()
