"""Restores a channel's queue after its process was killed, from the outbox file and the crash log."""

from collections.abc import Awaitable, Callable

from device_agent.network import Format
from device_agent.store.outbox import crash_records
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.crash_records import Record
from device_agent.store.outbox.event import Event, EventRange

ReadById = Callable[[list[int]], Awaitable[dict[int, Event] | None]]
"""Events on disk with these ids; None if the disk failed."""


def format_of(records: list[Record]) -> Format:
    """The format of the stream whose crash records these are."""
    in_bytes = any(record[0] == crash_records.ADDED and record[4] is None for record in records)
    return "bytes" if in_bytes else "events"


class _State:
    """What a channel's crash records add up to, read in order."""

    def __init__(self, records: list[Record]) -> None:
        self.added: dict[int, Event] = {}
        self.in_flight: Record | None = None
        self.acknowledged: list[int] = []
        self.refused: EventRange | None = None
        self.next_seq = self.next_number = 0
        for record in records:
            self._read(record)

    def _read(self, record: Record) -> None:
        kind = record[0]
        if kind == crash_records.ADDED:
            _, _, id_, data, seq, at_ms, event_kind, device = record
            self.added[id_] = Event(id_, data, seq, at_ms, event_kind, device, float("-inf"))
            self._numbers(0 if seq is None else seq + 1, 0)
            # The first event after refused readings is the gap that reports them.
            self.refused = None
        elif kind == crash_records.IN_FLIGHT:
            self.in_flight = record
            self._numbers(0, record[2] + 1)
        elif kind == crash_records.ACKNOWLEDGED and self.in_flight and self.in_flight[2] == record[2]:
            self.acknowledged += [id_ for id_, _ in self.in_flight[4]]
            self.in_flight = None
        elif kind == crash_records.DELETED:
            self.acknowledged.append(record[2])
        elif kind == crash_records.NUMBERS:
            self._numbers(record[2], record[3])
        elif kind == crash_records.REFUSED:
            _, _, count, from_at, to_at = record
            if self.refused is not None:
                count, from_at = count + self.refused.count, self.refused.from_at
            self.refused = EventRange(count, from_at=from_at, to_at=to_at)

    def _numbers(self, next_seq: int, next_number: int) -> None:
        self.next_seq, self.next_number = max(self.next_seq, next_seq), max(self.next_number, next_number)


async def restore(queue: ChannelQueue, records: list[Record], read_by_id: ReadById) -> None:
    """Bring a new queue to the state that these records tell."""
    state = _State(records)
    queue.restore_numbers(state.next_seq, state.next_number)
    in_flight = state.in_flight[4] if state.in_flight is not None else []
    stored = await read_by_id([*state.acknowledged, *(id_ for id_, _ in in_flight), *state.added])
    fresh = dict(state.added)
    if stored is None:
        # The disk cannot be read now. What it has of these is deleted when it is back, and never sent again.
        queue.delete_unread([id_ for id_ in state.acknowledged if id_ not in fresh])
    for id_ in state.acknowledged:
        fresh.pop(id_, None)
    found = stored or {}
    queue.restore_acknowledged([found[id_] for id_ in state.acknowledged if id_ in found])
    if state.in_flight is not None:
        known = {**fresh, **found}
        some = [(known[id_], bool(late)) for id_, late in in_flight if id_ in known]
        _, _, number, ts_ms, _, boot, offset_ms = state.in_flight
        queue.restore_in_flight(number, ts_ms, some, boot, offset_ms)
        for id_, _ in in_flight:
            fresh.pop(id_, None)
        if len(some) < len(in_flight) and stored is not None:
            queue.report_lost(EventRange(len(in_flight) - len(some)), "power_cut")
    queue.restore_events([event for id_, event in sorted(fresh.items()) if id_ not in found])
    if state.refused is not None:
        queue.refuse(state.refused)
