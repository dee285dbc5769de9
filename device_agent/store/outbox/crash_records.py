"""The outbox's records in the crash log: lists of a kind, the channel, and what the kind needs.

Together with the outbox file they tell a new process where the killed one was (`restore.py`).
"""

from collections.abc import Sequence
from typing import Any

from device_agent.network import OutgoingMessage
from device_agent.store.outbox.event import Event, EventRange

Record = list[Any]

ADDED = "a"
IN_FLIGHT = "c"
ACKNOWLEDGED = "k"
DELETED = "g"
NUMBERS = "n"
REFUSED = "l"


def added(channel: str, event: Event) -> Record:
    """An event was queued."""
    return [ADDED, channel, event.id, event.data, event.seq, event.at_ms, event.kind, event.device]


def in_flight(
    channel: str,
    message: OutgoingMessage,
    some: Sequence[tuple[Event, bool]],
    boot: str,
    offset_ms: int | None,
) -> Record:
    """A message was made of these (event, late), dated with this offset."""
    ids = [[event.id, late] for event, late in some]
    return [IN_FLIGHT, channel, message.number, message.ts_ms, ids, boot, offset_ms]


def acknowledged(channel: str, number: int) -> Record:
    """The message in flight was accepted."""
    return [ACKNOWLEDGED, channel, number]


def deleted(channel: str, id_: int) -> Record:
    """An event was sent or dropped, and is still on disk."""
    return [DELETED, channel, id_]


def numbers(channel: str, next_seq: int, next_number: int) -> Record:
    """The numbers that the next event and the next message get."""
    return [NUMBERS, channel, next_seq, next_number]


def refused(channel: str, lost: EventRange) -> Record:
    """Readings were refused, and no `gap` has reported them yet."""
    return [REFUSED, channel, lost.count, lost.from_at, lost.to_at]
