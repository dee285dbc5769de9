"""All lanes and what keeps them: write-behind commits, the crash log, the cap.

An event acknowledged within the commit interval never touches the disk. A killed process loses nothing: the
crash log has it. A power cut costs at most one interval, and a `gap` says so.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from device_agent.clock import Clock
from device_agent.network.blocks.messages import FIRST_NUMBER
from device_agent.store.crash_log import CrashLog
from device_agent.store.event import Event, Kept, Range, dated, range_of
from device_agent.store.lane import Lane, Overflow
from device_agent.store.outbox_file import ChannelRow, Commit, OutboxFile
from device_agent.store.thin import cost_bytes, thin
from device_agent.store.thread import StoreThread

log = structlog.get_logger("outbox")

T = TypeVar("T")

# How much of the cap is freed at once when it is reached, and how much is thinned in one go.
ROOM_SHARE = 0.1
LOAD_BYTES = 64_000
THIN_BYTES = 1_000_000
# Without a working disk the queues stay in memory, and no larger than this.
MEMORY_MAX_BYTES = 8_000_000


class StreamRule(Protocol):
    """What a lane needs of its stream's configuration."""

    @property
    def format(self) -> Any: ...

    @property
    def overflow(self) -> Overflow: ...


class Lanes:
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
        self.failures = 0
        self._clock = clock
        self._thread = thread
        self._interval_s = commit_interval_s
        self._file = OutboxFile(folder / "outbox.db")
        self._log = CrashLog(runtime_folder / "outbox.log", clock.boot)
        self._open: dict[str, Lane] = {}
        self._rows: dict[str, ChannelRow] = {}
        self._restored: dict[str, list[list[Any]]] = {}
        self._gone: list[tuple[str, Event]] = []
        self._deleting: list[tuple[str, Event]] = []
        self._committing = asyncio.Lock()
        self._closing = False
        self._forgotten: list[str] = []
        self._next_id = 1
        self._power_cut = False
        self._disk_works = True

    # -- start ----------------------------------------

    async def load(self) -> None:
        """Find what the last process left. Never fails: what cannot be read is set aside and reported."""
        records = self._log.read()
        try:
            rows, cuts = await self._thread.run(self._file.open)
            self._next_id = await self._thread.run(self._file.last_id) + 1
        except (sqlite3.Error, OSError, TimeoutError) as error:
            self._disk_failed(error)
            rows, cuts = [], []
        self._rows = {row.name: row for row in rows}
        self.used_bytes = sum(row.bytes for row in rows)
        self._power_cut = records is None and cuts is None
        if records is None:
            records = [json.loads(cut) for cut in cuts or ()]
        for record in records:
            self._restored.setdefault(str(record[1]), []).append(record)
            if record[0] == "a":
                self._next_id = max(self._next_id, int(record[2]) + 1)
        if self._power_cut:
            log.warning("power_cut", channels=len(rows))
        if rows or records:
            waiting = sum(row.events for row in rows)
            log.info("outbox_found", events_on_disk=waiting, crash_log_records=len(records))

    def keep_only(self, wanted: Callable[[str], bool]) -> None:
        """Forget channels that no stream will open again."""
        for name in [*self._rows, *self._restored]:
            if not wanted(name):
                row = self._rows.pop(name, None)
                self._restored.pop(name, None)
                self.used_bytes -= row.bytes if row is not None else 0
                self._forgotten.append(name)

    async def open(self, id_: str, stream: StreamRule) -> Lane:
        """The lane of a stream; one that is open already is the same lane."""
        lane = self._open.get(id_)
        if lane is not None and not lane.closed:
            return lane
        row = self._rows.pop(id_, None)
        lane = Lane(id_, row, FIRST_NUMBER[stream.format], stream.overflow, self, self._clock)
        self._open[id_] = lane
        records = self._restored.pop(id_, None)
        if records is not None:
            await self._replay(lane, records)
        elif row is not None and self._power_cut:
            # Nobody knows how far it came: jump to numbers that cannot have been used.
            now_ms = self._clock.now_ms()
            last = max(row.next_seq, row.seq_reserved - 1)
            lane.restore_numbers(row.seq_reserved, row.number_reserved)
            lane.say_lost(
                Range(last - row.next_seq + 1, 0, 0, row.next_seq, last, now_ms, now_ms), "power_cut"
            )
        return lane

    async def _replay(self, lane: Lane, records: list[list[Any]]) -> None:
        """Put a killed process's queue together from disk and crash log."""
        fresh: dict[int, Event] = {}
        under_way: list[Any] | None = None
        done: list[int] = []
        for record in records:
            kind = record[0]
            if kind == "a":
                _, _, id_, data, seq, at_ms, what, device = record
                fresh[id_] = Event(id_, data, seq, at_ms, what, device, float("-inf"))
                if seq is not None:
                    lane.restore_numbers(seq + 1, 0)
            elif kind == "c":
                under_way = record
                lane.restore_numbers(0, record[2] + 1)
            elif kind == "k" and under_way is not None and under_way[2] == record[2]:
                done += [ref[0] for ref in under_way[4]]
                under_way = None
            elif kind == "g":
                done.append(record[2])
            elif kind == "n":
                lane.restore_numbers(record[2], record[3])
        asked = done + [ref[0] for ref in under_way[4]] if under_way else done
        stored = await self._try(lambda: self._file.by_id([*asked, *fresh])) or {}
        for id_ in done:
            fresh.pop(id_, None)
        lane.restore_acked([stored[id_] for id_ in done if id_ in stored])
        if under_way is not None:
            found = [(stored.get(ref[0]) or fresh.get(ref[0]), bool(ref[1])) for ref in under_way[4]]
            there = [(event, late) for event, late in found if event is not None]
            # An older release wrote no clock with it: nothing was undated then.
            boot, offset_ms = under_way[5:7] or (self._clock.boot, None)
            lane.restore_cut(under_way[2], under_way[3], there, boot, offset_ms)
            for ref in under_way[4]:
                fresh.pop(ref[0], None)
        lane.restore_events([event for id_, event in sorted(fresh.items()) if id_ not in stored])

    # -- life ----------------------------------------

    async def run(self) -> None:
        """Commit what waits too long, keep the cap, until cancelled."""
        self._begin_log()
        while not self._closing:
            await asyncio.sleep(self._interval_s / 3)
            await self.commit(self._clock.monotonic_s() - self._interval_s / 2)

    async def commit(self, older_than_s: float, *, clean: bool = False) -> None:
        """Write what has waited since before this instant; one transaction, then a new crash log."""
        async with self._committing:
            await self._keep_cap()
            await self._commit(older_than_s, clean=clean)

    async def _commit(self, older_than_s: float, *, clean: bool) -> None:
        lanes = list(self._open.values())
        cuts = [lane.cut_under_way() for lane in lanes] if clean else []
        work = Commit(
            channels=[lane.row() for lane in self._open.values() if lane.row_changed or clean],
            inserts=[(lane.channel, e) for lane in self._open.values() for e in lane.unkept(older_than_s)],
            deletes=self._gone,
            forget=self._forgotten,
            cuts=[json.dumps(cut) for cut in cuts if cut is not None],
            clean=clean,
        )
        if work.empty:
            if self._log.grown:
                self._begin_log()
            return
        self._deleting, self._gone, self._forgotten = self._gone, [], []
        for _, event in work.inserts:
            event.kept = Kept.UNDERWAY
        try:
            await self._thread.run(lambda: self._file.commit(work))
        except (sqlite3.Error, OSError, TimeoutError) as error:
            self._disk_failed(error)
            self._undo(work)
            return
        finally:
            self._deleting = []
        self._disk_works = True
        for _, event in work.inserts:
            event.kept = Kept.ON_DISK
        for lane in self._open.values():
            lane.spill()
        self._begin_log()

    def _undo(self, work: Commit) -> None:
        """A commit failed: all of it is still to be done, and memory is all there is."""
        never_there = {event.id for _, event in work.inserts}
        self._gone = [*work.deletes, *(pair for pair in self._gone if pair[1].id not in never_there)]
        self._forgotten += work.forget
        for _, event in work.inserts:
            event.kept = Kept.NOWHERE
        for lane in self._open.values():
            lane.row_changed = True
        self._keep_memory()

    def _begin_log(self) -> None:
        waiting = [record for some in self._restored.values() for record in some]
        lanes = [record for lane in self._open.values() for record in lane.snapshot()]
        # Acknowledged, and still on the disk: a killed process must not send them again.
        doomed = [["g", channel, event.id] for channel, event in self._gone]
        self._log.begin([*waiting, *lanes, *doomed])

    def _disk_failed(self, error: BaseException) -> None:
        self.failures += 1
        if self._disk_works or self.failures % 1000 == 0:
            log.error("outbox_not_written", error=str(error), failures=self.failures)
        self._disk_works = False

    # -- cap ----------------------------------------

    async def _keep_cap(self) -> None:
        while self.used_bytes > self.max_bytes and self._disk_works:
            lane = max(self._open.values(), key=lambda one: one.pending_bytes, default=None)
            span = lane.spilled_span if lane is not None else None
            if lane is None:
                return
            before = self.used_bytes
            if span is None:
                lane.drop_from_memory(int(self.max_bytes * ROOM_SHARE))
            elif lane.overflow == "thin":
                await self._thin(lane, span)
            else:
                await self._drop(lane, span, int(self.max_bytes * ROOM_SHARE))
            if self.used_bytes >= before:
                return

    async def _drop(self, lane: Lane, span: tuple[int, int], target_bytes: int) -> None:
        old = await self._load(lane.channel, span, target_bytes, lane.held_ids()) or []
        if old and await self._replace(lane.channel, old, []):
            lane.removed(range_of(old, self._clock.boot, self._clock.offset_ms()), 0, "overflow")

    async def _thin(self, lane: Lane, span: tuple[int, int]) -> None:
        old = await self._load(lane.channel, span, THIN_BYTES, lane.held_ids()) or []
        clock = (self._clock.boot, self._clock.offset_ms())
        new = thin([dated(event, *clock) for event in old])
        if cost_bytes(new) > 0.9 * cost_bytes(old):
            await self._drop(lane, span, int(self.max_bytes * ROOM_SHARE))
            return
        if await self._replace(lane.channel, old, new):
            whole = range_of(old, *clock)
            rows = len(old) - len(new)
            gone = Range(rows, rows, whole.bytes, whole.from_seq, whole.to_seq, whole.from_at, whole.to_at)
            lane.removed(gone, cost_bytes(new), "thinned")

    async def _load(
        self, channel: str, span: tuple[int, int], limit_bytes: int, skip: set[int]
    ) -> list[Event] | None:
        # Rows whose deletion is on its way are there and yet gone.
        doomed = {event.id for some in (self._gone, self._deleting) for _, event in some}
        return await self._try(lambda: self._file.load(channel, span, limit_bytes, skip | doomed))

    async def _replace(self, channel: str, old: list[Event], new: list[Event]) -> bool:
        def job() -> bool:
            self._file.replace(channel, old, new)
            return True

        return await self._try(job) or False

    async def _try(self, job: Callable[[], T]) -> T | None:
        """A job on the disk; None when that failed (which is counted and said)."""
        try:
            return await self._thread.run(job)
        except (sqlite3.Error, OSError, TimeoutError) as error:
            self._disk_failed(error)
            return None

    def _keep_memory(self) -> None:
        in_memory = sum(cost_bytes(lane.unkept(float("inf"))) for lane in self._open.values())
        excess = in_memory - min(MEMORY_MAX_BYTES, self.max_bytes)
        if excess > 0:
            lane = max(self._open.values(), key=lambda one: one.pending_bytes)
            lane.drop_from_memory(excess)

    # -- lane.Owner ----------------------------------------

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def log(self, record: list[Any]) -> None:
        self._log.write(record)

    def note_cost(self, size_bytes: int) -> None:
        self.used_bytes += size_bytes

    def full(self) -> bool:
        return self.used_bytes >= self.max_bytes

    def gone(self, channel: str, event: Event) -> None:
        self._gone.append((channel, event))

    async def load_events(self, channel: str, span: tuple[int, int], skip: set[int]) -> list[Event] | None:
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
        self._gone = [(channel, event) for channel, event in self._gone if channel != id_]
        self._forgotten.append(id_)

    async def close(self) -> None:
        """An orderly end: all that waits is on disk, and the next start knows it."""
        self._closing = True
        failures = self.failures
        await self.commit(float("inf"), clean=True)
        if self.failures == failures:
            self._log.end()
        await self._try(self._file.close)

    # -- figures ----------------------------------------

    def figures(self) -> dict[str, int]:
        """For `status` and the metrics."""
        return {
            "events": sum(lane.pending_events for lane in self._open.values()),
            "bytes": max(0, self.used_bytes),
            "max_bytes": self.max_bytes,
            "dropped": sum(lane.dropped for lane in self._open.values()),
            "disk_failures": self.failures + self._log.failures,
            "written_bytes": self._file.written_bytes,
        }
