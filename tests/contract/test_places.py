"""Open, read, set, safe, unplug, return, hang, close twice: through the daemon's own bus, on every place."""

import asyncio
import select
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from device_agent.bus.core import Bus, BusState
from device_agent.driver import Actuator, Driver, Flagged, Listener, Sensor, Value
from device_agent.errors import BusError, DriverError
from device_agent.testing.check import Rules
from support.contract_places import Place

LIMIT_S = 60.0
JOB_S = 20.0
# A call that does not return within this hangs.
HANG_S = 0.4
# What a far end has said arrives within this; after that it is made to speak again.
SPEAK_S = 1.0


class AtWork:
    """The device as the daemon has it: one driver for its life, on the thread of its bus."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rules = Rules(place.driver)
        self.bus = Bus("bus", place.handle())
        self.driver: Driver[Any, Any] = place.driver(place.config, self.bus.handle, place.wait)
        self.points = {point.name: point for point in self.driver.points}
        self.source: Any = None

    async def open(self, limit_s: float = LIMIT_S) -> None:
        """Medium and chip, tried again as the daemon does: what was plugged in needs its time."""
        deadline_s = time.monotonic() + limit_s
        while True:
            try:
                if self.bus.state is not BusState.OPEN:
                    await self.bus.open()
                await self.bus.run(self.driver.open, JOB_S)
                if isinstance(self.driver, Listener):
                    self.source = await self.bus.run(self.driver.listen, JOB_S)
                return
            except (BusError, DriverError):
                if time.monotonic() > deadline_s:
                    raise
                await self.close()
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """As after a loss: let go of the source, the chip, the medium."""
        if self.source is not None:
            self.source.close()
            self.source = None
        await self.bus.run_anyway(self.driver.close, JOB_S)
        await self.bus.close()

    async def reading(self) -> Mapping[str, Value | Flagged] | None:
        """One reading; None of what cannot be read."""
        driver = self.driver
        if isinstance(driver, Sensor):
            if driver.settle_s:
                await self.bus.run(driver.trigger, JOB_S)
                await asyncio.to_thread(self.place.wait, driver.settle_s)
            return await self.bus.run(driver.read, JOB_S)
        if not isinstance(driver, Listener):
            return None
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            await asyncio.to_thread(self.place.do, "speak")
            told = await asyncio.to_thread(self._told, SPEAK_S)
            if told is not None:
                return told
            assert time.monotonic() < deadline_s, "the device says nothing"

    def _told(self, limit_s: float) -> Mapping[str, Value | Flagged] | None:
        driver, deadline_s = self.driver, time.monotonic() + limit_s
        assert isinstance(driver, Listener)
        poll = select.poll()
        poll.register(self.source.fileno(), select.POLLIN)
        while True:
            if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
                return None
            for chunk in self.source.drain():
                if driver.bytes_side:
                    return {}
                if told := list(driver.feed(chunk)):
                    return told[-1]

    async def check(self) -> None:
        """It reads, and what it reads is of its points and believed."""
        values = await self.reading()
        if values:
            self.rules.check_reading(self.points, values)
            assert any(not isinstance(value, Flagged) for value in values.values()), values

    async def use(self) -> None:
        """Whatever the device is for, once; raises what the bus raises."""
        if isinstance(self.driver, Actuator) and self.wanted():
            await self.bus.run(lambda: self.driver.write(self.wanted()), HANG_S)  # type: ignore[attr-defined]
        elif isinstance(self.driver, Sensor):
            await self.bus.run(self.driver.trigger, HANG_S)
            await asyncio.to_thread(self.place.wait, self.driver.settle_s)
            await self.bus.run(self.driver.read, HANG_S)
        elif self.source is not None:
            deadline_s = time.monotonic() + LIMIT_S
            while time.monotonic() < deadline_s:
                self.source.drain()
                await asyncio.sleep(0.01)

    def wanted(self) -> dict[str, Value]:
        """For each point that can be set another value than the safe one."""
        if not isinstance(self.driver, Actuator):
            return {}
        safe = type(self.driver).safe_of(self.place.config)
        found: dict[str, Value] = {}
        for name, point in self.points.items():
            if point.write and point.type == "boolean":
                found[name] = not safe[name]
            elif point.write and point.type == "string":
                found[name] = "ready"
            elif point.write:
                found[name] = point.maximum if point.maximum not in (None, safe[name]) else point.minimum
        return found


@asynccontextmanager
async def at_work(place: Place) -> AsyncIterator[AtWork]:
    made = AtWork(place)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
        made.bus.stop()


async def test_it_opens_reads_and_closes_twice(place: Place) -> None:
    async with at_work(place) as it:
        await it.check()
        await it.close()
        await it.close()
        await it.open()
        await it.check()


async def test_it_is_set_and_goes_safe(place: Place) -> None:
    async with at_work(place) as it:
        if not it.wanted():
            return
        assert isinstance(it.driver, Actuator)
        wanted, safe = it.wanted(), type(it.driver).safe_of(place.config)
        driver = it.driver
        for values, act in ((wanted, lambda: driver.write(wanted)), (safe, driver.safe)):
            told = await it.bus.run(act, JOB_S)
            for name, value in (told or {}).items():
                assert isinstance(value, Flagged) or value == values[name] or abs(value - values[name]) < 0.01
        await it.check()


async def test_it_is_unplugged_and_returns(place: Place) -> None:
    async with at_work(place) as it:
        await it.check()
        place.do("unplug")
        try:
            await it.use()
        except (BusError, DriverError):
            pass
        else:
            raise AssertionError("using it while it is unplugged raises nothing")
        await it.close()
        place.do("replug")
        await it.open()
        await it.check()


async def test_it_hangs_and_is_let_go(place: Place) -> None:
    async with at_work(place) as it:
        if isinstance(it.driver, Listener) and not it.wanted():
            return  # it asks nothing, so nothing can hang
        place.do("hang")
        started_s = time.monotonic()
        try:
            await it.use()
        except (BusError, DriverError):
            pass
        else:
            raise AssertionError("using it on a bus that hangs raises nothing")
        assert time.monotonic() - started_s < LIMIT_S
        place.do("release")
        async with asyncio.timeout(LIMIT_S):
            await it.bus.until_stuck(False)
        await it.close()
        await it.open()
        await it.check()
