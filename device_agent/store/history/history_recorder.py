"""The recorder of history: keeps a minute of readings in memory and writes it at once.

A power cut costs that minute; readings of this record are a convenience, the outbox carries what must arrive.
What comes faster than `FAST_ROWS` in a minute is recorded as mean, minimum and maximum of each second.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.records import Reading, ReadingSubscriber
from device_agent.store.history.history_block import HistoryBlock, Sealed, block_of, folded, seal
from device_agent.store.history.history_file import DAY_MS, FAST_MS, FRAME_MS, HistoryFile
from device_agent.store.store_thread import StoreThread

log = structlog.get_logger("history")

COMMIT_S = 60.0
HOUR_S, DAY_S = 3600, 86_400
FAST_ROWS = 600
# So many readings from before the clock was set wait for it; a board that gets no time has no history.
UNDATED_MAX = 5000
# While the disk takes nothing, so many blocks wait: half a day of ten devices.
UNWRITTEN_MAX = 7200
# Thinning goes in small steps, so that a command's journal entry never waits behind an hour of it.
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
        self._unwritten: deque[Sealed] = deque()
        self._file: HistoryFile | None = None
        self._used_bytes = 0
        self._written_before = 0
        self._began_s = clock.monotonic_s()

    # -- on the loop ----------------------------------------

    def on_reading(self, reading: Reading) -> None:
        if reading.silence != "began":
            self.add(reading)

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
            self._thread.later(lambda: self._fold_here(waiting))

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
        """All that was taken is on the disk, or waits because the disk does not take it."""
        if self._undated and self._clock.is_set():
            self._date()
        waiting, self._waiting = self._waiting, {}
        await self._thread.run(lambda: self._write_here(waiting))

    def _date(self) -> None:
        offset_ms = self._clock.offset_ms() or 0
        undated, self._undated = self._undated, deque()
        for reading in undated:
            self.add(replace(reading, at_ms=reading.at_ms + offset_ms, clock_set=True))

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
            "written_bytes_per_day": self._per_day(self._written_before + written_bytes),
            "lost": self.lost,
            "disk_failures": self.failures,
        }

    def _per_day(self, written_bytes: int) -> int:
        """At the pace since the start; the first hour counts as one, so that a start is no flood."""
        return round(written_bytes * DAY_S / max(HOUR_S, self._clock.monotonic_s() - self._began_s))

    # -- on the store thread ----------------------------------------

    def _fold_here(self, readings: list[Reading]) -> None:
        for block in _blocks(readings):
            self._fast.setdefault(block.device, []).append(_one(block.device, [block]))

    def _write_here(self, waiting: dict[str, list[Reading]]) -> None:
        fast, self._fast = self._fast, {}
        for device, readings in waiting.items():
            blocks = list(_blocks(readings))
            if device in fast:
                fast[device] += blocks
            else:
                self._seal_here(blocks)
        for device, blocks in fast.items():
            self._seal_here(_one(device, list(group)) for _, group in groupby(blocks, _frame))
        while len(self._unwritten) > UNWRITTEN_MAX:
            self.lost += self._unwritten.popleft().readings
        if self._unwritten and self._tried(lambda file: file.append(list(self._unwritten))):
            self._unwritten.clear()

    def _seal_here(self, blocks: Iterable[HistoryBlock]) -> None:
        for block in blocks:
            try:
                self._unwritten.append(seal(block))
            except ValueError as error:
                # What a driver sent that no file can hold must not keep the rest from it.
                self.lost += block.readings
                log.warning("history_block_lost", error=str(error))

    def _thin_here(self) -> bool:
        # A clock that is not set would find everything young, or everything old.
        if self._file is None or not self._clock.is_set():
            return False
        more: list[bool] = []
        self._tried(lambda file: more.append(file.thin(self._clock.now_ms())))
        return more == [True]

    def _tried(self, work: Any) -> bool:
        """Do it on the file; whether it was done. A damaged one is set aside; the next try begins anew."""
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
        # Full, locked and unreadable disks are OperationalErrors; only damage is cured by a new file.
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._set_aside(error)

    def _set_aside(self, error: Exception) -> None:
        aside = f"{self.path}.damaged-{int(time.time())}"
        try:
            for suffix in ("", "-wal", "-shm"):
                part = Path(f"{self.path}{suffix}")
                if part.exists():
                    part.replace(f"{aside}{suffix}")
        except OSError as refusal:
            log.error("history_not_set_aside", file=str(self.path), error=str(refusal))
            return
        self.set_aside = aside
        log.error("history_set_aside", file=str(self.path), aside=aside, error=str(error))

    def _close_here(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except (sqlite3.Error, OSError) as error:
            log.warning("history_not_closed", file=str(self.path), error=str(error))
        self._written_before += file.written_bytes


def _blocks(readings: list[Reading]) -> Iterator[HistoryBlock]:
    """In time order, one for each hour and set of points: a wall clock may jump, a configuration change."""
    readings.sort(key=_at)
    for _, group in groupby(readings, _hour_and_points):
        yield block_of(list(group))


def _one(device: str, blocks: list[HistoryBlock]) -> HistoryBlock:
    block = folded(device, FAST_MS, blocks)
    assert block is not None
    return block


def _at(reading: Reading) -> int:
    return reading.at_ms


def _hour_and_points(reading: Reading) -> tuple[int, tuple[str, ...]]:
    return reading.at_ms // FRAME_MS[0], tuple(reading.values)


def _frame(block: HistoryBlock) -> int:
    return block.at[0] // FRAME_MS[FAST_MS]
