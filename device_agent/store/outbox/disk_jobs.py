"""The outbox's file as the event loop sees it: it may be slow, full, read-only, gone or damaged."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import structlog

from device_agent.clock import Clock
from device_agent.store.outbox.outbox_file import OutboxContents, OutboxFile
from device_agent.store.salvage import is_damage
from device_agent.store.store_thread import StoreThread

log = structlog.get_logger("outbox")

T = TypeVar("T")

# A file that could not be opened is tried again this often; a write that takes longer than this is logged.
OPEN_AGAIN_S = 5.0
SLOW_S = 5.0


class DiskJobs:
    """Runs jobs on the store thread and knows whether they work.

    When the file turns out to be damaged it is begun anew without the events of `ids_in_memory()`, and
    `on_new_file` gets what was saved.
    """

    def __init__(
        self,
        file: OutboxFile,
        thread: StoreThread,
        clock: Clock,
        *,
        ids_in_memory: Callable[[], list[int]],
        on_new_file: Callable[[OutboxContents], None],
    ) -> None:
        self.failures = 0
        self.error = ""
        """Why the last job failed; empty if it worked."""
        self._file = file
        self._thread = thread
        self._clock = clock
        self._ids_in_memory = ids_in_memory
        self._on_new_file = on_new_file
        self._tried_s = float("-inf")
        self._busy_since_s: float | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job and raise what it raises.

        No time limit: after one, nobody could say whether the job was done. What waits is bounded meanwhile.
        """
        begun_s = self._busy_since_s = self._clock.monotonic_s()
        try:
            return await self._thread.run(job, None)
        finally:
            took_s, self._busy_since_s = self._clock.monotonic_s() - begun_s, None
            if took_s > SLOW_S:
                log.warning("outbox_disk_slow", took_s=round(took_s, 1))

    async def attempt(self, job: Callable[[], T]) -> T | None:
        """Run a job; None when it failed, which is counted and logged."""
        try:
            return await self.run(job)
        except (sqlite3.Error, OSError) as error:
            await self.failed(error)
            return None

    async def open(self) -> OutboxContents | None:
        """What the file holds; None if it cannot be read now."""
        self._tried_s = self._clock.monotonic_s()
        return await self.attempt(self._file.open)

    async def open_again(self) -> OutboxContents | None:
        """The same, at intervals, for a file that could not be read when the process began."""
        if self._clock.monotonic_s() - self._tried_s < OPEN_AGAIN_S:
            return None
        found = await self.open()
        if found is not None:
            self.worked()
        return found

    async def failed(self, error: BaseException) -> None:
        """A job failed: the outbox goes on in memory. A damaged file is replaced by a new one."""
        if self._file.is_open and is_damage(error):
            why, known = error, self._ids_in_memory()
            try:
                self._on_new_file(await self.run(lambda: self._file.begin_anew(why, known)))
                return
            except (sqlite3.Error, OSError) as worse:
                error = worse
        self.failures += 1
        if not self.error or self.failures % 1000 == 0:
            log.error("outbox_not_written", error=str(error), failures=self.failures)
        self.error = str(error)

    def worked(self) -> None:
        """A write was done."""
        if self.error:
            log.info("outbox_written_again", failures=self.failures)
        self.error = ""

    @property
    def trouble(self) -> str:
        """What is wrong with the disk at this moment, in words; empty if nothing is."""
        busy_s = 0.0 if self._busy_since_s is None else self._clock.monotonic_s() - self._busy_since_s
        return self.error or (f"a write has been under way for {busy_s:.0f} s" if busy_s > SLOW_S else "")
