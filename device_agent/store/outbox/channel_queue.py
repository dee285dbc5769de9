"""The outgoing queue of one channel: live events first, then the late ones, in numbered messages.

Order holds within the live events and within the late ones. No event is lost without a `gap` that reports it.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from device_agent.clock import EARLIEST_TRUE_MS, undated
from device_agent.messages.events import EventDraft
from device_agent.network import FIRST_NUMBER, Format, OutgoingMessage
from device_agent.store.outbox import crash_records
from device_agent.store.outbox.backlog import Backlog
from device_agent.store.outbox.crash_records import Record
from device_agent.store.outbox.event import REPEATED, DiskState, Event, cost_bytes, dated, encode
from device_agent.store.outbox.loss import Loss, losses_in, losses_of, merged
from device_agent.store.outbox.outbox_file import ChannelRow
from device_agent.store.outbox.thinning import WIDER, ThinningProgress, thin

if TYPE_CHECKING:
    from device_agent.store.outbox.outbox import Outbox

OverflowRule = Literal["drop-oldest", "thin", "refuse"]

# An event that waited longer than this is late: it shows the past, not the present.
LATE_AFTER_S = 5.0
# The output of a byte stream that nobody reads: the newest megabyte is kept.
BYTES_MAX = 1_000_000
# Numbers are reserved on disk this many ahead, and again when half are used: a power cut then costs a reader
# one stall, and no commit per message is needed.
RESERVE = 20_000
# What callers wait for.
ANSWERS = ("ack", "control")
# While live events flow, late ones may fill this share of each message.
LATE_SHARE = 0.5
# Sent events that `replay` can send again.
SENT_MAX_BYTES = 65_536
DISK_RETRY_S = 1.0
# Live events do not wait longer than this for late ones to be read from disk.
FILL_PATIENCE_S = 0.1


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A message that is not acknowledged yet, of these (event, late), dated with this boot and offset."""

    message: OutgoingMessage
    events: list[tuple[Event, bool]]
    since_s: float
    boot: str
    offset_ms: int | None


