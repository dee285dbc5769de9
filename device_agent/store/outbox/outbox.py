"""All outgoing queues and their storage: delayed commits, the crash log, the limits on disk and memory.

An event that is acknowledged within the commit interval never touches the disk. A killed process loses
nothing, for the crash log has it. A power cut costs at most one interval, and a `gap` reports it
(docs/delivery.md).
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.network import Format
from device_agent.store.outbox import crash_records
from device_agent.store.outbox.channel_queue import ChannelQueue, OverflowRule
from device_agent.store.outbox.counts import OutboxCounts
from device_agent.store.outbox.crash_log import CrashLog
from device_agent.store.outbox.crash_records import Record
from device_agent.store.outbox.disk_jobs import DiskJobs
from device_agent.store.outbox.event import DiskState, Event
from device_agent.store.outbox.outbox_file import ChannelRow, Commit, OutboxContents, OutboxFile, by_channel
from device_agent.store.outbox.overflow import DiskOverflow, drop_order
from device_agent.store.outbox.restore import format_of, restore
from device_agent.store.store_thread import StoreThread, a_day

log = structlog.get_logger("outbox")

WINDOW_BYTES = 200_000
# More acknowledged events than this on disk are deleted at once.
DELETES_MAX = 5000
# What memory may hold: the disk takes nothing, or is slower than what comes. Beyond a share of it all goes to
# the disk at once, and out of memory.
MEMORY_MAX_BYTES = 8_000_000
MEMORY_SHARE = 0.4
# For refused readings' gaps and for answers, this share of the limits stays free.
SPARE_SHARE = 1 / 32
# How much of the commit interval an event waits for its acknowledgement before it is written (the rest is for
# the disk), and how often is looked while a message is on its way or the disk fails.
WAIT_SHARE = 0.8
CHECK_SHARE = 0.2
# After so many looks at which nothing was new, all of it is written.
QUIET_LOOKS = 6


class Outbox:
    """Owns the queues; `run` commits them. Methods belong to the event loop."""

    def __init__(
        self,
        folder: Path,
        runtime_folder: Path,
        *,
        max_bytes: int,
        commit_interval_s: float,
        thread: StoreThread,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.memory_bytes = 0
        self.counts = OutboxCounts()
        self._memory_max_bytes = min(MEMORY_MAX_BYTES, max_bytes)
        self._crowded_bytes = int(self._memory_max_bytes * MEMORY_SHARE)
        self._interval_s = commit_interval_s
        self._began_s = clock.monotonic_s()
        self._file = OutboxFile(folder / "outbox.db")
        self._disk = DiskJobs(
            self._file, thread, clock, ids_in_memory=self._ids_in_memory, on_new_file=self._file_begun_anew
        )
        self._log = CrashLog(runtime_folder / "outbox.log", clock.boot)
        self._unlogged: list[Record] = []
        self._overflow = DiskOverflow(self)
        self._queues: dict[str, ChannelQueue] = {}
        # Of channels that no queue is open for: their rows, and their crash records.
        self._rows: dict[str, ChannelRow] = {}
        self._crash_records: dict[str, list[Record]] = {}
        # The channels that the crash log knew: it knows more of them than the disk.
        self._logged: set[str] = set()
        # Events on disk that are not needed any more, and those that a commit is deleting now.
        self._deletes: list[tuple[str, int]] = []
        self._deletes_since_s = 0.0
        self._deleting: list[tuple[str, int]] = []
        # Other data for events on disk, by id, until a commit has written it.
        self._replacements: dict[int, tuple[str, Event]] = {}
        self._forgotten: list[str] = []
        self._in_flight_on_disk: dict[str, str] = {}
        self._next_id = 1
        # Whether the last numbers of all channels are known, and of which channels they are not.
        self._numbers_known = True
        self._in_doubt: set[str] = set()
        self._committing = asyncio.Lock()
        self._touched = asyncio.Event()
        self._crowded = asyncio.Event()
        self._closing = False

    # -- start ----------------------------------------

    async def load(self) -> None:
        """Find what the last process left. Never fails: a damaged file is set aside and logged."""
        records = self._log.read()
        found = await self._disk.open()
        if found is None:
            # The ids on that disk are not known; these are greater.
            self._next_id = self.clock.now_ms() * 1_000_000
        else:
            self._take(found)
            self._next_id = found.last_id + 1
            self._in_doubt = found.in_doubt
        self._numbers_known = records is not None or (found is not None and found.clean)
        if not self._numbers_known and self._rows:
            self._in_doubt |= set(self._rows)
            log.warning("power_cut", channels=len(self._rows))
        if records is None:
            records = found.in_flight if found is not None else []
        else:
            self._logged = {str(record[1]) for record in records}
        for record in records:
            self._crash_records.setdefault(str(record[1]), []).append(record)
            if record[0] == crash_records.ADDED:
                self._next_id = max(self._next_id, int(record[2]) + 1)
        if self._rows or records:
            waiting = sum(row.events for row in self._rows.values())
            log.info("outbox_found", events_on_disk=waiting, crash_log_records=len(records))

    def expect(self, *, shared: Collection[str], dedicated: Collection[str]) -> None:
        """The channels that may be opened again; forget all others. `dedicated`: of sessions that go on."""
        lost = bool(self._file.set_aside) or not self._file.is_open
        for name in [*self._rows, *self._crash_records]:
            if name not in shared and name not in dedicated:
                row = self._rows.pop(name, None)
                self._crash_records.pop(name, None)
                self.used_bytes -= row.bytes if row is not None else 0
                self._in_doubt.discard(name)
                self._forgotten.append(name)
        # A channel of which nothing is known, and that a caller may have read from.
        if not self._numbers_known:
            self._in_doubt |= set(dedicated)
        if lost or (not self._numbers_known and dedicated):
            self._in_doubt |= {name for name in shared if name not in self._crash_records}

    async def open(self, channel: str, format_: Format, overflow: OverflowRule) -> ChannelQueue:
        """The queue of a channel; the same one while it is open."""
        queue = self._queues.get(channel)
        if queue is not None and not queue.closed:
            return queue
        self._touched.set()
        row = self._rows.pop(channel, None)
        queue = self._queues[channel] = ChannelQueue(channel, row, format_, overflow, self)
        records = self._crash_records.pop(channel, None)
        if records is not None:
            await restore(queue, records, partial(self._read_by_id, channel), self.clock.boot)
        if row is not None and channel not in self._logged:
            queue.restore_row(row)
        if channel in self._in_doubt:
            self._in_doubt.discard(channel)
            queue.skip_numbers(row)
        return queue

    async def _read_by_id(self, channel: str, ids: list[int]) -> dict[int, Event] | None:
        return await self._disk.attempt(lambda: self._file.by_id(channel, ids))

    # -- commits ----------------------------------------

    async def run(self) -> None:
        """Commit what waits too long and keep the limits, until cancelled or closed."""
        self._begin_log()
        quiet = 0
        while not self._closing:
            if quiet >= QUIET_LOOKS and self._file.is_open and not (self._disk.error or self._forgotten):
                await self._touched.wait()
            self._touched.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest_s()):
                    await self._crowded.wait()
            waited_s = 0.0 if self._crowded.is_set() else self._interval_s * WAIT_SHARE
            self._crowded.clear()
            await self.commit(self.clock.monotonic_s() - waited_s)
            quiet = 0 if self._touched.is_set() else quiet + 1

    def _rest_s(self) -> float:
        """Until something may be due; what comes after this instant is not due before."""
        now_s, queues = self.clock.monotonic_s(), self._queues.values()
        since_s = min((queue.unstored_since_s(now_s) for queue in queues), default=now_s)
        left_s, often_s = since_s + self._interval_s * WAIT_SHARE - now_s, self._interval_s * CHECK_SHARE
        if left_s <= 0:
            return often_s  # it should have been written, and was not
        return min(left_s, often_s) if any(queue.ids_in_flight() for queue in queues) else left_s

    async def commit(self, older_than_s: float, *, clean: bool = False) -> None:
        """Write all that waits, in one transaction, if some of it has waited since before this instant.

        `clean`: the process ends in order.
        """
        async with self._committing:
            if self._closing and not clean:
                return  # opening the file again would take back its orderly end
            if not self._file.is_open:
                await self._open_again()
            while self.used_bytes > self.max_bytes and not self._disk.error:
                if not await self._overflow.free_a_step(self._queues.values()):
                    break
                # Losses are written together with what they concern: no power cut hides one.
                await self._write(older_than_s, forced=True)
            if not await self._write(older_than_s, clean=clean) and self._log.grown:
                self._begin_log()

    async def _write(self, older_than_s: float, *, clean: bool = False, forced: bool = False) -> bool:
        """Commit what is due; False if nothing is."""
        work = self._work(older_than_s, clean=clean, forced=forced)
        if work is not None:
            await self._commit(work)
        return work is not None

    def _work(self, older_than_s: float, *, clean: bool, forced: bool) -> Commit | None:
        queues = self._queues.values()
        old = any(queue.unstored_since_s(float("inf")) <= older_than_s for queue in queues)
        inserts = [(queue.channel, e) for queue in queues for e in queue.to_store(older_than_s, due=old)]
        changed = any(queue.row_changed or queue.losses_due(older_than_s) for queue in queues)
        in_flight = self._changed_in_flight(float("inf") if clean else older_than_s)
        due = inserts or changed or self._deletes_due() or self._forgotten or any(in_flight.values())
        if not (clean or forced or due):
            return None
        written = {channel for channel, _ in inserts}
        written |= {queue.channel for queue in queues if queue.row_changed or queue.losses_due(float("inf"))}
        work = Commit(
            channels=[queue.take_row() for queue in queues if clean or queue.channel in written],
            inserts=inserts,
            deletes=self._deletes,
            forget=self._forgotten,
            replacements=list(self._replacements.values()),
            in_flight=in_flight,
            clean=clean,
            in_doubt=set(self._in_doubt),
        )
        self._deleting, self._deletes, self._forgotten = self._deletes, [], []
        for _, event in inserts:
            event.disk_state = DiskState.WRITING
        return work

    def _deletes_due(self) -> bool:
        """Deletes wait for the next write, but not for ever."""
        waited_s = self.clock.monotonic_s() - self._deletes_since_s
        return bool(self._deletes) and (waited_s >= self._interval_s or len(self._deletes) > DELETES_MAX)

    def _changed_in_flight(self, older_than_s: float) -> dict[str, str | None]:
        """The messages in flight that have waited, where the disk has another."""
        wanted: dict[str, str | None] = {}
        for channel, queue in self._queues.items():
            record = queue.in_flight_record(older_than_s)
            wanted[channel] = None if record is None else json.dumps(record)
        return {
            channel: text for channel, text in wanted.items() if text != self._in_flight_on_disk.get(channel)
        }

    async def _commit(self, work: Commit) -> None:
        try:
            unfinished = await self._disk.run(lambda: self._file.commit(work))
        except (sqlite3.Error, OSError) as error:
            self._undo(work)
            await self._disk.failed(error)
            if self._log.grown:
                self._begin_log()
            return
        finally:
            self._deleting = []
        self._disk.worked()
        self._forgotten += unfinished
        for _, event in work.replacements:
            self._replacements.pop(event.id, None)
        on_disk = {**self._in_flight_on_disk, **work.in_flight}
        self._in_flight_on_disk = {channel: text for channel, text in on_disk.items() if text is not None}
        for _, event in work.inserts:
            event.disk_state = DiskState.STORED
        ids = by_channel((channel, event.id) for channel, event in work.inserts)
        self.log(*(crash_records.stored(channel, some) for channel, some in ids.items()))
        for queue in self._queues.values():
            queue.spill()
        if self._log.grown:
            self._begin_log()
        if self.used_bytes == 0 and not self._forgotten:
            await self._disk.attempt(self._file.shrink)

    def _undo(self, work: Commit) -> None:
        """A commit failed: all of it is still to be done, and memory is all there is."""
        never_there = {event.id for _, event in work.inserts}
        self._deletes = [*work.deletes, *(pair for pair in self._deletes if pair[1] not in never_there)]
        self._forgotten += work.forget
        for _, event in work.inserts:
            event.disk_state = DiskState.NOT_STORED
        for row in work.channels:
            if (queue := self._queues.get(row.name)) is not None:
                queue.row_changed = True

    def _begin_log(self) -> None:
        unopened = [record for records in self._crash_records.values() for record in records]
        open_ = [record for queue in self._queues.values() for record in queue.snapshot()]
        # Acknowledged, and still on disk: a killed process must not send them again.
        deletes = [crash_records.deleted(channel, id_) for channel, id_ in self._deletes]
        others = [
            crash_records.lost(channel, self.clock.boot, (), (), [event])
            for channel, event in self._replacements.values()
        ]
        if self._log.begin([*unopened, *open_, *deletes, *others]):
            self._unlogged.clear()

    # -- the disk ----------------------------------------

    def _ids_in_memory(self) -> list[int]:
        return [event.id for queue in self._queues.values() for event in queue.in_memory]

    def _file_begun_anew(self, found: OutboxContents) -> None:
        """A damaged file was replaced by a new one; what is in memory is to be written again."""
        self._rows = {row.name: row for row in found.rows if row.name not in self._queues}
        self._in_flight_on_disk.clear()
        for queue in self._queues.values():
            queue.file_lost()

    async def _open_again(self) -> None:
        """The file could not be read when the process began; what it holds comes before all that is new."""
        found = await self._disk.open_again()
        if found is None:
            return
        self._take(found)
        for queue in self._queues.values():
            row = self._rows.pop(queue.channel, None)
            if row is not None:
                queue.adopt(row)
                if queue.channel not in self._logged:
                    queue.restore_row(row)
        self._in_doubt |= set(self._rows)

    def _take(self, found: OutboxContents) -> None:
        self._rows = {row.name: row for row in found.rows}
        self.used_bytes += sum(row.bytes for row in found.rows)
        self._in_flight_on_disk = {str(record[1]): json.dumps(record) for record in found.in_flight}

    async def load_events(
        self, channel: str, ids: tuple[int, int], skip: set[int]
    ) -> tuple[list[Event], list[Event]] | None:
        """The oldest events on disk between two ids (exclusive): whole ones and damaged ones.

        None if the disk failed.
        """
        # Not while space is freed: both would take the same rows.
        async with self._committing:
            return await self.read_events(channel, ids, self.window_bytes, skip)

    async def read_events(
        self, channel: str, ids: tuple[int, int], limit_bytes: int, skip: set[int]
    ) -> tuple[list[Event], list[Event]] | None:
        """The same for who holds the commit lock, about `limit_bytes` of them."""
        deletes = {id_ for some in (self._deletes, self._deleting) for _, id_ in some}
        found = await self._disk.attempt(lambda: self._file.load(channel, ids, limit_bytes, skip | deletes))
        if found is None:
            return None
        whole, damaged = found
        return [self._replacements.get(event.id, (channel, event))[1] for event in whole], damaged

    # -- for the queues ----------------------------------------

    def next_id(self, count: int = 1) -> int:
        """The first of so many ids for new events, greater than all before."""
        self._next_id += count
        return self._next_id - count

    def log(self, *records: Record) -> None:
        """Write to the crash log at the end of this turn of the event loop: once for a chunk of input."""
        if records and not self._unlogged:
            self._touched.set()
            asyncio.get_running_loop().call_soon(self.flush_log)
        self._unlogged += records

    def flush_log(self) -> None:
        """What is sent from here on was logged before."""
        if self._unlogged:
            self._log.write(*self._unlogged)
            self._unlogged.clear()

    def add_used(self, more_bytes: int) -> None:
        """The outbox, memory and disk together, holds so much more."""
        self.used_bytes += more_bytes

    def add_memory(self, more_bytes: int) -> None:
        """The queues hold so much more in memory."""
        before_bytes = self.memory_bytes
        self.memory_bytes += more_bytes
        if before_bytes <= self._crowded_bytes < self.memory_bytes:
            self._crowded.set()

    @property
    def window_bytes(self) -> int:
        """How much of a stream's backlog is in memory at its old end; all together do not crowd it."""
        return min(WINDOW_BYTES, MEMORY_MAX_BYTES // (4 * max(1, len(self._queues))))

    @property
    def crowded(self) -> bool:
        """Whether memory is to be emptied as far as the disk takes it."""
        return self.memory_bytes > self._crowded_bytes

    def is_full(self, queue: ChannelQueue, more_bytes: int) -> bool:
        """Whether an event of this size would exceed a limit, less what is spare, and this queue's share."""
        streams = len(self._queues)
        return any(
            used + more_bytes > (most := limit - int(limit * SPARE_SHARE))
            and mine + more_bytes > most // streams
            for used, limit, mine in (
                (self.used_bytes, self.max_bytes, queue.pending_bytes),
                (self.memory_bytes, self._memory_max_bytes, queue.memory_bytes),
            )
        )

    def limit_memory(self) -> None:
        """Drop or thin where memory holds too much: the disk takes nothing, or is slower than what comes."""
        while self.memory_bytes > self._memory_max_bytes:
            before, share_bytes = self.memory_bytes, self._memory_max_bytes // len(self._queues)
            for queue in drop_order(self._queues.values(), share_bytes):
                queue.free_memory(self._overflow.step_bytes)
                if self.memory_bytes < before:
                    break
            else:
                return

    def delete_later(self, channel: str, id_: int) -> None:
        """An event on disk is not needed any more."""
        if not self._deletes:
            self._touched.set()
            self._deletes_since_s = self.clock.monotonic_s()
        self._deletes.append((channel, id_))

    def replace_later(self, channel: str, some: Iterable[Event]) -> None:
        """Events on disk have other data from now on."""
        self._touched.set()
        for event in some:
            event.disk_state = DiskState.STORED
            self._replacements[event.id] = channel, event

    # -- end ----------------------------------------

    def forget(self, channel: str) -> None:
        """A dedicated stream has ended for good."""
        self._touched.set()
        queue = self._queues.pop(channel, None)
        if queue is not None:
            queue.discard()
        self._rows.pop(channel, None)
        self._crash_records.pop(channel, None)
        self._in_doubt.discard(channel)
        self._in_flight_on_disk.pop(channel, None)
        self._deletes = [pair for pair in self._deletes if pair[0] != channel]
        self._replacements = {i: pair for i, pair in self._replacements.items() if pair[0] != channel}
        self._forgotten.append(channel)

    async def close(self) -> None:
        """An orderly end: all that waits is on disk, and the next start knows it."""
        self._closing = True
        self._touched.set()
        # Channels that no session has opened in this process are in the crash log only.
        for channel, records in list(self._crash_records.items()):
            if channel not in self._in_doubt:
                await self.open(channel, format_of(records), "drop-oldest")
        failures = self._disk.failures
        await self.commit(float("inf"), clean=True)
        if self._disk.failures == failures:
            self._unlogged.clear()
            self._log.end()
        await self._disk.attempt(self._file.close)

    def figures(self) -> dict[str, Any]:
        """For `status` and the metrics. `trouble` says why the disk takes nothing, if it does not."""
        oldest_ms = min(
            (queue.oldest_ms for queue in self._queues.values() if queue.pending_events), default=None
        )
        return {
            "events": sum(queue.pending_events for queue in self._queues.values()),
            "bytes": max(0, self.used_bytes),
            "max_bytes": self.max_bytes,
            "memory_bytes": self.memory_bytes,
            "age_s": 0.0 if oldest_ms is None else max(0, self.clock.now_ms() - oldest_ms) / 1000,
            **self.counts.figures(),
            "disk_failures": self._disk.failures + self._log.failures,
            "trouble": self._disk.trouble,
            "set_aside": self._file.set_aside,
            "written_bytes": self._file.written_bytes,
            "written_bytes_per_day": a_day(
                self._file.written_bytes, self.clock.monotonic_s() - self._began_s
            ),
        }
