"""The outbox's records in the crash log: lists of a kind, the channel, and what the kind needs.

Together with the outbox file they tell a new process where the killed one was (`restore.py`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from device_agent.network import OutgoingMessage
from device_agent.store.outbox.event import Event
from device_agent.store.outbox.loss import Loss

Record = list[Any]

ADDED = "a"
IN_FLIGHT = "c"
ACKNOWLEDGED = "k"
STORED = "s"
DELETED = "g"
NUMBERS = "n"
LOST = "x"
TOLD = "t"


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
    ids = [[event.id, late, event.seq] for event, late in some]
    return [IN_FLIGHT, channel, message.number, message.ts_ms, ids, boot, offset_ms]


def acknowledged(channel: str, number: int) -> Record:
    """The message in flight was accepted."""
    return [ACKNOWLEDGED, channel, number]


def stored(channel: str, ids: Iterable[int]) -> Record:
    """These events are on the disk from now on."""
    return [STORED, channel, list(ids)]


def deleted(channel: str, id_: int) -> Record:
    """An event was sent or dropped, and is still on disk."""
    return [DELETED, channel, id_]


def numbers(channel: str, next_seq: int, next_number: int) -> Record:
    """The numbers that the next event and the next message get."""
    return [NUMBERS, channel, next_seq, next_number]


def lost(
    channel: str, boot: str, losses: Iterable[Loss], gone: Iterable[Event], changed: Iterable[Event]
) -> Record:
    """These losses are to be told, these events are gone, and these have other data under their ids.

    One record, so that no crash comes between.
    """
    others = [added(channel, event)[2:] for event in changed]
    return [LOST, channel, boot, [loss.record() for loss in losses], [event.id for event in gone], others]


def told(channel: str) -> Record:
    """All losses before this are told by the `gap` events before it."""
    return [TOLD, channel]