class ChannelQueue:
    """Implements `network.MessageSource`. All methods belong to the event loop."""

    def __init__(
        self,
        channel: str,
        row: ChannelRow | None,
        format_: Format,
        overflow: OverflowRule,
        outbox: "Outbox",
    ) -> None:
        """`row`: what the outbox file knows of the channel; None for a new one."""
        self.channel = channel
        self.overflow = overflow
        self.closed = False
        self.thinning = ThinningProgress()
        self.next_seq = row.next_seq if row else 1
        self.row_changed = row is None
        self._seq_reserved = row.seq_reserved if row else 0
        self._number_reserved = row.number_reserved if row else 0
        self._format = format_
        self._number = max(row.next_number if row else 0, FIRST_NUMBER[format_])
        self._outbox = outbox
        self._clock = outbox.clock
        self._live: deque[Event] = deque()
        self._late = Backlog(channel, row, outbox)
        self._memory_bytes = 0
        self._in_flight: _InFlight | None = None
        self._accepted_s = float("-inf")
        # How old the oldest live event of the last message was when that was accepted.
        self._accepted_age_s = 0.0
        self._newest_answer_id = 0
        # What is to be told, and since when the disk does not know it.
        self._losses: list[Loss] = []
        self._losses_changed_s = float("inf")
        self._sent: deque[Event] = deque()
        self._sent_bytes = 0
        self._filling: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._reserve()
        if self._late:
            self._ready.set()

    def __repr__(self) -> str:
        sending = "none" if self._in_flight is None else self._in_flight.message.number
        return (
            f"<ChannelQueue {self.channel}: {len(self._live)} live, {len(self._late)} late, "
            f"in flight {sending}{', closed' if self.closed else ''}>"
        )

    # -- appending ----------------------------------------

    def append(self, *drafts: EventDraft) -> bool:
        """Number and queue events; False if the overflow rule `refuse` turned one away."""
        if self.closed:
            return False
        refused = 0
        if self.overflow == "refuse":
            refused = sum(not self._queued_unless_full(draft) for draft in drafts)
        else:
            self._number_and_queue(drafts)
        self._outbox.limit_memory()
        return not refused

    def _queued_unless_full(self, draft: EventDraft) -> bool:
        cost = Event.cost_of(len(draft.head) + len(draft.tail))
        if draft.kind == "reading" and self._outbox.is_full(self, cost):
            self.lose([Loss("overflow", 1, draft.at_ms, draft.at_ms)])
            return False
        self._tell_losses()
        self._number_and_queue([draft])
        return True

    def append_bytes(self, data: bytes) -> None:
        """Queue a chunk of a byte stream."""
        if not self.closed and data:
            while len(self._live) > 1 and self._memory_bytes > BYTES_MAX:
                self.lose([], [self._drop_oldest(self._live)])
                self._outbox.counts.lost["overflow"] += 1
            now_s = self._clock.monotonic_s()
            self._queue([Event(self._outbox.next_id(), data, None, self._clock.now_ms(), "bytes", "", now_s)])
            self._outbox.limit_memory()

    def _number_and_queue(self, drafts: Sequence[EventDraft]) -> None:
        now_s, boot = self._clock.monotonic_s(), self._clock.boot
        id_, seq = self._outbox.next_id(len(drafts)), self.next_seq
        self.next_seq += len(drafts)
        self._reserve()
        events: list[Event] = []
        for n, given in enumerate(drafts):
            draft = given.undated(boot) if undated(given.at_ms) else given
            data = draft.numbered(seq + n)
            events.append(Event(id_ + n, data, seq + n, draft.at_ms, draft.kind, draft.device, now_s))
        self._queue(events)

    def _queue(self, events: Sequence[Event]) -> None:
        cost = cost_bytes(events)
        if events[0].kind in ANSWERS:  # which come one by one
            self._newest_answer_id = events[0].id
        self._outbox.counts.queued += len(events)
        self._outbox.log(*(crash_records.added(self.channel, event) for event in events))
        self._outbox.add_used(cost)
        self._add_memory(cost)
        self._live += events
        self._move_late(events[-1].appended_s)
        self._ready.set()

    def _add_memory(self, more_bytes: int) -> None:
        self._memory_bytes += more_bytes
        self._outbox.add_memory(more_bytes)

    def _reserve(self) -> None:
        half = RESERVE // 2
        if self.next_seq + half > self._seq_reserved or self._number + half > self._number_reserved:
            self._seq_reserved = self.next_seq + RESERVE
            self._number_reserved = self._number + RESERVE
            self.row_changed = True

    def _move_late(self, now_s: float) -> None:
        """Live events that waited too long join the backlog; bytes have one order only and never do."""
        if self._live and self._live[0].seq is None:
            return
        oldest_s = now_s - LATE_AFTER_S
        while self._live and self._live[0].appended_s < oldest_s:
            self._late.add(self._live.popleft())

    # -- sending (network.MessageSource) ----------------------------------------

    async def until_ready(self) -> None:
        while True:
            # As `next_message` does: what it finds is what was waited for.
            self._move_late(self._clock.monotonic_s())
            on_disk = not self._late.head and self._late.beyond_head and self._in_flight is None
            if on_disk and not await self._fill_head() and not self._live and not self.closed:
                await asyncio.sleep(DISK_RETRY_S)
            if self._in_flight is not None or self._live or self._late.head or self._losses or self.closed:
                return
            if not self._late.beyond_head:
                self._ready.clear()
                await self._ready.wait()

    async def _fill_head(self) -> bool:
        """Read late events, and wait for them unless live ones would wait; whether any are there."""
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill(), name=f"outbox fill {self.channel}")
        await asyncio.wait([self._filling], timeout=FILL_PATIENCE_S if self._live else None)
        return bool(self._late.head)

    async def _fill(self) -> None:
        before_bytes = self._late.spilled_bytes
        found = await self._late.fill_head(self.ids_in_flight())
        if found is None:
            return
        losses, lost_bytes = found
        self._add_memory(before_bytes - self._late.spilled_bytes - lost_bytes)
        if losses:
            self._outbox.add_used(-lost_bytes)
            self.lose(losses)

    def next_message(self, limit_bytes: int) -> OutgoingMessage | None:
        if self._in_flight is not None:
            return self._in_flight.message
        self._move_late(self._clock.monotonic_s())
        self._tell_losses()
        self._let_answer_pass(limit_bytes)
        chosen = self._choose(limit_bytes)
        if not chosen:
            return None
        boot, offset_ms = self._clock.boot, self._clock.offset_ms()
        message = OutgoingMessage(self._number, encode(chosen, boot, offset_ms), self._clock.now_ms())
        self._in_flight = _InFlight(message, chosen, self._clock.monotonic_s(), boot, offset_ms)
        self._number += 1
        self._reserve()
        self._outbox.log(crash_records.in_flight(self.channel, message, chosen, boot, offset_ms))
        self._outbox.flush_log()
        return message

    def _let_answer_pass(self, limit_bytes: int) -> None:
        """An answer goes with the next message: where more waits before it than fits, that becomes late.

        On a link that carries less than is measured the answer would be late itself, behind a backlog that
        never ends.
        """
        if not self._live or self._newest_answer_id < self._live[0].id:
            return
        ahead_bytes = 0
        for ahead, event in enumerate(self._live):
            ahead_bytes += len(event.data)
            if event.kind in ANSWERS:
                if ahead_bytes > limit_bytes * (1 - LATE_SHARE):
                    for _ in range(ahead):
                        self._late.add(self._live.popleft())
                return

    def _choose(self, limit_bytes: int) -> list[tuple[Event, bool]]:
        """Take the events of the next message off their queues: (event, late)."""
        live_limit_bytes = limit_bytes
        if self._late and self._format == "bytes":
            live_limit_bytes = 0  # bytes have one order only
        elif self._late.head and self._live:
            live_limit_bytes = int(limit_bytes * (1 - LATE_SHARE))
        chosen: list[tuple[Event, bool]] = []
        size = self._take(self._live, live_limit_bytes, chosen, late=False) if live_limit_bytes else 0
        size += self._take(self._late.head, limit_bytes - size, chosen, late=True)
        if live_limit_bytes or not self._late:
            self._take(self._live, limit_bytes - size, chosen, late=False)
        self._add_memory(-cost_bytes(event for event, _ in chosen))
        return chosen

    def _take(
        self, queue: deque[Event], limit_bytes: int, chosen: list[tuple[Event, bool]], *, late: bool
    ) -> int:
        taken_bytes = 0
        while queue:
            event = queue[0]
            # Base64 of a chunk of bytes is a third longer; an event has a comma, and may get the mark `late`.
            size = len(event.data) * 4 // 3 + 3 if event.seq is None else len(event.data) + 14
            if (chosen or taken_bytes) and taken_bytes + size > limit_bytes:
                break
            queue.popleft()
            chosen.append((event, late))
            taken_bytes += size
        return taken_bytes

    def ack(self, message: OutgoingMessage) -> None:
        sending = self._in_flight
        if sending is None or message is not sending.message:
            return
        self._outbox.log(crash_records.acknowledged(self.channel, message.number))
        for event, _ in sending.events:
            self._release(event)
            self._remember_sent(event)
        self._in_flight = None
        self._accepted_s = self._clock.monotonic_s()
        live = (event.appended_s for event, late in sending.events if not late)
        self._accepted_age_s = self._accepted_s - min(live, default=self._accepted_s)
        self._outbox.counts.accepted(len(sending.events), self._accepted_s - sending.since_s)

    def _remember_sent(self, event: Event) -> None:
        if event.seq is None:
            return
        self._sent.append(event)
        self._sent_bytes += len(event.data)
        while self._sent_bytes > SENT_MAX_BYTES:
            self._sent_bytes -= len(self._sent.popleft().data)

    def replay(self, from_seq: int) -> int | None:
        """Queue again what was sent from this number on, as far as it is remembered.

        The first number that goes out again; None if there is none.
        """
        again = [event for event in self._sent if event.seq is not None and event.seq >= from_seq]
        for event in again:
            id_ = self._outbox.next_id()
            copy = replace(event, id=id_, kind=REPEATED, disk_state=DiskState.NOT_STORED)
            self._outbox.log(crash_records.added(self.channel, copy))
            self._outbox.add_used(copy.cost_bytes)
            self._add_memory(copy.cost_bytes)
            self._late.add(copy)
        self._ready.set()
        return again[0].seq if again else None

    @property
    def pending_bytes(self) -> int:
        return self._memory_bytes + self._late.spilled_bytes

    @property
    def memory_bytes(self) -> int:
        """That part of them which memory holds."""
        return self._memory_bytes

    @property
    def pending_events(self) -> int:
        return len(self._live) + len(self._late) + len(self.ids_in_flight())

    @property
    def oldest_ms(self) -> int:
        """When the oldest of them was measured, as far as memory knows; now, if none is there."""
        now_ms = self._clock.now_ms()
        return min((self.dated(event).at_ms for event in self._fronts()), default=now_ms)

    def _fronts(self) -> Iterator[Event]:
        """Each part of the queue is in order: the oldest is the first of one of them."""
        if self._in_flight is not None:
            yield from (event for event, _ in self._in_flight.events)
        for part in (self._late.head, self._late.tail, self._live):
            yield from islice(part, 1)

    @property
    def next_number(self) -> int:
        return self._number

    # -- overflow and loss ----------------------------------------

    def lose(self, losses: Iterable[Loss], gone: Sequence[Event] = (), changed: Sequence[Event] = ()) -> None:
        """These will not come: a `gap` for each as soon as something can be sent.

        `gone` are the events that this concerns, `changed` those that stand for them from now on. A byte
        stream has no words for a loss.
        """
        new = [] if self._format == "bytes" else list(losses)
        if not new and not gone:
            return
        boot = self._clock.boot
        self._outbox.log(*(crash_records.lost(self.channel, boot, (), (), [event]) for event in changed))
        self._outbox.log(crash_records.lost(self.channel, boot, new, gone, ()))
        if new:
            for loss in new:
                self._outbox.counts.lost[loss.reason] += loss.count or 0
            self._losses = merged([*self._losses, *new])
            self._losses_change()

    def _tell_losses(self) -> None:
        """Those of before the clock was set get their time now, if it is known."""
        if not self._losses:
            return
        losses, self._losses = self._losses, []
        self._losses_change()
        now_ms, offset_ms = self._clock.now_ms(), self._clock.offset_ms()
        for loss in losses:
            self._number_and_queue([loss.draft(now_ms, offset_ms)])
        # After them: a killed process may tell one twice, and none not at all.
        self._outbox.log(crash_records.told(self.channel))

    def _losses_change(self) -> None:
        self._losses_changed_s = min(self._losses_changed_s, self._clock.monotonic_s())
        self._ready.set()

    def losses_due(self, older_than_s: float) -> bool:
        """Whether the disk has not known since before this instant what is to be told."""
        return self._losses_changed_s < older_than_s

    def _losses_of(self, some: Sequence[Event], reason: str) -> list[Loss]:
        return losses_of(some, reason, self._clock.boot, self._clock.offset_ms())

    def free_memory(self, target_bytes: int) -> None:
        """Drop or thin by the overflow rule: the oldest of the backlog first, then the oldest live events."""
        if self.overflow == "thin" and self._thin_memory(target_bytes):
            return
        dropped: list[Event] = []
        size = 0
        for queue in (self._late.head, self._late.tail, self._live):
            while len(queue) > 1 and size < target_bytes:
                dropped.append(self._drop_oldest(queue))
                size += dropped[-1].cost_bytes
        if dropped:
            self.lose(self._losses_of(dropped, "overflow"), dropped)

    def _thin_memory(self, target_bytes: int) -> bool:
        self._move_late(self._clock.monotonic_s())
        queues = (self._late.head, self._late.tail, self._live)
        windows = (WIDER**n for n in range(1, 7))
        for queue, window in ((queue, window) for window in windows for queue in queues):
            # Those on disk, or on their way to it, are thinned there.
            old = [event for event in queue if event.disk_state is DiskState.NOT_STORED]
            new = thin([self.dated(event) for event in old], window)
            saved = cost_bytes(old) - cost_bytes(new)
            if saved < target_bytes // 2:
                continue
            rest = [event for event in queue if event.disk_state is not DiskState.NOT_STORED]
            queue.clear()
            queue.extend(sorted([*rest, *new], key=attrgetter("id")))
            self._add_memory(-saved)
            self._outbox.add_used(-saved)
            self._lose_others(old, new, "thinned")
            return True
        return False

    def _lose_others(
        self, old: Sequence[Event], new: Sequence[Event], reason: str
    ) -> tuple[list[Event], list[Event]]:
        """Fewer events have the places of these: which are gone, and which have other data."""
        before = {event.id: event.data for event in old}
        left = {event.id for event in new}
        gone = [event for event in old if event.id not in left]
        changed = [event for event in new if event.data != before[event.id]]
        self.lose(self._losses_of(gone, reason), gone, changed)
        return gone, changed

    def replace_spilled(self, old: Sequence[Event], new: Sequence[Event], reason: str) -> None:
        """Fewer events take the places of these, which are on disk alone; the next commit writes it."""
        gone, changed = self._lose_others(old, new, reason)
        for event in gone:
            self._outbox.delete_later(self.channel, event.id)
        self._outbox.replace_later(self.channel, changed)
        more_bytes = cost_bytes(new) - cost_bytes(old)
        self._late.replaced(len(gone), more_bytes)
        self._outbox.add_used(more_bytes)

    def _drop_oldest(self, queue: deque[Event]) -> Event:
        event = queue.popleft()
        self._add_memory(-event.cost_bytes)
        self._release(event)
        return event

    def _release(self, event: Event) -> None:
        self._outbox.add_used(-event.cost_bytes)
        if event.disk_state is not DiskState.NOT_STORED:
            self._outbox.delete_later(self.channel, event.id)

    def dated(self, event: Event) -> Event:
        """With its true time, if that is known."""
        return dated(event, self._clock.boot, self._clock.offset_ms())

    # -- disk ----------------------------------------

    @property
    def in_memory(self) -> list[Event]:
        """All events in memory: those in flight, then those that wait."""
        sending = self._in_flight.events if self._in_flight is not None else []
        return [*(event for event, _ in sending), *self._late.in_memory(), *self._live]

    @property
    def spilled_ids(self) -> tuple[int, int] | None:
        """The ids (exclusive) between which the events lie that are on disk only; None if there are none."""
        return self._late.spilled_ids

    def ids_in_flight(self) -> set[int]:
        """Ids of the events in flight: they may be on disk, but are in memory too."""
        return {event.id for event, _ in self._in_flight.events} if self._in_flight is not None else set()

    def take_row(self) -> ChannelRow:
        """The channel's row to be committed; from now on only a change makes another commit necessary."""
        self.row_changed, self._losses_changed_s = False, float("inf")
        return ChannelRow(
            self.channel,
            self.next_seq,
            self._number,
            self._seq_reserved,
            self._number_reserved,
            losses=json.dumps([loss.record() for loss in self._losses], separators=(",", ":")),
        )

    def to_store(self, older_than_s: float, *, due: bool) -> list[Event]:
        """Events that are on no disk and have waited since before this instant.

        `due`: there are such ones, here or on another channel. All others go with them where they would wait
        so long too, because nothing is accepted or not so soon: one commit for many. A `gap` goes to the disk
        at the latest when what it tells is not there any more as untold.
        """
        some = [event for event in self.in_memory if event.disk_state is DiskState.NOT_STORED]
        too_slow = self._clock.monotonic_s() - self._accepted_age_s < older_than_s
        if self.losses_due(float("inf")) or (due and (too_slow or self._accepted_s < older_than_s)):
            return some
        return [event for event in some if event.appended_s <= older_than_s]

    def unstored_since_s(self, now_s: float) -> float:
        """Since when the oldest event waits that is on no disk; `now_s` if there is none."""
        sending = self._in_flight.events if self._in_flight is not None else []
        parts = ((event for event, _ in sending), self._late.head, self._late.tail, self._live)
        of_parts = (
            next((event.appended_s for event in part if event.disk_state is DiskState.NOT_STORED), now_s)
            for part in parts
        )
        return min(of_parts)

    def in_flight_record(self, older_than_s: float = float("inf")) -> Record | None:
        """The crash log's record of the message in flight, if that has waited since before this instant."""
        sending = self._in_flight
        if sending is None or sending.since_s > older_than_s:
            return None
        return crash_records.in_flight(
            self.channel, sending.message, sending.events, sending.boot, sending.offset_ms
        )

    def spill(self) -> None:
        """Release the middle of the backlog from memory, where it is on disk."""
        self._move_late(self._clock.monotonic_s())
        if self._outbox.crowded and self._live and self._live[0].seq is not None:
            # In a flood what is young is late too: it would be dropped otherwise.
            while self._live and self._live[0].disk_state is DiskState.STORED:
                self._late.add(self._live.popleft())
        self._add_memory(-self._late.spill())

    def file_lost(self) -> None:
        """The outbox file was begun anew: what is in memory is to be written again."""
        self.row_changed = True
        for event in self.in_memory:
            event.disk_state = DiskState.NOT_STORED

    def restore_row(self, row: ChannelRow) -> None:
        """What the disk knew of losses: the crash log did not know this channel."""
        self.lose(losses_in(json.loads(row.losses), same_boot=False))

    def adopt(self, row: ChannelRow) -> None:
        """A disk that could not be read before is back, with these events."""
        self.row_changed = True
        self._late.adopt(row)
        self._ready.set()

    # -- restart ----------------------------------------

    def snapshot(self) -> list[Record]:
        """Records for a new crash log that, with the disk, restore this state."""
        records = [crash_records.numbers(self.channel, self.next_seq, self._number)]
        if self._losses:
            records.append(crash_records.lost(self.channel, self._clock.boot, self._losses, (), ()))
        some = [event for event in self.in_memory if event.disk_state is not DiskState.STORED]
        records += [crash_records.added(self.channel, event) for event in some]
        sending = self.in_flight_record()
        return [*records, sending] if sending is not None else records

    def skip_numbers(self, row: ChannelRow | None) -> None:
        """The last numbers used are not known: go on with ones that cannot have been, and tell the loss."""
        now_ms = self._clock.now_ms()
        far = max(now_ms, EARLIEST_TRUE_MS)
        first = row.next_seq if row is not None else None
        seq, number = (row.seq_reserved, row.number_reserved) if row is not None else (far, far)
        self.restore_numbers(seq, number)
        if first is None or first < seq:
            self.lose([Loss("power_cut", None, now_ms, now_ms, first, seq - 1)])

    def restore_numbers(self, next_seq: int, next_number: int) -> None:
        self.next_seq, self._number = max(self.next_seq, next_seq), max(self._number, next_number)

    def restore_losses(self, losses: list[Loss]) -> None:
        """What a killed process had not told yet."""
        self._losses = losses
        if losses:
            self._losses_change()

    def restore_events(self, some: list[Event]) -> None:
        """Events that only the crash log had: newer than all on disk."""
        if some and some[0].seq is None:
            self._live.extend(some)
        else:
            self._late.restore(some)
        size = cost_bytes(some)
        self._add_memory(size)
        self._outbox.add_used(size)
        self._ready.set()

    def restore_in_flight(
        self, number: int, ts_ms: int, some: list[tuple[Event, bool]], boot: str, offset_ms: int | None
    ) -> None:
        """The message that was in flight: the same number with the same content, its times included."""
        message = OutgoingMessage(number, encode(some, boot, offset_ms), ts_ms)
        self._in_flight = _InFlight(message, some, float("-inf"), boot, offset_ms)
        self._number = max(self._number, number + 1)
        stored = [event for event, _ in some if event.disk_state is DiskState.STORED]
        self._late.not_spilled(stored)
        self._outbox.add_used(cost_bytes(event for event, _ in some) - cost_bytes(stored))
        self._ready.set()

    def restore_stored(self, event: Event, changed: Event | None) -> Event:
        """An event on disk, as a killed process had `changed` it and perhaps not yet written it."""
        if changed is None or changed.data == event.data:
            return event
        changed.disk_state = DiskState.STORED
        self._outbox.replace_later(self.channel, [changed])
        more_bytes = changed.cost_bytes - event.cost_bytes
        self._late.replaced(0, more_bytes)
        self._outbox.add_used(more_bytes)
        return changed

    def restore_acknowledged(self, some: list[Event]) -> None:
        """Events on disk that were acknowledged before the process died."""
        self._late.not_spilled(some)
        for event in some:
            self._release(event)

    def delete_unread(self, ids: list[int]) -> None:
        """Acknowledged events on a disk that cannot be read now."""
        for id_ in ids:
            self._outbox.delete_later(self.channel, id_)

    # -- end ----------------------------------------

    def close(self) -> None:
        """Take nothing more; the writer empties what is left and ends."""
        self.closed = True
        self._ready.set()

    def discard(self) -> None:
        """Forget what is left: nobody will ever read it."""
        if self._filling is not None:
            self._filling.cancel()  # what it loads would be counted and never released
        self._outbox.add_used(-cost_bytes(self.in_memory) - self._late.spilled_bytes)
        self._live.clear()
        self._late.clear()
        self._add_memory(-self._memory_bytes)
        self._in_flight = None
        self.close()
