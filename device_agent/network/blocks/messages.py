"""Stream messages (docs/protocol.md): building and splitting them, and reading them back.

Pure: no clock of its own, no network.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from device_agent.errors import ProtocolFault
from device_agent.network import FIRST_NUMBER, Format, Inbound, OutgoingMessage
from device_agent.network.blocks.long_poll import MEMBERS_MAX, members
from device_agent.network.blocks.wire import PROTOCOL_VERSION
from device_agent.records import is_whole

# A larger message is split into parts; a part is base64 of this many raw bytes, and 512 bytes of envelope.
MESSAGE_MAX_BYTES = 16_384
PART_RAW_BYTES = (MESSAGE_MAX_BYTES - 512) * 3 // 4
# So many come within a reader's patience for a group (`GROUP_AGE_MAX_S`) on a link that has just become slow;
# the network caches 100 messages for a reader.
PARTS_MAX = 4
ENVELOPE_BYTES = 400
GROUP_AGE_MAX_S = 30.0
GROUPS_MAX = 16
# The largest command is well below; bytes are passed on without being looked at.
GROUP_MAX_BYTES: dict[Format, int] = {"events": 300_000, "bytes": 2_000_000}
# The official writer bundles 4096 bytes: some 70 of the smallest commands.
ITEMS_MAX = 256
# The network delivers again what it caches, 100 messages; a writer repeats its newest.
SEEN_MAX = 1000


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


def without_items(stream_id: str, format_: Format, ts_ms: int) -> bytes:
    """A message that readers drop: it has no items, and a number below the first."""
    return encode(stream_id, format_, OutgoingMessage(FIRST_NUMBER[format_] - 1, (), ts_ms))[0]


def stream_meta(sender: str) -> dict[str, str]:
    return {"sender": sender, "protocolVersion": PROTOCOL_VERSION}


# --- reading -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _MultipartGroup:
    begun_s: float
    parts: dict[int, bytes] = field(default_factory=dict)


class StreamReader:
    """Puts messages together from their parts, in the network's order, and drops what is delivered twice.

    Numbers are not looked at: a caller's program begins anew at each connect, several share one stream, and a
    sender's name proves nothing. A message is known again by its whole content, which has its time stamp.
    """

    def __init__(self, stream_id: str, format_: Format) -> None:
        self._stream_id = stream_id
        self._format = format_
        self._group_max_bytes = GROUP_MAX_BYTES[format_]
        self._groups: dict[tuple[Any, ...], _MultipartGroup] = {}
        self._seen: dict[bytes, None] = {}

    def feed(self, payload: Any, sent_ms: float, sender: str, now_s: float) -> list[Inbound]:
        """The items that are complete with this delivery, in order. Raises ProtocolFault on a bad form."""
        whole = self._parse(payload, sender, now_s)
        if whole is None or self._is_known(whole, sender):
            return []
        return [Inbound(item, sent_ms, sender) for item in self._items(whole)]

    def _is_known(self, message: dict[str, Any], sender: str) -> bool:
        text = json.dumps([sender, message]).encode()
        digest = hashlib.blake2b(text, digest_size=16).digest()
        known = digest in self._seen
        self._seen[digest] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.pop(next(iter(self._seen)))
        return known

    def _parse(self, payload: Any, sender: str, now_s: float) -> dict[str, Any] | None:
        """The whole message; None while parts of it are missing."""
        if not isinstance(payload, dict):
            raise ProtocolFault("stream message is not a JSON object that can be read")
        kind = payload.get("type")
        known = isinstance(kind, str) and kind in ("stream_events", "stream_data", "stream_end")
        if not known or payload.get("streamId") != self._stream_id:
            raise ProtocolFault(
                f"stream message of type {ascii(kind)[:40]} for another stream or of no known type"
            )
        return self._join(payload, sender, now_s) if "multipart" in payload else payload

    def _join(self, payload: dict[str, Any], sender: str, now_s: float) -> dict[str, Any] | None:
        part = payload["multipart"]
        try:
            identity, index, total = str(part["id"])[:100], part["part"], part["total"]
            data = base64.b64decode(payload["data"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise ProtocolFault("stream message has a multipart member of a bad form") from None
        if not (is_whole(index) and is_whole(total) and 2 <= total <= 200 and 1 <= index <= total):
            raise ProtocolFault("multipart part is out of range")
        for old in [key for key, group in self._groups.items() if now_s - group.begun_s > GROUP_AGE_MAX_S]:
            del self._groups[old]
        # Parts that contradict a group, perhaps somebody else's under the same name, begin one of their own.
        key = (sender, identity, str(payload.get("type")), str(payload.get("seq"))[:40], total)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= GROUPS_MAX:
                self._groups.pop(next(iter(self._groups)))
            group = self._groups[key] = _MultipartGroup(now_s)
        if group.parts.setdefault(index, data) != data:
            raise ProtocolFault(f"multipart group {identity!a} has two parts {index}: the first counts")
        if sum(map(len, group.parts.values())) > self._group_max_bytes:
            del self._groups[key]
            raise ProtocolFault(f"multipart group {identity!a} is larger than {self._group_max_bytes} bytes")
        if len(group.parts) < total:
            return None
        del self._groups[key]
        text = b"".join(group.parts[i] for i in range(1, int(total) + 1))
        if members(text) > MEMBERS_MAX:
            raise ProtocolFault(f"multipart group {identity!a} has more than {MEMBERS_MAX} members")
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            raise ProtocolFault(f"multipart group {identity!a} is not JSON that can be read") from None
        if not isinstance(whole, dict):
            raise ProtocolFault(f"multipart group {identity!a} is not an object")
        return whole

    def _items(self, message: dict[str, Any]) -> Iterator[Any]:
        """The items of one message; chunks of a bad form are left out. Raises ProtocolFault."""
        if message.get("type") == "stream_end":
            return
        member = "chunks" if self._format == "bytes" else "events"
        items = message.get(member, [])
        if not isinstance(items, list):
            raise ProtocolFault(f"{member} is not a list")
        if len(items) > ITEMS_MAX:
            raise ProtocolFault(f"a message has at most {ITEMS_MAX} {member}, not {len(items)}")
        for item in items:
            value = item if member == "events" else self._chunk(item, message.get("encoding"))
            if value is not None or member == "events":
                yield value

    def _chunk(self, item: Any, encoding: Any) -> bytes | None:
        if not isinstance(item, str):
            return None
        if encoding != "base64":
            return item.encode(errors="replace")
        try:
            return base64.b64decode(item, validate=True)
        except (ValueError, binascii.Error):
            return None
