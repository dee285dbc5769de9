"""The outgoing queue of one channel: live events first, the backlog behind, in numbered messages.

Order holds within the live events and within the late ones. A cut message keeps its number and items until it
is acknowledged. Only the two ends of a long backlog are in memory; the middle is on disk.
"""

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any, Literal

from device_agent import events
from device_agent.clock import Clock, undated
from device_agent.events import Draft
from device_agent.network import Cut
from device_agent.store.backlog import Backlog, Owner
from device_agent.store.event import Event, Kept, Range, items, range_of
from device_agent.store.outbox_file import ChannelRow

Overflow = Literal["drop-oldest", "thin", "refuse"]

# An event that waited longer than this is late: it tells of the past, not of now.
LATE_AFTER_S = 5.0
# While live events flow, the backlog may fill this share of each message.
LATE_SHARE = 0.5
# A console's output that nobody takes: the newest megabyte is kept.
BYTES_MAX = 1_000_000
DISK_RETRY_S = 1.0
# What was sent and may be asked for again (`replay`).
SENT_KEEP_BYTES = 65_536
# Numbers are written down this many ahead: a power cut costs a reader one stall, not a commit per message.
RESERVE = 10_000


class Lane:
    """Implements `network.Lane`; all methods belong to the event loop."""

    def __init__(
        self,
        channel: str,
        row: ChannelRow | None,
        first_number: int,
        overflow: Overflow,
        owner: Owner,
        clock: Clock,
    ) -> None:
        self.channel = channel
        self.overflow = overflow
        self.closed = False
        self.dropped = 0
        self.next_seq = row.next_seq if row else 1
        self.row_changed = row is None
        self.seq_reserved = row.seq_reserved if row else 0
        self.number_reserved = row.number_reserved if row else 0
        self._number = max(row.next_number, first_number) if row else first_number
        self._owner = owner
        self._clock = clock
        self._live: deque[Event] = deque()
        self._late = Backlog(channel, row, owner)
        self._memory_bytes = 0
        self._cut: Cut | None = None
        self._cut_events: list[tuple[Event, bool]] = []
        self._cut_offset_ms: int | None = None
        self._lost: list[Range] = []
        self._lost_reason = ""
        self._sent: deque[Event] = deque()
        self._sent_bytes = 0
        self._ready = asyncio.Event()
        if self._late:
            self._ready.set()

    # -- filling ----------------------------------------

    def append(self, draft: Draft) -> bool:
        """Number and queue an event; False if the rule `refuse` turned it away."""
        if self.closed:
            return False
        if self.overflow == "refuse" and draft.kind == "reading" and self._owner.full():
            self._note_lost(Range(1, 0, 0, None, None, draft.at_ms, draft.at_ms), "overflow")
            return False
        self._say_what_was_lost()
        self._put(draft)
        return True

    def append_bytes(self, data: bytes) -> None:
        """Queue a chunk of a byte stream."""
        if not self.closed and data:
            while len(self._live) > 1 and self._memory_bytes > BYTES_MAX:
                self._drop_oldest(self._live)
            now_s = self._clock.monotonic_s()
            self._queue(Event(self._owner.next_id(), data, None, self._clock.now_ms(), "bytes", "", now_s))

    def _put(self, draft: Draft) -> None:
        if undated(draft.at_ms):
            draft = draft.undated(self._clock.boot)
        seq = self.next_seq
        self.next_seq += 1
        self._reserve()
        now_s = self._clock.monotonic_s()
        event = Event(
            self._owner.next_id(), draft.numbered(seq), seq, draft.at_ms, draft.kind, draft.device, now_s
        )
        self._queue(event)

    def _queue(self, event: Event) -> None:
        self._owner.log(
            ["a", self.channel, event.id, event.data, event.seq, event.at_ms, event.kind, event.device]
        )
        self._owner.note_cost(event.cost_bytes)
        self._memory_bytes += event.cost_bytes
        self._live.append(event)
        self._age()
        self._ready.set()

    def _reserve(self) -> None:
        if self.next_seq >= self.seq_reserved or self._number >= self.number_reserved:
            self.seq_reserved = self.next_seq + RESERVE
            self.number_reserved = self._number + RESERVE
            self.row_changed = True

    def _age(self) -> None:
        """What waited too long joins the backlog. Bytes have one order only and never do."""
        if self._live and self._live[0].seq is None:
            return
        oldest_s = self._clock.monotonic_s() - LATE_AFTER_S
        while self._live and self._live[0].appended_s < oldest_s:
            event = self._live.popleft()
            self._late.add(event)

    # -- loss ----------------------------------------

    def _note_lost(self, lost: Range, reason: str) -> None:
        self.dropped += lost.count
        self._lost_reason = reason
        if self._lost and lost.from_seq is None and self._lost[-1].from_seq is None:
            last = self._lost[-1]
            count = last.count + lost.count
            self._lost[-1] = Range(count, 0, 0, None, None, last.from_at, max(last.to_at, lost.to_at))
        else:
            self._lost.append(lost)
        self._ready.set()

    def say_lost(self, lost: Range, reason: str) -> None:
        """These events will not come: a `gap` says so before anything else goes out."""
        self._note_lost(lost, reason)
        self._say_what_was_lost()

    def _say_what_was_lost(self) -> None:
        some, self._lost = self._lost, []
        for lost in (each.known(self._clock.offset_ms()) for each in some):
            self._put(
                events.gap(
                    self._clock.now_ms(),
                    self._lost_reason,
                    count=lost.count,
                    from_seq=lost.from_seq,
                    to_seq=lost.to_seq,
                    from_at=lost.from_at,
                    to_at=lost.to_at,
                )
            )

    # -- emptying (network.Lane) ----------------------------------------

    async def until_ready(self) -> None:
        while True:
            if self._cut is not None or self._live or self._late.head or self.closed:
                if not self._late.head and self._late.elsewhere and self._cut is None:
                    await self._fill_head()
                return
            if self._late.elsewhere:
                await self._fill_head()
                continue
            self._ready.clear()
            await self._ready.wait()

    async def _fill_head(self) -> None:
        before_bytes = self._late.spilled_bytes
        missing = await self._late.fill(self.held_ids())
        if missing is None:
            await asyncio.sleep(DISK_RETRY_S)
        elif missing:
            self._owner.note_cost(-before_bytes)
            now_ms = self._clock.now_ms()
            self._note_lost(Range(missing, 0, 0, None, None, now_ms, now_ms), "power_cut")
        else:
            self._memory_bytes += before_bytes - self._late.spilled_bytes

    def cut(self, limit_bytes: int) -> Cut | None:
        if self._cut is not None:
            return self._cut
        self._age()
        if self._lost:
            self._say_what_was_lost()
        room = limit_bytes
        if self._late.head and self._live:
            room = int(limit_bytes * (1 - LATE_SHARE))
        chosen: list[tuple[Event, bool]] = []
        size = self._take(self._live, room, chosen, late=False)
        size += self._take(self._late.head, limit_bytes - size, chosen, late=True)
        self._take(self._live, limit_bytes - size, chosen, late=False)
        if not chosen:
            return None
        self._cut_events = chosen
        self._cut_offset_ms = self._clock.offset_ms()
        out = items(chosen, self._clock.boot, self._cut_offset_ms)
        self._cut = Cut(self._number, out, self._clock.now_ms())
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
            self._memory_bytes -= event.cost_bytes
            chosen.append((event, late))
            taken_bytes += size
        return taken_bytes

    def ack(self, cut: Cut) -> None:
        if cut is not self._cut:
            return
        self._owner.log(["k", self.channel, cut.number])
        for event, _ in self._cut_events:
            self._forget(event)
            if event.seq is not None:
                self._sent.append(event)
                self._sent_bytes += len(event.data)
        while self._sent_bytes > SENT_KEEP_BYTES:
            self._sent_bytes -= len(self._sent.popleft().data)
        self._cut, self._cut_events = None, []

    def _forget(self, event: Event) -> None:
        self._owner.note_cost(-event.cost_bytes)
        if event.kept is not Kept.NOWHERE:
            self._owner.gone(self.channel, event)

    def replay(self, from_seq: int) -> int | None:
        """Queue again what was sent from this number on; returns the first number that goes out again.

        None where nothing of it is kept any more.
        """
        again = [event for event in self._sent if event.seq is not None and event.seq >= from_seq]
        for event in again:
            copy = replace(event, id=self._owner.next_id(), appended_s=float("-inf"), kept=Kept.NOWHERE)
            self._owner.note_cost(copy.cost_bytes)
            self._memory_bytes += copy.cost_bytes
            self._late.head.append(copy)
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
        """Events that are on no disk and waited since before this instant."""
        waiting = [event for event, _ in self._cut_events]
        waiting += [*self._late.in_memory(), *self._live]
        return [e for e in waiting if e.kept is Kept.NOWHERE and e.appended_s <= older_than_s]

    def spill(self) -> None:
        """Let go of the middle of the backlog that is on disk."""
        self._age()
        self._memory_bytes -= self._late.spill()

    @property
    def spilled_span(self) -> tuple[int, int] | None:
        """The ids between which the events lie that are on disk alone."""
        return self._late.span

    def held_ids(self) -> set[int]:
        """Ids of the message under way: on disk perhaps, but not on disk alone."""
        return {event.id for event, _ in self._cut_events}

    def removed(self, lost: Range, new_bytes: int, reason: str) -> None:
        """Events on disk were dropped, or others (so many, so large) put in their place."""
        self._late.removed(lost, new_bytes)
        self._owner.note_cost(new_bytes - lost.bytes)
        if lost.count:
            self._note_lost(lost, reason)

    def drop_from_memory(self, target_bytes: int) -> None:
        """Make room without a disk: the oldest of the backlog, then the oldest live events."""
        dropped: list[Event] = []
        size = 0
        for queue in (self._late.head, self._late.tail, self._live):
            while len(queue) > 1 and size < target_bytes:
                dropped.append(self._drop_oldest(queue))
                size += dropped[-1].cost_bytes
        if dropped:
            self._note_lost(range_of(dropped, self._clock.boot, self._clock.offset_ms()), "overflow")

    def _drop_oldest(self, queue: deque[Event]) -> Event:
        event = queue.popleft()
        self._memory_bytes -= event.cost_bytes
        self._forget(event)
        return event

    # -- restart ----------------------------------------

    def snapshot(self) -> list[list[Any]]:
        """Records of the crash log that make this state again, together with the disk."""
        records: list[list[Any]] = [["n", self.channel, self.next_seq, self._number]]
        waiting = [event for event, _ in self._cut_events]
        waiting += [*self._late.in_memory(), *self._live]
        records += [
            ["a", self.channel, e.id, e.data, e.seq, e.at_ms, e.kind, e.device]
            for e in waiting
            if e.kept is not Kept.ON_DISK
        ]
        under_way = self.cut_under_way()
        return [*records, under_way] if under_way is not None else records

    def restore_numbers(self, next_seq: int, next_number: int) -> None:
        self.next_seq, self._number = max(self.next_seq, next_seq), max(self._number, next_number)

    def restore_events(self, some: list[Event]) -> None:
        """Events that only the crash log had, after those on disk."""
        if some and some[0].seq is None:
            self._live.extend(some)
        else:
            self._late.restore(some)
        size = sum(event.cost_bytes for event in some)
        self._memory_bytes += size
        self._owner.note_cost(size)
        self._ready.set()

    def restore_cut(
        self, number: int, ts_ms: int, some: list[tuple[Event, bool]], boot: str, offset_ms: int | None
    ) -> None:
        """The message that was under way: the same number with the same content, its times included."""
        self._cut_events, self._cut_offset_ms = some, offset_ms
        self._cut = Cut(number, items(some, boot, offset_ms), ts_ms)
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

    def close(self) -> None:
        """Take nothing more; the writer empties what is left and ends."""
        self.closed = True
        self._ready.set()

    def discard(self) -> None:
        """Forget what is left: nobody will ever read it."""
        memory = [event for event, _ in self._cut_events]
        memory += [*self._live, *self._late.in_memory()]
        self._owner.note_cost(-sum(event.cost_bytes for event in memory) - self._late.spilled_bytes)
        self._live.clear()
        self._late.clear()
        self._memory_bytes = 0
        self._cut, self._cut_events = None, []
        self.close()
