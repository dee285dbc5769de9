"""Stream messages (docs/protocol.md): building and splitting them, and reading them back in order.

Pure: no clock of its own, no network.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from device_agent.errors import ProtocolFault
from device_agent.network import FIRST_NUMBER, Format, Inbound, OutgoingMessage
from device_agent.network.blocks.wire import PROTOCOL_VERSION
from device_agent.records import is_whole

# A larger message is split into parts; a part is base64 of this many raw bytes, and 512 bytes of envelope.
MESSAGE_MAX_BYTES = 16_384
PART_RAW_BYTES = (MESSAGE_MAX_BYTES - 512) * 3 // 4
# The network caches 100 messages for a reader; one group must stay well below, and far below 64 groups.
PARTS_MAX = 16
ENVELOPE_BYTES = 400
GROUP_AGE_MAX_S = 30.0
GROUPS_MAX = 16
GROUP_MAX_BYTES = 2_000_000
REORDER_WAIT_S = 0.75
REORDER_MAX = 256


def items_limit_bytes(parts: int) -> int:
    """How many bytes of items fit in a message of so many parts."""
    if parts <= 1:
        return MESSAGE_MAX_BYTES - ENVELOPE_BYTES
    return parts * PART_RAW_BYTES - ENVELOPE_BYTES


def encode(stream_id: str, format_: Format, message: OutgoingMessage) -> list[bytes]:
    """The JSON texts of one message: one text, or the parts of a group, which share its number."""
    if format_ == "events":
        body = b'"encoding":"utf8","events":[' + b",".join(message.items) + b"]"
        kind = "stream_events"
    else:
        chunks = b",".join(b'"' + base64.b64encode(item) + b'"' for item in message.items)
        body = b'"encoding":"base64","chunks":[' + chunks + b"]"
        kind = "stream_data"
    head = (
        f'{{"type":"{kind}","protocolVersion":"{PROTOCOL_VERSION}","streamId":"{stream_id}",'
        f'"seq":{message.number},"ts":{message.ts_ms},'
    ).encode()
    whole = head + body + b"}"
    if len(whole) <= MESSAGE_MAX_BYTES:
        return [whole]
    total = -(-len(whole) // PART_RAW_BYTES)
    group = f'"multipart":{{"id":"mp-{message.ts_ms}-{message.number}","part":'.encode()
    return [
        head
        + group
        + f'{index + 1},"total":{total}}},"data":"'.encode()
        + base64.b64encode(whole[index * PART_RAW_BYTES : (index + 1) * PART_RAW_BYTES])
        + b'"}'
        for index in range(total)
    ]


def end_of_stream(stream_id: str, number: int, ts_ms: int) -> bytes:
    """`stream_end`; its number is one more than the last message's."""
    return (
        f'{{"type":"stream_end","protocolVersion":"{PROTOCOL_VERSION}","streamId":"{stream_id}",'
        f'"seq":{number},"ts":{ts_ms}}}'
    ).encode()


def stream_meta(sender: str) -> dict[str, str]:
    return {"sender": sender, "protocolVersion": PROTOCOL_VERSION}


# --- reading -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _MultipartGroup:
    kind: str
    number: int
    total: int
    begun_s: float
    parts: dict[int, bytes] = field(default_factory=dict)
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Message:
    kind: str
    number: int
    sent_ms: float
    sender: str
    body: dict[str, Any]


