"""What a changed configuration means for the devices."""

import asyncio
from pathlib import Path

import pytest

from device_agent.bus.core import NoBus
from device_agent.clock import SystemClock
from device_agent.config import Config, load
from device_agent.devices.dispatcher import Dispatcher
from device_agent.devices.hardware import Change, Hardware
from device_agent.errors import BusGone
from device_agent.records import DeviceState
from support.waiting import LIMIT_S

BASE = """
[agent]
name = "a"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[devices.climate]
driver = "bme280"
bus = "i2c1"
[devices.board]
driver = "host"
"""


def config(folder: Path, text: str) -> Config:
    path = folder / "agent.toml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("", "", Change()),
        ('driver = "host"', 'driver = "host"\nevery_s = 7', Change(changed=["board"])),
        ("[devices.climate]", "timeout_s = 3\n[devices.climate]", Change(changed=["climate"])),
        ("[devices.board]", "[devices.computer]", Change(removed=["board"], added=["computer"])),
    ],
)
def test_only_what_differs_is_touched(tmp_path: Path, old: str, new: str, change: Change) -> None:
    before = config(tmp_path, BASE)
    hardware = Hardware(before, lambda *_: NoBus(), Dispatcher([]), SystemClock(), {})
    assert list(hardware.devices) == ["climate", "board"]
    assert hardware.compare(config(tmp_path, BASE.replace(old, new) if old else BASE)) == change


class Absent(NoBus):
    """A bus that nobody can open."""

    def open(self) -> None:
        raise BusGone("unplugged")


async def test_ready_is_when_every_device_was_tried(tmp_path: Path) -> None:
    made = config(tmp_path, BASE)
    hardware = Hardware(
        made, lambda name, _: NoBus() if name == "board" else Absent(), Dispatcher([]), SystemClock(), {}
    )
    tried = asyncio.ensure_future(hardware.until_tried())
    await asyncio.sleep(0)
    assert not tried.done()
    hardware.start()
    try:
        await asyncio.wait_for(tried, LIMIT_S)
        assert hardware.devices["board"].tried.is_set()
        assert hardware.devices["climate"].state is DeviceState.OFFLINE
    finally:
        await hardware.close()
