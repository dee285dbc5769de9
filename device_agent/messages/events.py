"""The events that callers get (docs/events.md), as the bytes that go out.

An event is encoded once for all streams; each puts its own number in the middle (`EventDraft.numbered`).
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from device_agent.clock import undated
from device_agent.messages.acks import Ack
from device_agent.records import Reading, Status, Value

LATE = b',"late":true}'
UNSET = b',"clock":"unset"'
# The members of an event that hold an instant.
INSTANTS = ("at", "from_at", "to_at")


class EventDraft(NamedTuple):
    """An event without its number. `device` is empty where it concerns none."""

    head: bytes
    tail: bytes
    kind: str
    at_ms: int
    device: str = ""

    def numbered(self, seq: int) -> bytes:
        return b'%s"seq":%d%s' % (self.head, seq, self.tail)

    def undated(self, boot: str) -> "EventDraft":
        """Marked as made while the time was not known. A reading brings its marks along."""
        if self.kind == "reading":
            return self
        # About a session it is known already.
        known = self.kind == "control" and b'"boot":' in self.tail
        mark = b"" if known else b',"boot":' + encode(boot)
        return self._replace(tail=self.tail[:-1] + mark + UNSET + b"}")


def renumbered(data: bytes, seq: int, now: int) -> bytes:
    """The bytes of an event with another number; nothing before it can look like one."""
    return data.replace(b'"seq":%d' % seq, b'"seq":%d' % now, 1)


# `json.dumps` would make an encoder for each event; what events hold is flat, so no circle is looked for.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False)
try:
    # What `_ENCODER.encode` makes anew for each event, which is half of its time. Not documented.
    in_c: Any = json.encoder
    _parts = in_c.c_make_encoder(
        None, _ENCODER.default, in_c.encode_basestring, None, ":", ",", False, False, False
    )
except (AttributeError, TypeError):  # this Python has none, or one with other arguments
    _parts = _ENCODER.iterencode


def encode(value: Any) -> bytes:
    """Compact JSON; refuses NaN and infinity, which no JSON reader need accept."""
    return "".join(_parts(value, True)).encode()


@lru_cache(maxsize=1024)
def _reading_of(device: str, boot: str) -> bytes:
    """What the readings of a device have in common: encoded once, not for each."""
    return b',"device":%s,"boot":%s,"values":' % (encode(device), encode(boot))


def _draft(kind: str, at_ms: int, members: Mapping[str, Any], device: str = "") -> EventDraft:
    head = b'{"kind":"%s","at":%d,' % (kind.encode(), at_ms)
    body = encode(members)[1:] if members else b"}"
    return EventDraft(head, (b"," if members else b"") + body, kind, at_ms, device)


def reading(item: Reading, boot: str) -> EventDraft:
    """One reading; `clock` and `flags` only where they are not as usual."""
    tail = _reading_of(item.device, boot) + encode(item.values)
    if not item.clock_set:
        tail += UNSET
    if item.flags:
        tail += b',"flags":' + encode(item.flags)
    return EventDraft(
        b'{"kind":"reading","at":%d,' % item.at_ms, tail + b"}", "reading", item.at_ms, item.device
    )


def thinned(
    device: str,
    boot: str,
    at_ms: int,
    values: Mapping[str, Value],
    summary: Mapping[str, Any],
    flags: Mapping[str, str] | None = None,
) -> EventDraft:
    """One event that stands for several readings: means in `values`, the spread in `thinned`."""
    members = {"device": device, "boot": boot, "values": values, "thinned": summary}
    if undated(at_ms):
        members["clock"] = "unset"
    if flags:
        members["flags"] = flags
    return _draft("reading", at_ms, members, device)


def dated(data: bytes, boot: str, offset_ms: int) -> bytes:
    """The bytes of an event that was made before the time was known, with the true time; unchanged where it
    has one, or where it comes of another start of the machine, whose time nobody will ever know."""
    if UNSET not in data:
        return data
    event = json.loads(data)
    if event.get("clock") != "unset" or event.get("boot") != boot:
        return data
    del event["clock"]
    if event["kind"] != "reading" and event.get("about") != "session":
        del event["boot"]
    for holder in (event, event.get("thinned") or {}):
        for name in INSTANTS:
            if isinstance(holder.get(name), int) and undated(holder[name]):
                holder[name] += offset_ms
    return encode(event)


def status(item: Status) -> EventDraft:
    members: dict[str, Any] = {"device": item.device, "state": item.state}
    if item.reason:
        members["reason"] = item.reason
    return _draft("status", item.at_ms, members, item.device)


def gap(
    at_ms: int,
    reason: str,
    *,
    count: int | None,
    from_seq: int | None,
    to_seq: int | None,
    from_at: int,
    to_at: int,
    device: str = "",
) -> EventDraft:
    """Events that will not come: their numbers (None where none had been given), times and how many.

    None for what nobody knows (docs/delivery.md).
    """
    members: dict[str, Any] = {
        "from_seq": from_seq,
        "to_seq": to_seq,
        "from_at": from_at,
        "to_at": to_at,
        "count": count,
        "reason": reason,
    }
    if device:
        members["device"] = device
    return _draft("gap", at_ms, members, device)


def ack(at_ms: int, answer: Ack) -> EventDraft:
    """The answer to a command."""
    return _draft("ack", at_ms, answer.members())


def control(at_ms: int, about: str, members: Mapping[str, Any]) -> EventDraft:
    return _draft("control", at_ms, {"about": about, **members})


def progress(at_ms: int, message: str, share: float | None = None) -> EventDraft:
    """How far a request's work has come; `share` is what is done of it, 0 to 1."""
    return _draft(
        "progress", at_ms, {"message": message} if share is None else {"message": message, "share": share}
    )


def reading_members(reading: Reading) -> dict[str, Any]:
    """A reading as a result has it."""
    members: dict[str, Any] = {"device": reading.device, "at": reading.at_ms, "values": dict(reading.values)}
    if reading.flags:
        members["flags"] = dict(reading.flags)
    if not reading.clock_set:
        members["clock"] = "unset"
    return members
