"""One event on its way out, in memory and on disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from device_agent.clock import undated
from device_agent.messages import events

# What an event costs in memory beyond its bytes: the object and its place in a queue.
OVERHEAD_BYTES = 120


class Kept(IntEnum):
    """Where an event is besides memory."""

    NOWHERE = 0
    UNDERWAY = 1
    ON_DISK = 2


@dataclass(slots=True)
class Event:
    """`data` is the JSON text that goes out, or a chunk of bytes (then `seq` is None).

    `id` orders all events of the agent; it is the key on disk.
    """

    id: int
    data: bytes
    seq: int | None
    at_ms: int
    kind: str
    device: str
    appended_s: float
    kept: Kept = Kept.NOWHERE

    @property
    def cost_bytes(self) -> int:
        return self.cost_of(len(self.data))

    @staticmethod
    def cost_of(data_bytes: int) -> int:
        """What an event of this size counts for."""
        return data_bytes + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Range:
    """Events that are no more: how many, in how many rows, which numbers, when."""

    count: int
    rows: int
    bytes: int
    from_seq: int | None
    to_seq: int | None
    from_at: int
    to_at: int

    def known(self, offset_ms: int | None) -> "Range":
        """With true times, where it was noted before the time was known: events that never had a number."""
        if offset_ms is None or self.from_seq is not None or not undated(self.from_at):
            return self
        to_at = self.to_at + offset_ms if undated(self.to_at) else self.to_at
        return replace(self, from_at=self.from_at + offset_ms, to_at=to_at)


NOTHING = Range(0, 0, 0, None, None, 0, 0)


def items(some: Sequence[tuple[Event, bool]], boot: str, offset_ms: int | None) -> tuple[bytes, ...]:
    """The very bytes that go out, of events that are late or not; `offset_ms` dates what has no time."""
    return tuple(_item(dated(event, boot, offset_ms), late) for event, late in some)


def _item(event: Event, late: bool) -> bytes:
    if not late or event.seq is None:
        return event.data
    return event.data[:-1] + events.LATE


def dated(event: Event, boot: str, offset_ms: int | None) -> Event:
    """With the true time, if it was made before that was known and it is known now."""
    if offset_ms is None or event.seq is None or not undated(event.at_ms):
        return event
    data = events.dated(event.data, boot, offset_ms)
    return event if data is event.data else replace(event, data=data, at_ms=event.at_ms + offset_ms)


def range_of(some: list[Event], boot: str, offset_ms: int | None) -> Range:
    """What these events amount to; a `gap` among them hands on what it was to say."""
    now_dated = [dated(event, boot, offset_ms) for event in some]
    numbers = [event.seq for event in some if event.seq is not None]
    times = [event.at_ms for event in now_dated]
    count = 0
    for event in now_dated:
        said = _said(event) if event.kind == "gap" else {}
        count += said.get("count", 1)
        numbers += [said[name] for name in ("from_seq", "to_seq") if said.get(name) is not None]
        times += [said[name] for name in ("from_at", "to_at") if name in said]
    return Range(
        count=count,
        rows=len(some),
        bytes=sum(event.cost_bytes for event in some),
        from_seq=min(numbers, default=None),
        to_seq=max(numbers, default=None),
        from_at=min(times),
        to_at=max(times),
    )


def _said(gap: Event) -> dict[str, Any]:
    said = json.loads(gap.data)
    return said if isinstance(said, dict) else {}
