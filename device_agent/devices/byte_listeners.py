"""Who takes a device's bytes, and listening only as long as somebody does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from device_agent.bus.core import Bus, BusState

T = TypeVar("T")


class Watchers:
    """Streams by their names; all methods belong to the event loop."""

    def __init__(self) -> None:
        self._who: set[str] = set()
        self._changed = asyncio.Event()

    def add(self, who: str) -> None:
        self._who.add(who)
        self._signal()

    def remove(self, who: str) -> None:
        self._who.discard(who)
        self._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, *, some: bool) -> None:
        """Wait for somebody, or for nobody. No limit of its own: the caller owns the wait."""
        while bool(self._who) is not some:
            await self._changed.wait()


async def while_watched(
    watchers: Watchers,
    bus: Bus,
    driver: T,
    listen: Callable[[T], Awaitable[None]],
    close: Callable[[T], Awaitable[None]],
) -> None:
    """`listen` while somebody watches, `close` when nobody does, and so on. Raises what ends `listen`."""
    while True:
        await _first(bus, watchers.until(some=True))
        await _first(bus, listen(driver), watchers.until(some=False))
        await close(driver)


async def _first(bus: Bus, *waits: Awaitable[None]) -> None:
    """Until one of these ends; the others are cancelled and have ended then too. Raises its error."""
    gone = asyncio.ensure_future(bus.until(BusState.FAULTED, BusState.CLOSED))
    tasks = [asyncio.ensure_future(one) for one in waits]
    every: list[asyncio.Future[Any]] = [gone, *tasks]
    try:
        done, _ = await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in every:
            task.cancel()
        await asyncio.wait(every)
    for task in tasks:
        if task in done:
            task.result()
    if gone in done:
        raise bus.loss()
