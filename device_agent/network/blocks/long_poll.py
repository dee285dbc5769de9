"""The answer of a long-poll, taken apart message by message: each is somebody else's, and may be as bad, as
deep or as large as the network lets it be."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from device_agent.background import Turns
from device_agent.errors import ProtocolFault

# Of a message, with the members of its members; 70 of the smallest commands have 600.
MEMBERS_MAX = 10_000

_DECODER = json.JSONDecoder()
_POSITION = re.compile(r'\s*\{\s*"t"\s*:\s*')
_MESSAGES = re.compile(r'\s*,\s*"m"\s*:\s*\[\s*')
_NEXT = re.compile(r"\s*,?\s*")
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},]')
_COLON = re.compile(r"\s*:")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as a subscriber got it. `timetoken` is the publish time in units of 100 ns."""

    channel: str
    payload: Any
    timetoken: int
    meta: Mapping[str, Any]
    publisher: str

    @property
    def sent_ms(self) -> float:
        return self.timetoken / 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The answer of one long-poll: where the next one goes on, and what came."""

    timetoken: str
    region: str | None
    deliveries: tuple[Delivery, ...]


async def read_batch(channel: str, text: str) -> Batch:
    """Others have their turn meanwhile. Raises ProtocolFault; malformed messages are left out, and a
    payload that cannot be parsed, or has more than `MEMBERS_MAX` members, is null."""
    try:
        head = _POSITION.match(text)
        position, at = _DECODER.raw_decode(text, head.end() if head else len(text))
    except (ValueError, RecursionError):
        position = None
    if not isinstance(position, dict):
        raise ProtocolFault(f"subscribe to {channel}: the answer has no timetoken")
    deliveries, turns = [], Turns()
    for message in messages(text, at):
        if (delivery := _delivery(message)) is not None:
            deliveries.append(delivery)
        await turns.give()
    region = position.get("r")
    return Batch(str(position.get("t", "0")), None if region is None else str(region), tuple(deliveries))


def messages(text: str, at: int) -> Iterator[Any]:
    """The messages of an answer, behind its position."""
    begin = _MESSAGES.match(text, at)
    at = len(text) if begin is None else begin.end()
    while at < len(text) and text[at] != "]":
        try:
            message, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            message, end = _without_payload(text, at)
        if isinstance(message, dict) and members(text, at, end) > MEMBERS_MAX:
            message["d"] = None
        yield message
        separator = _NEXT.match(text, end)
        at = separator.end() if separator else end


def members(text: str | bytes, begin: int = 0, end: int | None = None) -> int:
    """How many members its objects and arrays have, or more: commas in texts are counted too."""
    signs: tuple[Any, ...] = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
    return sum(text.count(sign, begin, end) for sign in signs)


def _without_payload(text: str, at: int) -> tuple[Any, int]:
    """A message whose payload cannot be parsed, with null in its place, and where it ends. None if that does
    not help."""
    depth = begin = payload_end = 0
    end = len(text)
    for token in _TOKENS.finditer(text, at):
        sign = token[0]
        if begin and not payload_end and depth == 1 and sign in ",}":
            payload_end = token.start()
        depth += (sign in "[{") - (sign in "]}")
        if sign == '"d"' and depth == 1 and not begin and (colon := _COLON.match(text, token.end())):
            begin = colon.end()
        if depth <= 0:
            end = token.end()
            break
    kept = f"{text[at:begin]}null{text[payload_end:end]}" if payload_end else ""
    try:
        return json.loads(kept), end
    except (ValueError, RecursionError):
        return None, end


def _delivery(message: Any) -> Delivery | None:
    """None for signals and files, which are not ours, and for what is of a bad form."""
    if not isinstance(message, dict) or message.get("e") not in (None, 0):
        return None
    meta = message.get("u")
    try:
        return Delivery(
            channel=str(message["c"]),
            payload=message.get("d"),
            timetoken=int(message["p"]["t"]),
            meta=meta if isinstance(meta, Mapping) else {},
            publisher=str(message.get("i", "")),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
