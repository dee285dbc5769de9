"""`read`, `set` and `do` where no daemon runs: one device, opened for one question."""

import asyncio
from collections.abc import Mapping
from typing import Any

from device_agent.bus.core import Bus
from device_agent.bus.factory import make_handle
from device_agent.clock import SystemClock
from device_agent.config import Config
from device_agent.device import Device
from device_agent.driver import GpioBus, NoBus
from device_agent.errors import NoAnswer, Rejected
from device_agent.records import Reading, Status
from device_agent.requests import as_json
from device_agent.safety.latch import Latch
from device_agent.words import checked_args, checked_values

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


def answer_directly(config: Config, question: Mapping[str, Any]) -> dict[str, Any]:
    """The reading, or the members of an ack. Raises Rejected, BusError, DriverError.

    What a pin is set to lasts only as long as a process holds the pin, so pins are driven through the daemon.
    """
    name = str(question["device"])
    if name not in config.devices:
        known = ", ".join(config.devices) or "none"
        raise Rejected("unknown_device", f"there is no device {name!r}; there are: {known}")
    if question["op"] != "read" and issubclass(config.drivers[name].Bus, GpioBus):
        raise Rejected(
            "device_offline",
            f"no daemon runs, and a pin keeps its value only while a process holds it: start "
            f"`device-agent run` to drive {name}",
        )
    latch = Latch(config.state.directory / "emergency_stop")
    if question["op"] != "read" and latch.exists():
        latch.load()
        latch.check()
    return asyncio.run(_answer(config, name, question))


async def _answer(config: Config, name: str, question: Mapping[str, Any]) -> dict[str, Any]:
    options = config.devices[name]
    handle = NoBus() if options.bus is None else make_handle(options.bus, config.buses[options.bus])
    bus = Bus(options.bus or name, handle)
    sink = _Quiet()
    device = Device(name, config.drivers[name], options, bus, SystemClock(), sink)
    await bus.open()
    life = asyncio.ensure_future(device.run())
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while not device.online:
                await sink.changed.wait()
                sink.changed.clear()
                if not device.online and device.reason:
                    raise NoAnswer(f"device {name}: {device.detail}")
            if question["op"] == "read":
                return as_json(await device.read_now())
            return await _drive(device, question)
    except TimeoutError:
        raise NoAnswer(f"device {name} said nothing within {ANSWER_LIMIT_S:g} s") from None
    finally:
        life.cancel()
        await asyncio.wait([life])
        await bus.close()
        bus.stop()


async def _drive(device: Device, question: Mapping[str, Any]) -> dict[str, Any]:
    if question["op"] == "do":
        actions = {action.name: action for action in device.driver_class.actions}
        action = actions.get(str(question["action"]))
        if action is None or action.moves:
            raise Rejected(
                "device_offline", f"no daemon runs; start `device-agent run` to do this on {device.name}"
            )
        await device.do(action.name, checked_args(action, question["args"]), may_begin=_at_once)
        return {"state": "done"}
    values = checked_values(dict(question["values"]), device.points, device.name)
    read_back = (await device.write(values, may_begin=_at_once)).read_back
    applied = {point: read_back.get(point, value) for point, value in values.items()}
    return {"state": "done", "applied": applied, "verified": values.items() <= dict(read_back).items()}


def _at_once() -> None:
    """The person at the command line waits for it: it cannot come too late."""
