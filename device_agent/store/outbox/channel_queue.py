"""The outgoing queue of one channel: live events first, the backlog behind, in numbered messages.

Order holds within the live events and within the late ones. A cut message keeps its number and items until it
is acknowledged. Only the two ends of a long backlog are in memory; the middle is on disk.
"""

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any

from device_agent.clock import EARLIEST_TRUE_MS, Clock
from device_agent.network import Format, OutgoingMessage
from device_agent.store.outbox.backlog import BacklogOwner
from device_agent.store.outbox.event import Event, Kept, Range, items
from device_agent.store.outbox.live_queue import LiveQueue, Overflow, record
from device_agent.store.outbox.outbox_file import ChannelRow
from device_agent.store.outbox.sent_events import SentEvents
from device_agent.store.outbox.thinning import cost_bytes

# While live events flow, the backlog may fill this share of each message.
LATE_SHARE = 0.5
DISK_RETRY_S = 1.0
# Live events do not wait longer than this for old ones to be read.
FILL_PATIENCE_S = 0.1


class ChannelQueue(LiveQueue):
    """Implements `network.Lane`; all methods belong to the event loop."""

    def __init__(
        self,
        channel: str,
        row: ChannelRow | None,
        format_: Format,
        overflow: Overflow,
        owner: BacklogOwner,
        clock: Clock,
    ) -> None:
        super().__init__(channel, row, format_, overflow, owner, clock)
        self._cut_s = 0.0
        self._cut_offset_ms: int | None = None
        self._sent = SentEvents()
        self._filling: asyncio.Task[None] | None = None

    # -- emptying (network.Lane) ----------------------------------------

    async def until_ready(self) -> None:
        while True:
            old = not self._late.head and self._late.elsewhere and self._cut is None
            if old and not await self._fill_head() and not self._live and not self.closed:
                await asyncio.sleep(DISK_RETRY_S)
            if self._cut is not None or self._live or self._late.head or self._refused or self.closed:
                return
            if not self._late.elsewhere:
                self._ready.clear()
                await self._ready.wait()

    async def _fill_head(self) -> bool:
        """Begin to read old events, and wait for them unless live ones would wait; whether any are there."""
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill(), name=f"outbox fill {self.channel}")
        await asyncio.wait([self._filling], timeout=FILL_PATIENCE_S if self._live else None)
        return bool(self._late.head)

    async def _fill(self) -> None:
        before_bytes = self._late.spilled_bytes
        lost = await self._late.fill(self.held_ids())
        if lost is None:
            return
        self._hold(before_bytes - self._late.spilled_bytes - lost.bytes)
        if lost.count:
            self._owner.note_cost(-lost.bytes)
            self.say_lost(lost, "power_cut")

    def next_message(self, limit_bytes: int) -> OutgoingMessage | None:
        if self._cut is not None:
            return self._cut
        self._age()
        self._say_what_was_refused()
        room = limit_bytes
        if self._late and self._format == "bytes":
            room = 0  # bytes have one order only
        elif self._late.head and self._live:
            room = int(limit_bytes * (1 - LATE_SHARE))
        chosen: list[tuple[Event, bool]] = []
        size = self._take(self._live, room, chosen, late=False) if room else 0
        size += self._take(self._late.head, limit_bytes - size, chosen, late=True)
        if room or not self._late:
            self._take(self._live, limit_bytes - size, chosen, late=False)
        if not chosen:
            return None
        self._cut_events, self._cut_s = chosen, self._clock.monotonic_s()
        self._cut_offset_ms = self._clock.offset_ms()
        out = items(chosen, self._clock.boot, self._cut_offset_ms)
        self._cut = OutgoingMessage(self._number, out, self._clock.now_ms())
        self._number += 1
        self._reserve()
        if (record := self.cut_under_way()) is not None:
            self._owner.log(record)
        return self._cut

    def _take(
        self, queue: deque[Event], room_bytes: int, chosen: list[tuple[Event, bool]], *, late: bool
    ) -> int:
        taken_bytes = 0
        while queue:
            event = queue[0]
            # Base64 of a chunk of bytes is a third longer; an event has a comma, and may get the mark `late`.
            size = len(event.data) * 4 // 3 + 3 if event.seq is None else len(event.data) + 14
            if (chosen or taken_bytes) and taken_bytes + size > room_bytes:
                break
            queue.popleft()
            self._hold(-event.cost_bytes)
            chosen.append((event, late))
            taken_bytes += size
        return taken_bytes

    def ack(self, message: OutgoingMessage) -> None:
        if message is not self._cut:
            return
        self._owner.log(["k", self.channel, message.number])
        for event, _ in self._cut_events:
            self._forget(event)
            self._sent.add(event)
        self._cut, self._cut_events = None, []

    def replay(self, from_seq: int) -> int | None:
        """Queue again what was sent from this number on; returns the first number that goes out again.

        None where nothing of it is kept any more.
        """
        again = self._sent.since(from_seq)
        for event in again:
            copy = replace(event, id=self._owner.next_id(), appended_s=float("-inf"), kept=Kept.NOWHERE)
            self._owner.log(record(self.channel, copy))
            self._owner.note_cost(copy.cost_bytes)
            self._hold(copy.cost_bytes)
            self._late.add(copy)
        self._ready.set()
        return again[0].seq if again else None

    @property
    def pending_bytes(self) -> int:
        return self._memory_bytes + self._late.spilled_bytes

    @property
    def pending_events(self) -> int:
        return len(self._live) + len(self._late) + len(self._cut_events)

    @property
    def next_number(self) -> int:
        return self._number

    # -- disk ----------------------------------------

    def row(self) -> ChannelRow:
        """What the disk shall know; taken when a commit is made."""
        self.row_changed = False
        return ChannelRow(self.channel, self.next_seq, self._number, self.seq_reserved, self.number_reserved)

    def unkept(self, older_than_s: float) -> list[Event]:
        """Events that are on no disk, all of them if one waited since before this instant."""
        some = [event for event in self.in_memory if event.kept is Kept.NOWHERE]
        return some if any(event.appended_s <= older_than_s for event in some) else []

    def cut_to_keep(self, older_than_s: float) -> list[Any] | None:
        """The message under way, if it has waited since before this instant."""
        return self.cut_under_way() if self._cut_s <= older_than_s else None

    def spill(self) -> None:
        """Let go of the middle of the backlog that is on disk."""
        self._age()
        self._hold(-self._late.spill())

    def not_on_disk(self) -> None:
        """The file was lost or begun anew: what is in memory is to be written again."""
        self.row_changed = True
        for event in self.in_memory:
            event.kept = Kept.NOWHERE

    @property
    def spilled_span(self) -> tuple[int, int] | None:
        """The ids between which the events lie that are on disk alone."""
        return self._late.span

    def held_ids(self) -> set[int]:
        """Ids of the message under way: on disk perhaps, but not on disk alone."""
        return {event.id for event, _ in self._cut_events}

    # -- restart ----------------------------------------

    def snapshot(self) -> list[list[Any]]:
        """Records of the crash log that make this state again, together with the disk."""
        records: list[list[Any]] = [["n", self.channel, self.next_seq, self._number]]
        if (lost := self._refused) is not None:
            records.append(["l", self.channel, lost.count, lost.from_at, lost.to_at])
        some = [event for event in self.in_memory if event.kept is not Kept.ON_DISK]
        records += [record(self.channel, event) for event in some]
        under_way = self.cut_under_way()
        return [*records, under_way] if under_way is not None else records

    def in_doubt(self, row: ChannelRow | None) -> None:
        """Nobody knows how far this channel came: jump to numbers that cannot have been used, and say so."""
        now_ms = self._clock.now_ms()
        far = max(now_ms, EARLIEST_TRUE_MS)
        seq, number = (row.seq_reserved, row.number_reserved) if row is not None else (far, far)
        first = row.next_seq if row is not None else 1
        last = max(first, seq - 1)
        self.restore_numbers(seq, number)
        self.say_lost(Range(last - first + 1, 0, 0, first, last, now_ms, now_ms), "power_cut")

    def adopt(self, row: ChannelRow) -> None:
        """A disk that could not be read before is back, with what it has kept."""
        self.row_changed = True
        self._late.adopt(row)
        self._ready.set()

    def restore_numbers(self, next_seq: int, next_number: int) -> None:
        self.next_seq, self._number = max(self.next_seq, next_seq), max(self._number, next_number)

    def restore_events(self, some: list[Event]) -> None:
        """Events that only the crash log had, after those on disk."""
        if some and some[0].seq is None:
            self._live.extend(some)
        else:
            self._late.restore(some)
        size = cost_bytes(some)
        self._hold(size)
        self._owner.note_cost(size)
        self._ready.set()

    def restore_cut(
        self, number: int, ts_ms: int, some: list[tuple[Event, bool]], boot: str, offset_ms: int | None
    ) -> None:
        """The message that was under way: the same number with the same content, its times included."""
        self._cut_events, self._cut_offset_ms = some, offset_ms
        self._cut = OutgoingMessage(number, items(some, boot, offset_ms), ts_ms)
        self._cut_s = float("-inf")
        self._number = max(self._number, number + 1)
        on_disk = [event for event, _ in some if event.kept is Kept.ON_DISK]
        self._late.not_spilled(on_disk)
        self._owner.note_cost(sum(event.cost_bytes for event, _ in some if event not in on_disk))
        self._ready.set()

    def restore_acked(self, some: list[Event]) -> None:
        """Events on disk that were acknowledged before the process died."""
        self._late.not_spilled(some)
        for event in some:
            self._forget(event)

    def cut_under_way(self) -> list[Any] | None:
        """The crash log's record of the message under way."""
        if self._cut is None:
            return None
        refs = [[event.id, late] for event, late in self._cut_events]
        clock = (self._clock.boot, self._cut_offset_ms)
        return ["c", self.channel, self._cut.number, self._cut.ts_ms, refs, *clock]

    # -- end ----------------------------------------

    def doom(self, ids: list[int]) -> None:
        """Events on a disk that cannot be read now were acknowledged."""
        for id_ in ids:
            self._owner.gone(self.channel, Event(id_, b"", None, 0, "", "", 0.0, Kept.ON_DISK))

    def restore_refused(self, count: int, from_at: int, to_at: int) -> None:
        """Readings that the last process had turned away and had not said so."""
        self._refuse(Range(count, 0, 0, None, None, from_at, to_at))

    def close(self) -> None:
        """Take nothing more; the writer empties what is left and ends."""
        self.closed = True
        self._ready.set()

    def discard(self) -> None:
        """Forget what is left: nobody will ever read it."""
        if self._filling is not None:
            self._filling.cancel()  # what it brings would be counted, and never let go
        self._owner.note_cost(-cost_bytes(self.in_memory) - self._late.spilled_bytes)
        self._live.clear()
        self._late.clear()
        self._hold(-self._memory_bytes)
        self._cut, self._cut_events = None, []
        self.close()
