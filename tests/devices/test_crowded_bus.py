"""Many slow sensors on one bus: each waits for its turn, and none is lost for waiting."""

import asyncio
from functools import partial
from pathlib import Path

from device_agent.clock import SystemClock
from device_agent.config import load
from device_agent.devices.hardware import Hardware
from device_agent.records import DeviceState, Reading, ReadingSubscriber, Status
from device_agent.testing.board import Board, open_handle

SENSORS = 8
LIMIT_S = 30.0


class Heard(ReadingSubscriber):
    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.statuses: list[Status] = []

    def on_reading(self, reading: Reading) -> None:
        self.readings.append(reading)

    def on_status(self, status: Status) -> None:
        self.statuses.append(status)


async def test_eight_thermometers_on_one_wire(tmp_path: Path) -> None:
    """All are asked at once, 0.094 s each: the last one's turn comes long after the limit of a single job."""
    path = tmp_path / "agent.toml"
    text = '[agent]\nname = "cellar"\n[buses.wire]\nkind = "w1"\ntimeout_s = 0.3\n'
    for n in range(SENSORS):
        text += f'[devices.t{n}]\ndriver = "ds18b20"\nbus = "wire"\nid = "28-{n:012x}"\nevery_s = 0.5\n'
        text += "resolution = 9\n"
    path.write_text(text)
    config = load(path)
    devices = {name: (config.drivers[name], options) for name, options in config.devices.items()}
    board = Board(config.buses, devices)
    heard = Heard()

    hardware = Hardware(config, partial(open_handle, board=board), heard, SystemClock(), {})
    hardware.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            # what is awaited happens in twelve places
            while any(sum(r.device == name for r in heard.readings) < 2 for name in config.devices):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        await hardware.close()
    assert [status for status in heard.statuses if status.state is not DeviceState.ONLINE] == []
