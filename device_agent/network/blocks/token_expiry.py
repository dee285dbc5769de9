"""When a messaging token ends: a token is a map in CBOR (RFC 8949), in Base64."""

import base64
import binascii
from typing import Any

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _TAG = range(7)
# A token has three levels.
DEPTH_MAX = 8


def expires_ms(token: str) -> int | None:
    """Epoch milliseconds of the network's clock; None if it does not say."""
    try:
        said, _ = _item(base64.b64decode(token, altchars=b"-_"), 0, 0)
        return (int(said["t"]) + int(said["ttl"]) * 60) * 1000
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
        return None  # used as it is and renewed on the first 403


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The item there, and where the next one begins; None for what a token's end does not need.

    Raises ValueError, IndexError, TypeError (of a key that is a list).
    """
    kind, number = divmod(data[at], 32)
    at += 1
    if number > 27 or depth > DEPTH_MAX:
        raise ValueError("no token has items without a length, or so deep")
    if number > 23:
        end = at + (1 << number - 24)
        number, at = int.from_bytes(data[at:end]), end
    if kind in (_BYTES, _TEXT):
        return data[at : at + number].decode(errors="replace"), at + number
    if kind in (_LIST, _MAP):
        items = []
        for _ in range(number * (kind - _LIST + 1)):
            item, at = _item(data, at, depth + 1)
            items.append(item)
        return (dict(zip(items[::2], items[1::2], strict=True)) if kind == _MAP else items), at
    if kind == _TAG:
        return _item(data, at, depth + 1)
    return (number if kind == _UNSIGNED else None), at
