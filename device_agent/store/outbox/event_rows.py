"""Rows of the outbox file's table `event`: one event each, or a pack of those that one commit stores.

A pack is one compressed row instead of many, because a card is written by the page. A row's key is the id of
its last event, and the rows of a channel do not overlap.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgpack

from device_agent.store.outbox.event import DiskState, Event

Row = tuple[Any, ...]
COLUMNS = "id, channel, data, seq, at_ms, kind, device, crc"
# A damaged pack costs all its events, so that they are not too many.
PACK_EVENTS = 64
PACK_BYTES = 16_000
PACKED = "packed"
DAMAGED = "damaged"
# What begins a pack's data, before a checksum of its own: how many events, the size of their data, the number
# of the first (-1 where they are not adjacent), the first and the last time.
_HEAD = struct.Struct("<HIqqq")
_HEAD_BYTES = _HEAD.size + 4


def rows_of(channel: str, some: Iterable[Event]) -> list[Row]:
    """Rows for events in the order of their ids."""
    return [_row(channel, pack[0] if len(pack) == 1 else _packed(pack)) for pack in _packs(some)]


def _packs(some: Iterable[Event]) -> Iterator[list[Event]]:
    pack: list[Event] = []
    size = 0
    for event in some:
        size += len(event.data)
        if pack and (len(pack) == PACK_EVENTS or size > PACK_BYTES):
            yield pack
            pack, size = [], len(event.data)
        pack.append(event)
    if pack:
        yield pack


def _packed(some: Sequence[Event]) -> Event:
    first, last = some[0], some[-1]
    adjacent = first.seq is not None and [e.seq for e in some] == [first.seq + n for n in range(len(some))]
    head = _HEAD.pack(
        len(some), sum(len(e.data) for e in some), first.seq if adjacent else -1, first.at_ms, last.at_ms
    )
    members = [(e.id, e.data, e.seq, e.at_ms, e.kind, e.device) for e in some]
    data = head + zlib.crc32(head).to_bytes(4, "little") + zlib.compress(msgpack.packb(members), 1)
    return Event(last.id, data, None, first.at_ms, PACKED, "", 0.0)


def _row(channel: str, event: Event) -> Row:
    crc = _checksum(channel, event)
    return event.id, channel, event.data, event.seq, event.at_ms, event.kind, event.device, crc


def _checksum(channel: str, event: Event) -> int:
    """Over all columns of a row, without a pack's head: to a version before packs they are damaged events."""
    rest = f"{event.id} {channel} {event.seq} {event.at_ms} {event.kind} {event.device}"
    data = event.data[_HEAD_BYTES:] if event.kind == PACKED else event.data
    return zlib.crc32(data, zlib.crc32(rest.encode()))


def events_of(row: Row) -> list[Event] | None:
    """The events of a row, in order; None where a bit of it has changed."""
    id_, channel, data, seq, at_ms, kind, device, crc = row
    if not isinstance(data, bytes):
        return None
    event = Event(id_, data, seq, at_ms, kind, device, 0.0, DiskState.STORED)
    if _checksum(str(channel), event) != crc:
        return None
    if kind != PACKED:
        return [event]
    members: list[list[Any]] = msgpack.unpackb(zlib.decompress(data[_HEAD_BYTES:]))
    return [
        Event(id_, data, seq, at_ms, kind, device, 0.0, DiskState.STORED)
        for id_, data, seq, at_ms, kind, device in members
    ]


def damaged_events(row: Row) -> list[Event]:
    """What a damaged row had, all with its key, which is right; a number only where it is beyond doubt."""
    id_, _, data, seq, at_ms, *_ = row
    data = data if isinstance(data, bytes) else str(data).encode()
    head, checksum = data[: _HEAD.size], data[_HEAD.size : _HEAD_BYTES]
    if len(checksum) == 4 and zlib.crc32(head).to_bytes(4, "little") == checksum:
        count, size, first, from_ms, to_ms = _HEAD.unpack(head)
        seqs: Sequence[int | None] = range(first, first + count) if first >= 0 else [None] * count
        sizes = [size // count + size % count] + [size // count] * (count - 1)
        times = [from_ms] * (count - 1) + [to_ms]
    else:
        # It counts if both places have it.
        seqs = [seq if isinstance(seq, int) and b'"seq":%d,' % seq in data else None]
        sizes, times = [len(data)], [at_ms if isinstance(at_ms, int) else 0]
    return [
        Event(id_, bytes(size), seq, at_ms, DAMAGED, "", 0.0, DiskState.STORED)
        for size, seq, at_ms in zip(sizes, seqs, times, strict=True)
    ]
