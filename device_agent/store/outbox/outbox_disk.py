"""The outbox's file as the loop sees it: slow, full, read-only, away and back, damaged."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import structlog

from device_agent.clock import Clock
from device_agent.store.damage import is_damage
from device_agent.store.outbox.outbox_file import OutboxFile, StoredEvents
from device_agent.store.store_thread import StoreThread

log = structlog.get_logger("outbox")

T = TypeVar("T")

# A disk that did not open is tried again this often; a write that takes longer than the limit is said.
OPEN_AGAIN_S = 5.0
SLOW_S = 5.0


class OnNewFile(Protocol):
    """Told when a damaged file has given way to a new one."""

    def __call__(self, found: StoredEvents) -> None: ...


class OutboxDisk:
    """Does jobs on the store's thread and knows whether they work."""

    def __init__(self, file: OutboxFile, thread: StoreThread, clock: Clock, on_new_file: OnNewFile) -> None:
        self.trouble = ""
        """Why the disk took nothing when it was tried last."""
        self.failures = 0
        self.in_memory: Callable[[], Iterable[int]] = tuple
        """The ids of the events that are in memory all the same, if the file must be begun anew."""
        self._file = file
        self._thread = thread
        self._clock = clock
        self._on_new_file = on_new_file
        self._tried_s = float("-inf")
        self._busy_s: float | None = None

    async def job(self, job: Callable[[], T]) -> T:
        """However long it takes: nobody could say whether it was done; what waits meanwhile is bounded."""
        begun_s = self._busy_s = self._clock.monotonic_s()
        try:
            return await self._thread.run(job, None)
        finally:
            took_s, self._busy_s = self._clock.monotonic_s() - begun_s, None
            if took_s > SLOW_S:
                log.warning("outbox_disk_slow", took_s=round(took_s, 1))

    async def attempt(self, job: Callable[[], T]) -> T | None:
        """A job on the disk; None when that failed (which is counted and said)."""
        try:
            return await self.job(job)
        except (sqlite3.Error, OSError) as error:
            await self.failed(error)
            return None

    async def open(self) -> StoredEvents | None:
        """What the file holds; None if it cannot be read now."""
        self._tried_s = self._clock.monotonic_s()
        return await self.attempt(self._file.open)

    async def open_again(self) -> StoredEvents | None:
        """The same, now and then, for a disk that could not be read when the process began."""
        if self._clock.monotonic_s() - self._tried_s < OPEN_AGAIN_S:
            return None
        found = await self.open()
        if found is not None:
            self.works()
        return found

    async def failed(self, error: BaseException) -> None:
        """The disk is full, gone or broken: memory goes on. A damaged file gives way to a new one."""
        if self._file.is_open and is_damage(error):
            why, known = error, list(self.in_memory())
            try:
                self._on_new_file(await self.job(lambda: self._file.begin_anew(why, known)))
                return
            except (sqlite3.Error, OSError) as worse:
                error = worse
        self.failures += 1
        if not self.trouble or self.failures % 1000 == 0:
            log.error("outbox_not_written", error=str(error), failures=self.failures)
        self.trouble = str(error)

    def works(self) -> None:
        """A write was done."""
        if self.trouble:
            log.info("outbox_written_again", failures=self.failures)
        self.trouble = ""

    @property
    def now(self) -> str:
        """What is wrong with the disk at this moment, in words; empty if nothing is."""
        waits_s = 0.0 if self._busy_s is None else self._clock.monotonic_s() - self._busy_s
        return self.trouble or (f"a write has been under way for {waits_s:.0f} s" if waits_s > SLOW_S else "")
