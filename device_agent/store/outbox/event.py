"""One outgoing event, in memory and on disk."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from device_agent.clock import undated
from device_agent.messages import events

# What an event costs in memory beyond its bytes: the object and its place in a queue.
OVERHEAD_BYTES = 120


class DiskState(Enum):
    """Whether the outbox file has an event that is also in memory."""

    NOT_STORED = "not stored"
    WRITING = "writing"
    STORED = "stored"


@dataclass(slots=True)
class Event:
    """`data` is the JSON text that goes out, or a chunk of a byte stream (then `seq` is None).

    `id` orders all events of the agent and is the key on disk. `appended_s`: when it was queued, monotonic;
    minus infinity for one of an earlier process, which is late by definition.
    """

    id: int
    data: bytes
    seq: int | None
    at_ms: int
    kind: str
    device: str
    appended_s: float
    disk_state: DiskState = DiskState.NOT_STORED

    @property
    def cost_bytes(self) -> int:
        return self.cost_of(len(self.data))

    @staticmethod
    def cost_of(data_bytes: int) -> int:
        """What an event of this size counts for."""
        return data_bytes + OVERHEAD_BYTES


def cost_bytes(some: Iterable[Event]) -> int:
    return sum(event.cost_bytes for event in some)


@dataclass(frozen=True, slots=True)
class EventRange:
    """What a `gap` reports: `count` events, with the first and last number and time (epoch ms).

    `rows` and `bytes` are what they took in the outbox. A lost `gap` is one row and counts for the events
    that it reported.
    """

    count: int
    rows: int = 0
    bytes: int = 0
    from_seq: int | None = None
    to_seq: int | None = None
    from_at: int = 0
    to_at: int = 0

    def dated(self, offset_ms: int | None) -> "EventRange":
        """With true times, for refused readings (they have no number) of before the clock was set."""
        if offset_ms is None or self.from_seq is not None or not undated(self.from_at):
            return self
        to_at = self.to_at + offset_ms if undated(self.to_at) else self.to_at
        return replace(self, from_at=self.from_at + offset_ms, to_at=to_at)


def encode(some: Sequence[tuple[Event, bool]], boot: str, offset_ms: int | None) -> tuple[bytes, ...]:
    """The bytes that go out, of pairs (event, late).

    `offset_ms` dates events from before the clock was set.
    """
    return tuple(_encoded(dated(event, boot, offset_ms), late) for event, late in some)


def _encoded(event: Event, late: bool) -> bytes:
    if not late or event.seq is None:
        return event.data
    return event.data[:-1] + events.LATE


def dated(event: Event, boot: str, offset_ms: int | None) -> Event:
    """With its true time, if the event was made before the clock was set and it is set now."""
    if offset_ms is None or event.seq is None or not undated(event.at_ms):
        return event
    data = events.dated(event.data, boot, offset_ms)
    return event if data is event.data else replace(event, data=data, at_ms=event.at_ms + offset_ms)


def range_of(some: Sequence[Event], boot: str, offset_ms: int | None) -> EventRange:
    """The range that these events (at least one) cover; a `gap` among them passes on what it reported."""
    now_dated = [dated(event, boot, offset_ms) for event in some]
    numbers = [event.seq for event in some if event.seq is not None]
    times = [event.at_ms for event in now_dated]
    count = 0
    for event in now_dated:
        gap = _members(event) if event.kind == "gap" else {}
        count += gap.get("count", 1)
        numbers += [gap[name] for name in ("from_seq", "to_seq") if gap.get(name) is not None]
        times += [gap[name] for name in ("from_at", "to_at") if name in gap]
    return EventRange(
        count=count,
        rows=len(some),
        bytes=cost_bytes(some),
        from_seq=min(numbers, default=None),
        to_seq=max(numbers, default=None),
        from_at=min(times),
        to_at=max(times),
    )


def _members(gap: Event) -> dict[str, Any]:
    members = json.loads(gap.data)
    return members if isinstance(members, dict) else {}
