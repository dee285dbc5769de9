"""All lanes and what keeps them: write-behind commits, the crash log, the cap.

An event acknowledged within the commit interval never touches the disk. A killed process loses nothing: the
crash log has it. A power cut costs at most one interval, and a `gap` says so.
"""

import asyncio
import json
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import structlog

from device_agent.clock import Clock
from device_agent.store.outbox.capacity import Capacity, giving_way
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.crash_log import CrashLog
from device_agent.store.outbox.event import Event, Kept, Range, range_of
from device_agent.store.outbox.live_queue import Overflow
from device_agent.store.outbox.outbox_disk import OutboxDisk
from device_agent.store.outbox.outbox_file import ChannelRow, Commit, OutboxFile, StoredEvents
from device_agent.store.outbox.restore import QueueRule, restore
from device_agent.store.store_thread import StoreThread

log = structlog.get_logger("outbox")

LOAD_BYTES = 200_000
# So many acknowledged events are taken off the disk at once.
GONE_MAX = 5000
# What memory may hold that is on no disk: the disk takes nothing, or is slower than what comes.
MEMORY_MAX_BYTES = 8_000_000
# How much of the interval an event waits for its acknowledgement before it is written, and how often that is
# looked at; the rest is for the disk.
WAIT_SHARE = 0.6
LOOK_SHARE = 0.2


class StreamRule(Protocol):
    """What a lane needs of its stream's configuration."""

    @property
    def format(self) -> Any: ...

    @property
    def overflow(self) -> Overflow: ...


