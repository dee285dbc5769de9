"""Records readings: collects a minute of them in memory and writes it in one transaction.

A power cut costs that minute; what callers must receive is in the outbox. A device with more than `FAST_ROWS`
readings a minute is recorded as mean, minimum and maximum of each second.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.records import Flag, Reading, ReadingSubscriber
from device_agent.store.files import set_aside
from device_agent.store.history.history_block import HistoryBlock, PackedBlock, aggregate, block_of, pack
from device_agent.store.history.history_file import DAY_MS, FAST_MS, FRAME_MS, HistoryFile
from device_agent.store.store_thread import StoreThread, a_day

log = structlog.get_logger("history")

COMMIT_S = 60.0
FAST_ROWS = 600
# So many readings from before the clock was set wait for it; a board whose clock is never set has no history.
UNDATED_MAX = 5000
# So many blocks wait while the disk takes nothing: half a day of ten devices.
UNWRITTEN_MAX = 7200
# Thinning goes in small steps, so that the outbox's commits never wait long behind it.
STEPS_AT_ONCE = 40


class HistoryRecorder(ReadingSubscriber):
    """`add`, `flush`, `figures` and `close` belong to the event loop, `_…_here` to the store thread."""

    def __init__(
        self, path: Path, *, keep_days: float, max_bytes: int, thread: StoreThread, clock: Clock
    ) -> None:
        self.path = path
        self.readings = 0
        self.lost = 0
        """Readings that never reached the disk: it was full for too long, or the clock was never set."""
        self.failures = 0
        self.set_aside = ""
        self._keep_ms = round(keep_days * DAY_MS)
        self._max_bytes = max_bytes
        self._thread = thread
        self._clock = clock
        self._waiting: dict[str, list[Reading]] = {}
        self._undated: deque[Reading] = deque()
        self._fast: dict[str, list[HistoryBlock]] = {}
        self._unwritten: deque[PackedBlock] = deque()
        self._file: HistoryFile | None = None
        self._used_bytes = 0
        self._written_before = 0
        self._began_s = clock.monotonic_s()

    # -- on the loop ----------------------------------------

    def on_readings(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            if reading.silence != "began":
                self.add(_without_stale(reading))

    def add(self, reading: Reading) -> None:
        """Take one reading."""
        if not reading.clock_set:
            self._undated.append(reading)
            if len(self._undated) > UNDATED_MAX:
                self._undated.popleft()
                self.lost += 1
            return
        self.readings += 1
        waiting = self._waiting.setdefault(reading.device, [])
        waiting.append(reading)
        if len(waiting) >= FAST_ROWS:
            del self._waiting[reading.device]
            self._thread.later(lambda: self._aggregate_here(waiting))

    async def run(self) -> None:
        """Until cancelled; `close` writes the rest."""
        while True:
            await asyncio.sleep(COMMIT_S)
            await self.flush()
            for _ in range(STEPS_AT_ONCE):
                if not await self.thin():
                    break

    async def thin(self) -> bool:
        """One small step towards what age and size allow; False when there is nothing to do."""
        return await self._thread.run(self._thin_here)

    async def flush(self) -> None:
        """Write all readings; what the disk does not take waits."""
        if self._undated and self._clock.is_set():
            self._date()
        waiting, self._waiting = self._waiting, {}
        await self._thread.run(lambda: self._write_here(waiting))

    def _date(self) -> None:
        offset_ms = self._clock.offset_ms() or 0
        undated, self._undated = self._undated, deque()
        for reading in undated:
            self.add(reading._replace(at_ms=reading.at_ms + offset_ms, clock_set=True))

    async def close(self) -> None:
        """Write what is there and close the file."""
        await self.flush()
        await self._thread.run(self._close_here)

    def figures(self) -> dict[str, Any]:
        """For `status` and the metrics."""
        written_bytes = self._file.written_bytes if self._file is not None else 0
        return {
            "readings": self.readings,
            "bytes": self._used_bytes,
            "max_bytes": self._max_bytes,
            "written_bytes": self._written_before + written_bytes,
            "written_bytes_per_day": a_day(
                self._written_before + written_bytes, self._clock.monotonic_s() - self._began_s
            ),
            "lost": self.lost,
            "disk_failures": self.failures,
        }

    # -- on the store thread ----------------------------------------

    def _aggregate_here(self, readings: list[Reading]) -> None:
        for block in _blocks(readings):
            self._fast.setdefault(block.device, []).append(_aggregated(block.device, [block]))

    def _write_here(self, waiting: dict[str, list[Reading]]) -> None:
        fast, self._fast = self._fast, {}
        for device, readings in waiting.items():
            blocks = list(_blocks(readings))
            if device in fast:
                fast[device] += blocks
            else:
                self._pack_here(blocks)
        for device, blocks in fast.items():
            self._pack_here(_aggregated(device, list(group)) for _, group in groupby(blocks, _frame))
        while len(self._unwritten) > UNWRITTEN_MAX:
            self.lost += self._unwritten.popleft().readings
        if self._unwritten and self._try(lambda file: file.append(list(self._unwritten))):
            self._unwritten.clear()

    def _pack_here(self, blocks: Iterable[HistoryBlock]) -> None:
        for block in blocks:
            try:
                self._unwritten.append(pack(block))
            except ValueError as error:
                # A value that no file can hold must not keep the rest from being written.
                self.lost += block.readings
                log.warning("history_block_lost", error=str(error))

    def _thin_here(self) -> bool:
        # By a clock that is not set everything would be too young, or too old.
        if self._file is None or not self._clock.is_set():
            return False
        more: list[bool] = []
        self._try(lambda file: more.append(file.thin(self._clock.now_ms())))
        return more == [True]

    def _try(self, work: Callable[[HistoryFile], object]) -> bool:
        """Do this on the file; whether it worked. A damaged file is set aside and begun anew."""
        try:
            if self._file is None:
                self._file = HistoryFile(self.path, keep_ms=self._keep_ms, max_bytes=self._max_bytes)
            work(self._file)
            self._used_bytes = self._file.used_bytes
            return True
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return False

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1 or self.failures % 60 == 0:
            log.error("history_not_written", file=str(self.path), error=str(error), failures=self.failures)
        self._close_here()
        # Full, locked and unreadable disks are OperationalErrors; a new file helps only against damage.
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._set_aside(error)

    def _set_aside(self, error: Exception) -> None:
        try:
            self.set_aside = str(set_aside(self.path))
        except OSError as refusal:
            log.error("history_not_set_aside", file=str(self.path), error=str(refusal))
            return
        log.error("history_set_aside", file=str(self.path), aside=self.set_aside, error=str(error))

    def _close_here(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except (sqlite3.Error, OSError) as error:
            log.warning("history_not_closed", file=str(self.path), error=str(error))
        self._written_before += file.written_bytes


def _without_stale(reading: Reading) -> Reading:
    """A value that is too old was not measured then: it is no part of the record or of a mean."""
    if Flag.STALE not in reading.flags.values():
        return reading
    kept = {n: None if reading.flags.get(n) is Flag.STALE else v for n, v in reading.values.items()}
    return reading._replace(values=kept)


def _blocks(readings: list[Reading]) -> Iterator[HistoryBlock]:
    """In time order, one for each hour and set of points: a wall clock may jump, a configuration change."""
    readings.sort(key=attrgetter("at_ms"))
    for _, group in groupby(readings, _hour_and_points):
        yield block_of(list(group))


def _aggregated(device: str, blocks: list[HistoryBlock]) -> HistoryBlock:
    block = aggregate(device, FAST_MS, blocks)
    assert block is not None
    return block


def _hour_and_points(reading: Reading) -> tuple[int, tuple[str, ...]]:
    return reading.at_ms // FRAME_MS[0], tuple(reading.values)


def _frame(block: HistoryBlock) -> int:
    return block.at[0] // FRAME_MS[FAST_MS]
