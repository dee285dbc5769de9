"""A bus that cannot be opened waits ever longer, unless an actuator on it has to be made safe."""

import asyncio

import pytest

from device_agent.bus.core import Bus, BusState, Handle
from device_agent.clock import SystemClock
from device_agent.devices import bus_supervisor, device
from device_agent.devices.bus_supervisor import BusSupervisor
from device_agent.devices.device import Device
from device_agent.driver import Actuator, ActuatorConfig, NoBus, Point
from device_agent.errors import BusGone, NoAnswer
from device_agent.records import ReadingSubscriber, Status
from support.waiting import until_async

NEVER_S = 3600.0


class Unpluggable(Handle):
    there = False
    tries = 0

    def open(self) -> None:
        self.tries += 1
        if not self.there:
            raise BusGone("no adapter")


class Valve(Actuator[ActuatorConfig, NoBus]):
    points = (Point("open", type="boolean", write=True),)
    set_to: tuple[object, ...] = ()

    def open(self) -> None:
        self.safe()

    def write(self, values: object) -> None:
        self.set_to = (*self.set_to, values)


class Nobody(ReadingSubscriber):
    def on_reading(self, reading: object) -> None: ...
    def on_status(self, status: Status) -> None: ...


async def test_making_safe_does_not_wait_for_the_back_off_of_the_bus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus_supervisor, "REOPEN_FIRST_S", NEVER_S)
    monkeypatch.setattr(bus_supervisor, "REOPEN_MAX_S", NEVER_S)
    monkeypatch.setattr(device, "REOPEN_MAX_S", NEVER_S)
    handle, clock = Unpluggable(), SystemClock()
    bus = Bus("usb", handle)
    valve = Device("valve", Valve, ActuatorConfig(safe=False), bus, clock, Nobody())
    running = [asyncio.ensure_future(BusSupervisor(bus, clock).run()), asyncio.ensure_future(valve.run())]
    try:
        await until_async(lambda: handle.tries == 1)
        handle.there = True
        with pytest.raises(NoAnswer):
            await valve.safe()
        await until_async(lambda: valve.online)
        assert bus.state is BusState.OPEN
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await bus.close()
        bus.stop()
