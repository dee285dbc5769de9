"""What one chunk says is told and passed on in order; listening only while somebody takes the bytes."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from device_agent.bus.core import Bus, Handle, NoBus, Source
from device_agent.clock import SystemClock
from device_agent.devices.device import Device
from device_agent.devices.listening import Watchers, while_watched
from device_agent.driver import DriverConfig, Listener, Point, Values
from device_agent.errors import BusGone, DriverError
from device_agent.records import Dated, Reading, ReadingSubscriber
from support.waiting import until_async

LIMIT_S = 10.0


# -- what a chunk says ----------------------------------------


class Pipe:
    """A source of bytes."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def drain(self) -> list[bytes]:
        return [os.read(self._read, 100)]

    def close(self) -> None:
        os.close(self._read)
        os.close(self.write)


class Digits(Listener[DriverConfig, NoBus]):
    """Each digit is a value; after a minus one of a minute ago. Anything else is a failure."""

    points = (Point("digit"),)
    default_stale_after_s = 30.0
    pipe: ClassVar[Pipe]

    def listen(self) -> Source:
        return self.pipe

    def feed(self, chunk: bytes) -> Iterator[Values]:
        old = False
        for sign in chunk.decode():
            if sign == "-":
                old = True
                continue
            age_ms = 60_000 if old else 0
            yield Dated({"digit": int(sign)}, SystemClock().now_ms() - age_ms)
            old = False


class Told(ReadingSubscriber):
    """Writes down what it is told, and what the device's newest value is then."""

    device: Device

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[object], object]] = []

    def _note(self, how: str, readings: Sequence[Reading]) -> None:
        latest = self.device.latest.values["digit"] if self.device.latest is not None else None
        self.seen.append((how, [reading.values["digit"] for reading in readings], latest))

    def on_reading(self, reading: Reading) -> None:
        self._note("one", [reading])

    def on_readings(self, readings: Sequence[Reading]) -> None:
        self._note("all", readings)


async def said(chunk: bytes) -> list[tuple[str, list[object], object]]:
    """What a subscriber is told of a chunk."""
    pipe = Digits.pipe = Pipe()
    bus, told = Bus("b", NoBus()), Told()
    told.device = device = Device("d", Digits, DriverConfig(), bus, SystemClock(), told)
    await bus.open()
    task = asyncio.create_task(device.run())
    await until_async(lambda: device.tried.is_set(), "it is listened to")
    os.write(pipe.write, chunk)
    await until_async(lambda: any(how == "all" for how, *_ in told.seen), "it was heard")
    await ended(bus, task)
    return told.seen


async def test_who_reacts_is_told_of_each_value_and_who_sends_of_all_of_a_chunk_together() -> None:
    assert await said(b"123") == [("one", [1], 1), ("one", [2], 2), ("one", [3], 3), ("all", [1, 2, 3], 3)]


async def test_what_is_past_is_only_kept_and_sent() -> None:
    assert await said(b"1-23") == [("one", [1], 1), ("one", [3], 3), ("all", [1, 2, 3], 3)]


async def test_what_was_said_before_a_failure_is_passed_on() -> None:
    assert (await said(b"12x4"))[:3] == [("one", [1], 1), ("one", [2], 2), ("all", [1, 2], 2)]


# -- watchers ----------------------------------------


class ListeningLog:
    """Writes down when it begins, is cancelled and closed."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[str] = asyncio.Queue()
        self.fails = False

    async def listen(self) -> None:
        self.steps.put_nowait("listen")
        if self.fails:
            raise DriverError("nonsense")
        try:
            await asyncio.Event().wait()
        finally:
            self.steps.put_nowait("cancelled")

    async def close(self) -> None:
        self.steps.put_nowait("close")

    async def next(self) -> str:
        async with asyncio.timeout(LIMIT_S):
            return await self.steps.get()


async def begun() -> tuple[Bus, Watchers, ListeningLog, "asyncio.Task[None]"]:
    bus, watchers, it = Bus("cam", Handle()), Watchers(), ListeningLog()
    await bus.open()
    task = asyncio.create_task(while_watched(watchers, bus, it.listen, it.close))
    return bus, watchers, it, task


async def ended(bus: Bus, task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
    await bus.close()
    bus.stop()


async def test_it_listens_from_the_first_watcher_to_the_last() -> None:
    bus, watchers, it, task = await begun()
    await asyncio.sleep(0)
    assert it.steps.empty(), "nobody takes the bytes yet"
    watchers.add("s1")
    assert await it.next() == "listen"
    watchers.add("s2")
    watchers.remove("s1")
    await asyncio.sleep(0)
    assert it.steps.empty(), "one is left"
    watchers.remove("s2")
    assert [await it.next() for _ in range(2)] == ["cancelled", "close"]
    watchers.add("s3")
    assert await it.next() == "listen"
    await ended(bus, task)


async def test_what_ends_the_listening_is_raised() -> None:
    bus, watchers, it, task = await begun()
    it.fails = True
    watchers.add("s1")
    with pytest.raises(DriverError, match="nonsense"):
        await asyncio.wait_for(task, LIMIT_S)
    await ended(bus, task)


@pytest.mark.parametrize("watched", [True, False])
async def test_a_bus_that_is_lost_ends_it_watched_or_not(watched: bool) -> None:
    bus, watchers, it, task = await begun()
    if watched:
        watchers.add("s1")
        assert await it.next() == "listen"
    else:
        await asyncio.sleep(0)
    bus.fault(BusGone("unplugged"))
    with pytest.raises(BusGone, match="unplugged"):
        await asyncio.wait_for(task, LIMIT_S)
    if watched:
        assert await it.next() == "cancelled"
    await ended(bus, task)
