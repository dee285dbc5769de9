"""One outgoing event, in memory and on disk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from device_agent.clock import undated
from device_agent.messages import events

# What an event costs in memory beyond its bytes: the object and its place in a queue.
OVERHEAD_BYTES = 120
# The kind of an event that was sent before and goes out again: its own is of no interest, and it is no loss.
REPEATED = "repeated"


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
        return len(self.data) + OVERHEAD_BYTES

    @staticmethod
    def cost_of(data_bytes: int) -> int:
        """What an event of this size counts for."""
        return data_bytes + OVERHEAD_BYTES


def cost_bytes(some: Iterable[Event]) -> int:
    return sum(event.cost_bytes for event in some)


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
