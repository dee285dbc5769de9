"""`read` where no daemon runs: one device, opened for one question."""

import asyncio
from typing import Any

from device_agent.bus.core import Bus
from device_agent.bus.factory import make_handle
from device_agent.clock import SystemClock
from device_agent.config import Config
from device_agent.devices.device import Device
from device_agent.errors import NoAnswer, Rejected
from device_agent.messages.events import reading_members
from device_agent.records import Reading, Status

# A sensor is opened and read within this; a port that must enumerate is there already.
ANSWER_LIMIT_S = 10.0


class _Quiet:
    """A sink that waits for the device to come online."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def on_reading(self, reading: Reading) -> None:
        self.changed.set()

    def on_status(self, status: Status) -> None:
        self.changed.set()

    def on_bytes(self, device: str, data: bytes) -> None: ...


def read_directly(config: Config, name: str) -> dict[str, Any]:
    """The reading. Raises Rejected, BusError, DriverError."""
    if name not in config.devices:
        known = ", ".join(config.devices) or "none"
        raise Rejected("unknown_device", f"there is no device {name!r}; there are: {known}")
    return asyncio.run(_answer(config, name))


async def _answer(config: Config, name: str) -> dict[str, Any]:
    options = config.devices[name]
    handle = make_handle(options.bus or name, None if options.bus is None else config.buses[options.bus])
    bus = Bus(options.bus or name, handle)
    sink = _Quiet()
    limit_s = (
        config.drivers[name].call_limit_s if options.bus is None else config.buses[options.bus].timeout_s
    )
    device = Device(name, config.drivers[name], options, bus, SystemClock(), sink, timeout_s=limit_s)
    await bus.open()
    life = asyncio.ensure_future(device.run())
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S + limit_s):
            while not device.online:
                await sink.changed.wait()
                sink.changed.clear()
                if not device.online and device.reason:
                    raise NoAnswer(f"device {name}: {device.detail}")
            return reading_members(await device.read_now())
    except TimeoutError:
        raise NoAnswer(f"device {name} said nothing within {ANSWER_LIMIT_S:g} s") from None
    finally:
        life.cancel()
        await asyncio.wait([life])
        await bus.close()
        bus.stop()