class Outbox:
    """Owner of the lanes; `run` is their life. Methods belong to the event loop."""

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
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._clock = clock
        self._interval_s = commit_interval_s
        self.memory_bytes = 0
        self.memory_max_bytes = min(MEMORY_MAX_BYTES, max_bytes)
        self._file = OutboxFile(folder / "outbox.db")
        self._disk = OutboxDisk(self._file, thread, clock, self._begun_anew)
        self._disk.in_memory = self._ids_in_memory
        self._log = CrashLog(runtime_folder / "outbox.log", clock.boot)
        self._room = Capacity(max_bytes, self._load_whole, self._replace)
        self._open: dict[str, ChannelQueue] = {}
        self._rows: dict[str, ChannelRow] = {}
        self._restored: dict[str, list[list[Any]]] = {}
        self._gone: list[tuple[str, int]] = []
        self._gone_s = 0.0
        self._deleting: list[tuple[str, int]] = []
        self._committing = asyncio.Lock()
        self._closing = False
        self._forgotten: list[str] = []
        self._cuts_on_disk: dict[str, str] = {}
        self._next_id = 1
        # Whether the last numbers of all channels are known, and of which they are not.
        self._all_known = True
        self._doubtful: set[str] = set()

    # -- start ----------------------------------------

    async def load(self) -> None:
        """Find what the last process left. Never fails: what cannot be read is set aside and reported."""
        records = self._log.read()
        found = await self._disk.open()
        if found is None:
            # Nobody knows which ids that disk holds.
            self._next_id = self._clock.now_ms() * 1_000_000
        else:
            self._take(found)
            self._next_id = found.last_id + 1
            self._doubtful = found.doubtful
        self._all_known = records is not None or (found is not None and found.clean)
        lost = found is None or self._file.set_aside
        fresh = found is not None and not found.rows and not lost
        if not self._all_known and not fresh:
            self._doubtful |= set(self._rows)
            if self._rows:
                log.warning("power_cut", channels=len(self._rows))
        for record in records if records is not None else found.cuts if found is not None else []:
            self._restored.setdefault(str(record[1]), []).append(record)
            if record[0] == "a":
                self._next_id = max(self._next_id, int(record[2]) + 1)
        if self._rows or records:
            waiting = sum(row.events for row in self._rows.values())
            log.info("outbox_found", events_on_disk=waiting, crash_log_records=len(records or ()))

    def expect(self, *, shared: Collection[str], dedicated: Collection[str]) -> None:
        """The channels that may be opened again; forget all others. `dedicated`: of sessions that go on."""
        lost = bool(self._file.set_aside) or not self._file.is_open
        for name in [*self._rows, *self._restored]:
            if name not in shared and name not in dedicated:
                row = self._rows.pop(name, None)
                self._restored.pop(name, None)
                self.used_bytes -= row.bytes if row is not None else 0
                self._doubtful.discard(name)
                self._forgotten.append(name)
        # A channel of which nothing is known, and that a caller may have read from.
        if not self._all_known:
            self._doubtful |= set(dedicated)
        if lost or (not self._all_known and dedicated):
            self._doubtful |= {name for name in shared if name not in self._restored}

    async def open(self, id_: str, stream: StreamRule) -> ChannelQueue:
        """The lane of a stream; one that is open already is the same lane."""
        lane = self._open.get(id_)
        if lane is not None and not lane.closed:
            return lane
        row = self._rows.pop(id_, None)
        lane = ChannelQueue(id_, row, stream.format, stream.overflow, self, self._clock)
        self._open[id_] = lane
        records = self._restored.pop(id_, None)
        if records is not None:
            await restore(lane, records, self._by_id)
        if id_ in self._doubtful:
            self._doubtful.discard(id_)
            lane.in_doubt(row)
        return lane

    async def _by_id(self, ids: list[int]) -> dict[int, Event] | None:
        return await self._disk.attempt(lambda: self._file.by_id(ids))

    # -- life ----------------------------------------

    async def run(self) -> None:
        """Commit what waits too long, keep the cap, until cancelled."""
        self._begin_log()
        while not self._closing:
            await asyncio.sleep(self._interval_s * LOOK_SHARE)
            await self.commit(self._clock.monotonic_s() - self._interval_s * WAIT_SHARE)

    async def commit(self, older_than_s: float, *, clean: bool = False) -> None:
        """Write all that waits if something of it waited since before this instant.

        One transaction, then a new crash log.
        """
        async with self._committing:
            if not self._file.is_open:
                await self._open_again()
            while self.used_bytes > self.max_bytes and not self._disk.trouble:
                if not await self._room.step(self._open.values()):
                    break
            work = self._work(older_than_s, clean=clean)
            if work is not None:
                await self._commit(work)
            elif self._log.grown:
                self._begin_log()

    def _work(self, older_than_s: float, *, clean: bool) -> Commit | None:
        lanes = self._open.values()
        inserts = [(lane.channel, event) for lane in lanes for event in lane.unkept(older_than_s)]
        cuts = self._changed_cuts(float("inf") if clean else older_than_s)
        # To take what was acknowledged off the disk is no hurry: with the next write, or after a while.
        old = bool(self._gone) and self._clock.monotonic_s() - self._gone_s >= self._interval_s
        old = old or len(self._gone) > GONE_MAX
        changed = any(lane.row_changed for lane in lanes)
        if not (clean or inserts or changed or old or self._forgotten or any(cuts.values())):
            return None
        written = {channel for channel, _ in inserts}
        work = Commit(
            channels=[lane.row() for lane in lanes if clean or lane.row_changed or lane.channel in written],
            inserts=inserts,
            deletes=self._gone,
            forget=self._forgotten,
            cuts=cuts,
            clean=clean,
            doubtful=set(self._doubtful),
        )
        self._deleting, self._gone, self._forgotten = self._gone, [], []
        for _, event in inserts:
            event.kept = Kept.UNDERWAY
        return work

    def _changed_cuts(self, older_than_s: float) -> dict[str, str | None]:
        """The messages under way that have waited, where the disk has another."""
        wanted = {lane.channel: lane.cut_to_keep(older_than_s) for lane in self._open.values()}
        cuts = {channel: None if cut is None else json.dumps(cut) for channel, cut in wanted.items()}
        return {channel: cut for channel, cut in cuts.items() if cut != self._cuts_on_disk.get(channel)}

    async def _commit(self, work: Commit) -> None:
        try:
            unfinished = await self._disk.job(lambda: self._file.commit(work))
        except (sqlite3.Error, OSError) as error:
            self._undo(work)
            await self._disk.failed(error)
            if self._log.grown:
                self._begin_log()
            return
        finally:
            self._deleting = []
        self._disk.works()
        self._forgotten += unfinished
        for channel, cut in work.cuts.items():
            if cut is None:
                self._cuts_on_disk.pop(channel, None)
            else:
                self._cuts_on_disk[channel] = cut
        for _, event in work.inserts:
            event.kept = Kept.ON_DISK
        for lane in self._open.values():
            lane.spill()
        self._begin_log()
        if self.used_bytes == 0:
            await self._disk.attempt(self._file.give_back)

    def _undo(self, work: Commit) -> None:
        """A commit failed: all of it is still to be done, and memory is all there is."""
        never_there = {event.id for _, event in work.inserts}
        self._gone = [*work.deletes, *(pair for pair in self._gone if pair[1] not in never_there)]
        self._forgotten += work.forget
        for _, event in work.inserts:
            event.kept = Kept.NOWHERE
        for row in work.channels:
            if (lane := self._open.get(row.name)) is not None:
                lane.row_changed = True

    def _begin_log(self) -> None:
        waiting = [record for some in self._restored.values() for record in some]
        lanes = [record for lane in self._open.values() for record in lane.snapshot()]
        # Acknowledged, and still on the disk: a killed process must not send them again.
        doomed = [["g", channel, id_] for channel, id_ in self._gone]
        self._log.begin([*waiting, *lanes, *doomed])

    # -- the disk ----------------------------------------

    def _ids_in_memory(self) -> list[int]:
        return [event.id for lane in self._open.values() for event in lane.in_memory]

    def _begun_anew(self, found: StoredEvents) -> None:
        """A damaged file has given way to a new one; what is in memory is to be written again."""
        self._rows = {row.name: row for row in found.rows if row.name not in self._open}
        self._cuts_on_disk.clear()
        for lane in self._open.values():
            lane.not_on_disk()

    async def _open_again(self) -> None:
        """The disk could not be read when the process began; what it holds comes before all that is new."""
        found = await self._disk.open_again()
        if found is None:
            return
        self._take(found)
        for lane in self._open.values():
            row = self._rows.pop(lane.channel, None)
            if row is not None:
                lane.adopt(row)
        self._doubtful |= set(self._rows)

    def _take(self, found: StoredEvents) -> None:
        self._rows = {row.name: row for row in found.rows}
        self.used_bytes += sum(row.bytes for row in found.rows)
        self._cuts_on_disk = {str(cut[1]): json.dumps(cut) for cut in found.cuts}

    async def _load(
        self, channel: str, span: tuple[int, int], limit_bytes: int, skip: set[int]
    ) -> tuple[list[Event], list[Event]] | None:
        # Rows whose deletion is on its way are there and yet gone.
        doomed = {id_ for some in (self._gone, self._deleting) for _, id_ in some}
        return await self._disk.attempt(lambda: self._file.load(channel, span, limit_bytes, skip | doomed))

    async def _load_whole(
        self, channel: str, span: tuple[int, int], limit_bytes: int, skip: set[int]
    ) -> list[Event] | None:
        loaded = await self._load(channel, span, limit_bytes, skip)
        return None if loaded is None else loaded[0]

    async def _replace(self, old: list[Event], new: list[tuple[str, Event]]) -> bool:
        fresh = [event for _, event in new if event.kept is Kept.NOWHERE]
        for event in fresh:
            event.kept = Kept.UNDERWAY

        def job() -> bool:
            self._file.replace(old, new)
            return True

        done = await self._disk.attempt(job) or False
        for event in fresh:
            event.kept = Kept.ON_DISK if done else Kept.NOWHERE
        return done

    # -- lane.Owner ----------------------------------------

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def log(self, record: list[Any]) -> None:
        self._log.write(record)

    def note_cost(self, size_bytes: int) -> None:
        self.used_bytes += size_bytes

    def full(self, more_bytes: int) -> bool:
        # A rest is for what is never refused: answers, and the gap that tells of refusals.
        most = self.max_bytes - self.max_bytes // 32, self.memory_max_bytes - self.memory_max_bytes // 32
        return self.used_bytes + more_bytes > most[0] or self.memory_bytes + more_bytes > most[1]

    def range_of(self, some: list[Event]) -> Range:
        return range_of(some, self._clock.boot, self._clock.offset_ms())

    def relieve(self) -> None:
        if self.memory_bytes > self.memory_max_bytes:
            for lane in giving_way(self._open.values()):
                before = self.memory_bytes
                lane.make_room(self._room.step_bytes)
                if self.memory_bytes < before:
                    return

    def gone(self, channel: str, event: Event) -> None:
        if not self._gone:
            self._gone_s = self._clock.monotonic_s()
        self._gone.append((channel, event.id))

    async def load_events(
        self, channel: str, span: tuple[int, int], skip: set[int]
    ) -> tuple[list[Event], list[Event]] | None:
        # Not while room is made: both would take the same rows.
        async with self._committing:
            return await self._load(channel, span, LOAD_BYTES, skip)

    # -- end ----------------------------------------

    def forget(self, id_: str) -> None:
        """A dedicated stream has ended for good."""
        lane = self._open.pop(id_, None)
        if lane is not None:
            lane.discard()
        self._rows.pop(id_, None)
        self._restored.pop(id_, None)
        self._doubtful.discard(id_)
        self._cuts_on_disk.pop(id_, None)
        self._gone = [pair for pair in self._gone if pair[0] != id_]
        self._forgotten.append(id_)

    async def close(self) -> None:
        """An orderly end: all that waits is on disk, and the next start knows it."""
        self._closing = True
        # Queues that no session has opened in this life are in the crash log alone.
        for id_, records in list(self._restored.items()):
            if id_ not in self._doubtful:
                await self.open(id_, QueueRule(records))
        failures = self._disk.failures
        await self.commit(float("inf"), clean=True)
        if self._disk.failures == failures:
            self._log.end()
        await self._disk.attempt(self._file.close)

    # -- figures ----------------------------------------

    def figures(self) -> dict[str, Any]:
        """For `status` and the metrics. `trouble` says why the disk takes nothing, if it does not."""
        return {
            "events": sum(lane.pending_events for lane in self._open.values()),
            "bytes": max(0, self.used_bytes),
            "max_bytes": self.max_bytes,
            "memory_bytes": self.memory_bytes,
            "dropped": sum(lane.dropped for lane in self._open.values()),
            "disk_failures": self._disk.failures + self._log.failures,
            "trouble": self._disk.now,
            "set_aside": self._file.set_aside,
            "written_bytes": self._file.written_bytes,
        }
