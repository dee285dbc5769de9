"""Listening only while somebody takes the bytes."""

import asyncio

import pytest

from device_agent.bus.core import Bus, Handle
from device_agent.devices.listening import Watchers, while_watched
from device_agent.errors import BusGone, DriverError

LIMIT_S = 10.0


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
