"""Restores a channel's queue after its process was killed, from the outbox file and the crash log."""

from collections.abc import Awaitable, Callable, Container
from typing import Any

from device_agent.network import Format
from device_agent.store.outbox import crash_records
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.crash_records import Record
from device_agent.store.outbox.event import Event
from device_agent.store.outbox.loss import Loss, losses_in, merged

ReadById = Callable[[list[int]], Awaitable[dict[int, Event] | None]]
"""Events on disk with these ids; None if the disk failed."""


def format_of(records: list[Record]) -> Format:
    """The format of the stream whose crash records these are."""
    in_bytes = any(record[0] == crash_records.ADDED and record[4] is None for record in records)
    return "bytes" if in_bytes else "events"


class _State:
    """What a channel's crash records add up to, read in order."""

    def __init__(self, records: list[Record], boot: str) -> None:
        self.added: dict[int, Event] = {}
        self.changed: dict[int, Event] = {}
        self.in_flight: Record | None = None
        self.acknowledged: list[int] = []
        self.losses: list[Loss] = []
        self.next_seq = self.next_number = 0
        self._boot = boot
        for record in records:
            self._read(record)

    def _read(self, record: Record) -> None:
        kind = record[0]
        if kind == crash_records.ADDED:
            event = _event(record[2:])
            self.added[event.id] = event
            self._numbers(0 if event.seq is None else event.seq + 1, 0)
        elif kind == crash_records.IN_FLIGHT:
            self.in_flight = record
            self._numbers(0, record[2] + 1)
        elif kind == crash_records.ACKNOWLEDGED and self.in_flight and self.in_flight[2] == record[2]:
            self.acknowledged += [id_ for id_, *_ in self.in_flight[4]]
            self.in_flight = None
        elif kind == crash_records.STORED:
            for id_ in record[2]:
                self.added.pop(id_, None)
        elif kind == crash_records.DELETED:
            self.acknowledged.append(record[2])
        elif kind == crash_records.NUMBERS:
            self._numbers(record[2], record[3])
        elif kind == crash_records.LOST:
            _, _, boot, losses, gone, changed = record
            self.losses = merged([*self.losses, *losses_in(losses, same_boot=boot == self._boot)])
            self.acknowledged += gone
            self.changed |= {event.id: event for event in map(_event, changed)}
        elif kind == crash_records.TOLD:
            self.losses = []

    def _numbers(self, next_seq: int, next_number: int) -> None:
        self.next_seq, self.next_number = max(self.next_seq, next_seq), max(self.next_number, next_number)


def _event(members: list[Any]) -> Event:
    id_, data, seq, at_ms, kind, device = members
    return Event(id_, data, seq, at_ms, kind, device, float("-inf"))


async def restore(queue: ChannelQueue, records: list[Record], read_by_id: ReadById, boot: str) -> None:
    """Bring a new queue to the state that these records tell."""
    state = _State(records, boot)
    queue.restore_numbers(state.next_seq, state.next_number)
    queue.restore_losses(state.losses)
    in_flight = state.in_flight[4] if state.in_flight is not None else []
    stored = await read_by_id(
        [*state.acknowledged, *(id_ for id_, *_ in in_flight), *state.added, *state.changed]
    )
    fresh = {id_: state.changed.get(id_, event) for id_, event in state.added.items()}
    if stored is None:
        # The disk cannot be read now. What it has of these is deleted when it is back, and never sent again.
        queue.delete_unread([id_ for id_ in state.acknowledged if id_ not in fresh])
    for id_ in state.acknowledged:
        fresh.pop(id_, None)
    found = {
        id_: queue.restore_stored(event, state.changed.get(id_)) for id_, event in (stored or {}).items()
    }
    queue.restore_acknowledged([found[id_] for id_ in state.acknowledged if id_ in found])
    if state.in_flight is not None:
        known = {**fresh, **found}
        some = [(known[id_], bool(late)) for id_, late, *_ in in_flight if id_ in known]
        _, _, number, ts_ms, _, boot, offset_ms = state.in_flight
        queue.restore_in_flight(number, ts_ms, some, boot, offset_ms)
        for id_, *_ in in_flight:
            fresh.pop(id_, None)
        if stored is not None:
            queue.lose(_missing(in_flight, known))
    queue.restore_events([event for id_, event in sorted(fresh.items()) if id_ not in found])


def _missing(in_flight: list[Any], known: Container[int]) -> list[Loss]:
    numbers = [seq[0] if seq else None for id_, _, *seq in in_flight if id_ not in known]
    return merged(Loss("power_cut", 1, from_seq=seq, to_seq=seq) for seq in numbers)
