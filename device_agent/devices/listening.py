"""A device that speaks by itself: its source in the event loop, its period, and its silence."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from device_agent.background import first_of
from device_agent.bus.core import Bus, Source
from device_agent.bus.gpio import Edge
from device_agent.clock import Clock
from device_agent.devices.heard import PATIENCE_S, Heard
from device_agent.devices.reading_builder import ReadingBuilder
from device_agent.driver import Listener
from device_agent.records import Reading, ReadingSubscriber, Values

if TYPE_CHECKING:
    from device_agent.devices.device import Device

OPEN_TIMEOUT_S = 10.0


def present_of(driver: Listener[Any, Any], clock: Clock) -> Values | None:
    """What the device said last; None where that is nothing, or a stream of bytes."""
    return None if driver.bytes_side else driver.present(clock.monotonic_s())


class Listening:
    """From the opening of a source until it breaks; used once."""

    def __init__(
        self,
        driver: Listener[Any, Any],
        device: "Device",
        builder: ReadingBuilder,
        clock: Clock,
        woken: asyncio.Event,
        heard: Heard,
    ) -> None:
        """`woken` is set when the device's period has changed."""
        self._driver = driver
        self._device = device
        self._bus = device.bus
        self._builder = builder
        self._clock = clock
        self._woken = woken
        self._heard = heard

    async def run(self, subscriber: ReadingSubscriber) -> None:
        """Until the source breaks or the bus is lost, which it raises. `subscriber` gets bytes, if any."""
        source: Source = await self._bus.run(self._driver.listen, OPEN_TIMEOUT_S, user=self._device.name)
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            try:
                self._take(source.drain(), subscriber)
            except Exception as error:  # noqa: BLE001 - any failure ends this listening, in `broken`
                loop.remove_reader(fd)
                if not broken.done():
                    broken.set_exception(error)

        fd = source.fileno()
        loop.add_reader(fd, readable)
        try:
            self._heard.forget()
            if self._driver.bytes_side or present_of(self._driver, self._clock) is not None:
                self._device.mark_online()
            else:
                self._device.mark_silent()
            self._emit_present()
            await self._emit_until(broken)
        finally:
            broken.cancel()
            loop.remove_reader(fd)
            source.close()

    async def _emit_until(self, broken: asyncio.Future[None]) -> None:
        """The present values once a period and, once, when the device has been silent for too long."""
        loop, staleness = asyncio.get_running_loop(), self._builder.staleness
        emitted_s = loop.time()
        while True:
            # A silent device has nothing new to report: the next thing to wait for is what it says.
            period_s = math.inf if staleness.silent else self._device.effective_period_s or math.inf
            silent_s = math.inf if (due_s := staleness.due_s()) is None else due_s - self._clock.monotonic_s()
            wait_s = max(0.0, min(emitted_s + period_s - loop.time(), silent_s))
            if not self._device.online:
                wait_s = min(wait_s, PATIENCE_S)
            self._woken.clear()
            ended, gone, _ = await first_of(
                broken,
                self._bus.until_not_open(),
                self._woken.wait(),
                limit_s=None if wait_s == math.inf else wait_s,
            )
            if ended is not None:
                ended.result()
            if gone is not None:
                raise self._bus.loss()
            if not self._device.online and self._heard.lasted_s() >= PATIENCE_S:
                self._device.mark_unheard()
            if staleness.age(self._clock.monotonic_s()):
                old = self._builder.present(present_of(self._driver, self._clock))
                self._device.emit(old._replace(silence="began"))
            elif loop.time() >= emitted_s + period_s:
                emitted_s = loop.time()
                self._emit_present()

    def _take(self, chunks: Sequence[Any], subscriber: ReadingSubscriber) -> None:
        readings: list[Reading] = []
        if chunks:
            self._bus.note_success()
        try:
            for chunk in chunks:
                if self._driver.bytes_side:
                    subscriber.on_bytes(self._device.name, chunk)
                else:
                    self._feed(chunk, readings)
        finally:
            if readings:
                subscriber.on_readings(readings)

    def _feed(self, chunk: Any, readings: list[Reading]) -> None:
        driver, device, builder = self._driver, self._device, self._builder
        at_s = chunk.monotonic_s if isinstance(chunk, Edge) else self._clock.monotonic_s()
        wall = builder.wall(at_s)
        before_it = len(readings)
        for values in driver.feed(chunk):
            device.mark_online()
            before = present_of(driver, self._clock) if len(values) < len(builder.points) else None
            reading = builder.measured(values, at_s, wall, before)
            if reading.silence or reading.past:
                self._woken.set()  # the next silence begins at another time
            device.take(reading)
            readings.append(reading)
        if isinstance(chunk, bytes):
            self._heard.take(chunk, len(readings) - before_it)

    def _emit_present(self) -> None:
        if (values := present_of(self._driver, self._clock)) is not None:
            self._device.emit(self._builder.present(values))


# -- only while somebody takes the bytes ----------------------------------------


class Watchers:
    """The streams that take a device's bytes, by name; all methods belong to the event loop."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._changed = asyncio.Event()

    def add(self, name: str) -> None:
        self._names.add(name)
        self._signal()

    def remove(self, name: str) -> None:
        self._names.discard(name)
        self._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, *, some: bool) -> None:
        """Wait until there are some, or none. No limit of its own: the caller owns the wait."""
        while bool(self._names) is not some:
            await self._changed.wait()


async def while_watched(
    watchers: Watchers,
    bus: Bus,
    listen: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """`listen` while there are watchers, `close` when there are none, and so on.

    Raises what ends `listen`, and BusError when the bus is lost.
    """
    while True:
        await _while_open(bus, watchers.until(some=True))
        await _while_open(bus, listen(), watchers.until(some=False))
        await close()


async def _while_open(bus: Bus, *waits: Awaitable[None]) -> None:
    gone, *ended = await first_of(bus.until_not_open(), *waits)
    for wait in ended:
        if wait is not None:
            wait.result()
    if gone is not None:
        raise bus.loss()