class StreamReader:
    """Puts the messages of a stream in order. Duplicates are dropped; a gap is waited for, 750 ms at most.

    A caller may restart or be one of several, so each sender has an order of its own.
    """

    def __init__(self, stream_id: str, format_: Format) -> None:
        self._stream_id = stream_id
        self._format = format_
        self._orders: dict[str, _Order] = {}
        self._groups: dict[tuple[str, str], _MultipartGroup] = {}

    def feed(self, payload: Any, sent_ms: float, sender: str, now_s: float) -> list[Inbound]:
        """The items that are complete with this delivery, in order. Raises ProtocolFault on a bad form."""
        message = self._parse(payload, sent_ms, sender, now_s)
        if message is None:
            return []
        order = self._orders.get(sender)
        if order is None:
            if len(self._orders) >= REORDER_MAX:
                self._orders.pop(next(iter(self._orders)))
            order = self._orders[sender] = _Order(FIRST_NUMBER[self._format])
        return [item for ready in order.put(message, now_s) for item in self._items(ready)]

    def timed_out(self, now_s: float) -> list[Inbound]:
        """The items behind a gap that was waited for long enough."""
        for key, group in list(self._groups.items()):
            if now_s - group.begun_s > GROUP_AGE_MAX_S:
                del self._groups[key]
        return [
            item
            for order in self._orders.values()
            for ready in order.skip(now_s)
            for item in self._items(ready)
        ]

    @property
    def waiting(self) -> bool:
        """Whether something waits for a gap, so that `timed_out` should be called soon."""
        return any(order.held for order in self._orders.values())

    def _parse(self, payload: Any, sent_ms: float, sender: str, now_s: float) -> _Message | None:
        if not isinstance(payload, dict):
            raise ProtocolFault("stream message is not an object")
        kind, number = payload.get("type"), payload.get("seq")
        if (
            kind not in ("stream_events", "stream_data", "stream_end")
            or payload.get("streamId") != self._stream_id
        ):
            raise ProtocolFault(
                f"stream message of type {str(kind)[:40]!r} for another stream or of no known type"
            )
        if not is_whole(number) or number < 0:
            raise ProtocolFault("stream message without a number in seq")
        if "multipart" in payload:
            whole = self._join(payload, kind, number, sender, now_s)
            if whole is None:
                return None
            payload = whole
        return _Message(kind, number, sent_ms, sender, payload)

    def _join(
        self, payload: dict[str, Any], kind: str, number: int, sender: str, now_s: float
    ) -> dict[str, Any] | None:
        part = payload["multipart"]
        try:
            identity, index, total = str(part["id"])[:100], int(part["part"]), int(part["total"])
            data = base64.b64decode(payload["data"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise ProtocolFault("stream message has a multipart member of a bad form") from None
        if not 2 <= total <= 200 or not 1 <= index <= total:
            raise ProtocolFault(f"multipart part {index} of {total} is out of range")
        key = (sender, identity)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= GROUPS_MAX:
                self._groups.pop(next(iter(self._groups)))
            group = self._groups[key] = _MultipartGroup(kind, number, total, now_s)
        known = group.parts.get(index)
        if (group.kind, group.number, group.total) != (kind, number, total) or known not in (None, data):
            del self._groups[key]
            raise ProtocolFault(f"multipart group {identity!r} contradicts itself")
        if known is None:
            group.parts[index] = data
            group.size_bytes += len(data)
        if group.size_bytes > GROUP_MAX_BYTES:
            del self._groups[key]
            raise ProtocolFault(f"multipart group {identity!r} is larger than {GROUP_MAX_BYTES} bytes")
        if len(group.parts) < total:
            return None
        del self._groups[key]
        try:
            whole = json.loads(b"".join(group.parts[i] for i in range(1, total + 1)))
        except (ValueError, RecursionError):
            raise ProtocolFault(f"multipart group {identity!r} is not JSON") from None
        if not isinstance(whole, dict):
            raise ProtocolFault(f"multipart group {identity!r} is not an object")
        return whole

    def _items(self, message: _Message) -> Iterator[Inbound]:
        """The items of one message; those of a bad form are left out."""
        if message.kind == "stream_end":
            return
        member = "events" if message.kind == "stream_events" else "chunks"
        items = message.body.get(member)
        if not isinstance(items, list) or (self._format == "bytes") != (member == "chunks"):
            return
        for item in items:
            value = item if member == "events" else self._chunk(item, message.body.get("encoding"))
            if value is not None or member == "events":
                yield Inbound(value, message.sent_ms, message.sender)

    def _chunk(self, item: Any, encoding: Any) -> bytes | None:
        if not isinstance(item, str):
            return None
        if encoding != "base64":
            return item.encode()
        try:
            return base64.b64decode(item, validate=True)
        except (ValueError, binascii.Error):
            return None


class _Order:
    """The order of one sender's messages."""

    def __init__(self, first: int) -> None:
        self.expected = first
        self.held: dict[int, _Message] = {}
        self._gap_s = 0.0

    def put(self, message: _Message, now_s: float) -> list[_Message]:
        if message.number < self.expected or message.number in self.held:
            return []
        if not self.held and message.number > self.expected:
            self._gap_s = now_s
        self.held[message.number] = message
        if len(self.held) > REORDER_MAX:
            self.expected = min(self.held)
        return self._release(now_s)

    def skip(self, now_s: float) -> list[_Message]:
        if not self.held or now_s - self._gap_s < REORDER_WAIT_S:
            return []
        self.expected = min(self.held)
        return self._release(now_s)

    def _release(self, now_s: float) -> list[_Message]:
        ready = []
        while (message := self.held.pop(self.expected, None)) is not None:
            ready.append(message)
            self.expected += 1
        if ready and self.held:
            self._gap_s = now_s
        return ready
