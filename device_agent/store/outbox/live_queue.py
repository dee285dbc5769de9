"""The waiting events of one channel: numbered, made room for, and never lost without a word.

Live events first, the backlog behind. Of a long backlog the two ends are in memory and the middle on disk.
"""

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any, Literal

from device_agent.clock import Clock, undated
from device_agent.messages import events
from device_agent.messages.events import EventDraft
from device_agent.network import FIRST_NUMBER, Format, OutgoingMessage
from device_agent.store.outbox.backlog import Backlog, BacklogOwner
from device_agent.store.outbox.event import Event, Kept, Range, dated, range_of
from device_agent.store.outbox.outbox_file import ChannelRow
from device_agent.store.outbox.thinning import WIDER, cost_bytes, thin

Overflow = Literal["drop-oldest", "thin", "refuse"]

# An event that waited longer than this is late: it tells of the past, not of now.
LATE_AFTER_S = 5.0
# A console's output that nobody takes: the newest megabyte is kept.
BYTES_MAX = 1_000_000
# Numbers are written down this many ahead, and again when half are used: a power cut costs a reader one
# stall, not a commit per message, and none goes out that was not written down before.
RESERVE = 20_000


class LiveQueue:
    """What waits on one channel, and the message under way. All methods belong to the event loop."""

    def __init__(
        self,
        channel: str,
        row: ChannelRow | None,
        format_: Format,
        overflow: Overflow,
        owner: BacklogOwner,
        clock: Clock,
    ) -> None:
        self.channel = channel
        self.overflow = overflow
        self.closed = False
        self.dropped = 0
        self.thin_window = WIDER
        self.thinned_to = 0
        """Up to this id the backlog on disk is thinned to the window."""
        self.next_seq = row.next_seq if row else 1
        self.row_changed = row is None
        self.seq_reserved = row.seq_reserved if row else 0
        self.number_reserved = row.number_reserved if row else 0
        self._format = format_
        self._number = max(row.next_number if row else 0, FIRST_NUMBER[format_])
        self._owner = owner
        self._clock = clock
        self._live: deque[Event] = deque()
        self._late = Backlog(channel, row, owner)
        self._memory_bytes = 0
        self._cut: OutgoingMessage | None = None
        self._cut_events: list[tuple[Event, bool]] = []
        self._refused: Range | None = None
        self._ready = asyncio.Event()
        self._reserve()
        if self._late:
            self._ready.set()

    # -- filling ----------------------------------------

    def append(self, draft: EventDraft) -> bool:
        """Number and queue an event; False if the rule `refuse` turned it away."""
        if self.closed:
            return False
        cost = Event.cost_of(len(draft.head) + len(draft.tail))
        if self.overflow == "refuse" and draft.kind == "reading" and self._owner.full(cost):
            self._refuse(Range(1, 0, 0, None, None, draft.at_ms, draft.at_ms))
            return False
        self._say_what_was_refused()
        self._put(draft)
        return True

    def append_bytes(self, data: bytes) -> None:
        """Queue a chunk of a byte stream."""
        if not self.closed and data:
            while len(self._live) > 1 and self._memory_bytes > BYTES_MAX:
                self._drop_oldest(self._live)
                self.dropped += 1
            now_s = self._clock.monotonic_s()
            self._queue(Event(self._owner.next_id(), data, None, self._clock.now_ms(), "bytes", "", now_s))

    def _put(self, draft: EventDraft) -> Event:
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
        return event

    def _queue(self, event: Event) -> None:
        self._owner.log(record(self.channel, event))
        self._owner.note_cost(event.cost_bytes)
        self._hold(event.cost_bytes)
        self._live.append(event)
        self._age()
        self._ready.set()
        self._owner.relieve()

    def _hold(self, more_bytes: int) -> None:
        self._memory_bytes += more_bytes
        self._owner.memory_bytes += more_bytes

    def _reserve(self) -> None:
        half = RESERVE // 2
        if self.next_seq + half > self.seq_reserved or self._number + half > self.number_reserved:
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

    def _refuse(self, lost: Range) -> None:
        """Readings that were turned away: one `gap` says so when there is room again."""
        self.dropped += lost.count
        self._owner.log(["l", self.channel, lost.count, lost.from_at, lost.to_at])
        before = self._refused
        if before is not None:
            lost = replace(lost, count=before.count + lost.count, from_at=before.from_at)
        self._refused = lost
        self._ready.set()

    def _say_what_was_refused(self) -> None:
        lost, self._refused = self._refused, None
        if lost is not None:
            self.say_lost(lost.known(self._clock.offset_ms()), "overflow", counted=True)

    def say_lost(self, lost: Range, reason: str, *, counted: bool = False) -> Event | None:
        """These events will not come: a `gap` says so. None on a stream of bytes, which has no words."""
        self.dropped += 0 if counted else lost.count
        if self._format == "bytes":
            return None
        now_ms = self._clock.now_ms()
        return self._put(
            events.gap(
                now_ms,
                reason,
                count=lost.count,
                from_seq=lost.from_seq,
                to_seq=lost.to_seq,
                from_at=lost.from_at or now_ms,
                to_at=lost.to_at or now_ms,
            )
        )

    @property
    def in_memory(self) -> list[Event]:
        """What waits, or is under way, and is in memory."""
        return [*(event for event, _ in self._cut_events), *self._late.in_memory(), *self._live]

    def range_of(self, some: list[Event]) -> Range:
        """What these events amount to, with true times where they are known."""
        return range_of(some, self._clock.boot, self._clock.offset_ms())

    def dated(self, event: Event) -> Event:
        """With its true time, if that is known."""
        return dated(event, self._clock.boot, self._clock.offset_ms())

    @property
    def memory_bytes(self) -> int:
        return self._memory_bytes

    def removed(self, lost: Range, new_bytes: int) -> None:
        """Events on disk were dropped, or others (so many, so large) put in their place."""
        self._late.removed(lost, new_bytes)
        self._owner.note_cost(new_bytes - lost.bytes)

    def make_room(self, target_bytes: int) -> None:
        """Make room in memory by the lane's rule: the oldest of the backlog, then the oldest live events."""
        if self.overflow == "thin" and self._thin_memory(target_bytes):
            return
        dropped: list[Event] = []
        size = 0
        for queue in (self._late.head, self._late.tail, self._live):
            while len(queue) > 1 and size < target_bytes:
                dropped.append(self._drop_oldest(queue))
                size += dropped[-1].cost_bytes
        if dropped:
            self.say_lost(self.range_of(dropped), "overflow")

    def _thin_memory(self, target_bytes: int) -> bool:
        self._age()
        queues = (self._late.head, self._late.tail, self._live)
        windows = (WIDER**n for n in range(1, 7))
        for queue, window in ((queue, window) for window in windows for queue in queues):
            # Those on disk, or on their way to it, are thinned there.
            old = [event for event in queue if event.kept is Kept.NOWHERE]
            new = thin([self.dated(event) for event in old], window)
            saved = cost_bytes(old) - cost_bytes(new)
            if saved < target_bytes // 2:
                continue
            rest = [event for event in queue if event.kept is not Kept.NOWHERE]
            queue.clear()
            queue.extend(sorted([*rest, *new], key=_id))
            self._hold(-saved)
            self._owner.note_cost(-saved)
            self.say_lost(replace(self.range_of(old), count=len(old) - len(new)), "thinned")
            return True
        return False

    def _drop_oldest(self, queue: deque[Event]) -> Event:
        event = queue.popleft()
        self._hold(-event.cost_bytes)
        self._forget(event)
        return event

    def _forget(self, event: Event) -> None:
        self._owner.note_cost(-event.cost_bytes)
        if event.kept is not Kept.NOWHERE:
            self._owner.gone(self.channel, event)


def record(channel: str, event: Event) -> list[Any]:
    """An event in the crash log."""
    return ["a", channel, event.id, event.data, event.seq, event.at_ms, event.kind, event.device]


def _id(event: Event) -> int:
    return event.id
