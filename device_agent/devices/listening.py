"""A device that speaks by itself: its source in the event loop, its beat, and its silence."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from device_agent.bus.core import Bus, BusState, Source
from device_agent.bus.gpio import Edge
from device_agent.clock import Clock
from device_agent.devices.reading_builder import ReadingBuilder
from device_agent.driver import Listener
from device_agent.records import Reading, Values

OPEN_TIMEOUT_S = 10.0


class ListeningDevice(Protocol):
    """What a listening needs of its device."""

    name: str
    bus: Bus

    @property
    def fastest_s(self) -> float | None: ...

    def now_online(self) -> None: ...

    def emit(self, reading: Reading) -> None: ...


class BytesSink(Protocol):
    """Where a bytes side's chunks go."""

    def on_bytes(self, device: str, data: bytes) -> None: ...


def present_of(driver: Listener[Any, Any], clock: Clock) -> Values | None:
    """What the device said last; None where that is nothing, or a stream of bytes."""
    return None if driver.bytes_side else driver.present(clock.monotonic_s())


class Listening:
    """Lives once, from the opening of the source until it breaks."""

    def __init__(
        self,
        driver: Listener[Any, Any],
        device: ListeningDevice,
        builder: ReadingBuilder,
        clock: Clock,
        woken: asyncio.Event,
    ) -> None:
        """`woken` is set when the device's beat has changed."""
        self._driver = driver
        self._device = device
        self._bus = device.bus
        self._builder = builder
        self._clock = clock
        self._woken = woken

    async def run(self, sink: BytesSink) -> None:
        """Until the source breaks or the bus is lost, which it raises."""
        source: Source = await self._bus.run(self._driver.listen, OPEN_TIMEOUT_S)
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            try:
                self._take(source.drain(), sink)
            except Exception as error:  # noqa: BLE001 - any failure ends this listening, in `broken`
                loop.remove_reader(fd)
                if not broken.done():
                    broken.set_exception(error)

        fd = source.fileno()
        loop.add_reader(fd, readable)
        gone = asyncio.ensure_future(self._bus.until(BusState.FAULTED, BusState.CLOSED))
        try:
            self._device.now_online()
            self._tell_present()
            await self._tell(broken, gone)
        finally:
            gone.cancel()
            broken.cancel()
            loop.remove_reader(fd)
            source.close()

    async def _tell(self, broken: asyncio.Future[None], gone: asyncio.Future[BusState]) -> None:
        """Tell the present on the device's beat and, once, when the far end has been silent for too long."""
        loop, staleness = asyncio.get_running_loop(), self._builder.staleness
        beat_s = loop.time()
        while True:
            # What is silent has nothing to tell: it is waited for, not the beat.
            period_s = math.inf if staleness.silent else self._device.fastest_s or math.inf
            silent_s = math.inf if (due_s := staleness.due_s()) is None else due_s - self._clock.monotonic_s()
            wait_s = max(0.0, min(beat_s + period_s - loop.time(), silent_s))
            self._woken.clear()
            changed = asyncio.ensure_future(self._woken.wait())
            waits: list[asyncio.Future[Any]] = [broken, gone, changed]
            timeout_s = None if wait_s == math.inf else wait_s
            try:
                done, _ = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            if broken in done:
                broken.result()
            if gone in done:
                raise self._bus.loss()
            if staleness.age(self._clock.monotonic_s()):
                old = self._builder.present(present_of(self._driver, self._clock))
                self._device.emit(replace(old, silence="began"))
            elif loop.time() >= beat_s + period_s:
                beat_s = loop.time()
                self._tell_present()

    def _take(self, chunks: Sequence[Any], sink: BytesSink) -> None:
        driver, device = self._driver, self._device
        if chunks:
            self._bus.well()
        for chunk in chunks:
            if driver.bytes_side:
                sink.on_bytes(device.name, chunk)
                continue
            at_s = chunk.monotonic_s if isinstance(chunk, Edge) else self._clock.monotonic_s()
            wall = self._builder.wall(at_s)
            for values in driver.feed(chunk):
                reading = self._builder.measured(values, at_s, wall)
                if reading.silence:
                    self._woken.set()  # the next silence is waited for anew
                device.emit(reading)

    def _tell_present(self) -> None:
        if (values := present_of(self._driver, self._clock)) is not None:
            self._device.emit(self._builder.present(values))
