"""Access-manager tokens: base64url over CBOR, with the members that ``pubnub.parse_token`` reads.

Form: a map of the text keys ``v t ttl res pat meta sig``; ``t`` is epoch seconds, ``ttl`` whole minutes,
``res.chan`` and ``pat.chan`` map a channel name (or pattern) to its bits. A lifetime that is no whole number
of minutes is expressed by an earlier ``t``, so that ``t + 60·ttl`` is always the true expiry.
"""

from __future__ import annotations

import base64
import math
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from device_agent.testing.network.replies import access_denied

READ = 1
WRITE = 2

KINDS = ("control", "write", "read", "stream_provider", "stream_consumer")
"""Kinds of messaging token. ``stream`` stands for both stream kinds where a kind is asked for."""

_MAX_TOKENS = 50_000


def kinds_of(kind: str) -> tuple[str, ...]:
    """The kinds that a name stands for; raises ValueError for an unknown one."""
    if kind == "stream":
        return ("stream_provider", "stream_consumer")
    if kind not in KINDS:
        raise ValueError(f"unknown token kind {kind!r}: one of {', '.join(KINDS)}, stream")
    return (kind,)


@dataclass(slots=True, eq=False)
class Grant:
    """What one token allows, on one key set."""

    token: str
    kind: str
    environment: str
    channels: dict[str, int]
    patterns: list[tuple[re.Pattern[str], int]]
    expires_at_s: float
    subject: str
    revoked: bool = False

    def allows(self, channel: str, bits: int) -> bool:
        """Whether all ``bits`` are granted on the channel."""
        if self.channels.get(channel, 0) & bits == bits:
            return True
        return any(granted & bits == bits and p.search(channel) for p, granted in self.patterns)


class Tokens:
    """Issues, checks and revokes tokens; keeps the newest ones."""

    def __init__(self) -> None:
        self._grants: OrderedDict[str, Grant] = OrderedDict()

    def issue(
        self,
        kind: str,
        environment: str,
        channels: dict[str, int],
        ttl_s: float,
        *,
        patterns: dict[str, int] | None = None,
        subject: str = "",
    ) -> Grant:
        """Make a token. ``subject`` is the task or instance that it is for."""
        expires_at_s = time.time() + ttl_s
        text = encode(channels, patterns or {}, expires_at_s, ttl_s, {"kind": kind})
        grant = Grant(
            token=text,
            kind=kind,
            environment=environment,
            channels=channels,
            patterns=[(re.compile(p), bits) for p, bits in (patterns or {}).items()],
            expires_at_s=expires_at_s,
            subject=subject,
        )
        self._grants[text] = grant
        if len(self._grants) > _MAX_TOKENS:
            self._grants.popitem(last=False)
        return grant

    def check(self, token: str | None, environment: str, channels: list[str], bits: int) -> Grant:
        """The token's grant, or a 403 with the body of section 7."""
        grant = self._grants.get(token) if token else None
        if grant is None or grant.environment != environment:
            raise access_denied(channels)
        if grant.revoked:
            raise access_denied(channels, "Token is revoked.")
        if grant.expires_at_s <= time.time():
            raise access_denied(channels, "Token is expired.")
        denied = [c for c in channels if not grant.allows(c, bits)]
        if denied:
            raise access_denied(denied)
        return grant

    def check_not_revoked(self, token: str, channels: list[str]) -> None:
        """For a request that is held already: a revoked token ends it, an expired one does not."""
        grant = self._grants.get(token)
        if grant is None or grant.revoked:
            raise access_denied(channels, "Token is revoked.")

    def find(self, token: str) -> Grant | None:
        """The grant of a token, valid or not."""
        return self._grants.get(token)

    def revoke(self, token: str) -> int:
        """Revoke one token; how many were valid before (0 or 1)."""
        grant = self._grants.get(token)
        return self._revoke([grant] if grant else [])

    def revoke_kind(self, kind: str, subject: str | None = None) -> int:
        """Revoke all tokens of a kind (of one subject); how many."""
        kinds = kinds_of(kind)
        return self._revoke(
            [g for g in self._grants.values() if g.kind in kinds and subject in (None, g.subject)]
        )

    def table(self) -> list[dict[str, Any]]:
        """All tokens that are still known, oldest first."""
        now = time.time()
        return [
            {
                "token": g.token,
                "kind": g.kind,
                "environment": g.environment,
                "subject": g.subject,
                "channels": g.channels,
                "expires_in_s": round(g.expires_at_s - now, 3),
                "revoked": g.revoked,
            }
            for g in self._grants.values()
        ]

    @staticmethod
    def _revoke(grants: list[Grant]) -> int:
        fresh = [g for g in grants if not g.revoked]
        for grant in fresh:
            grant.revoked = True
        return len(fresh)


def encode(
    channels: dict[str, int],
    patterns: dict[str, int],
    expires_at_s: float,
    ttl_s: float,
    meta: dict[str, Any],
) -> str:
    """The token text; ``expires_at_s`` is epoch seconds."""
    ttl_minutes = max(1, math.ceil(ttl_s / 60))
    empty: dict[str, int] = {}
    value = {
        "v": 2,
        "t": int(expires_at_s - 60 * ttl_minutes),
        "ttl": ttl_minutes,
        "res": {"chan": channels, "grp": empty, "usr": empty, "spc": empty, "uuid": empty},
        "pat": {"chan": patterns, "grp": empty, "usr": empty, "spc": empty, "uuid": empty},
        "meta": meta,
        "sig": secrets.token_bytes(32),
    }
    # Padding is kept: the client decodes without restoring it.
    return base64.urlsafe_b64encode(_cbor(value)).decode()


def _cbor(value: Any) -> bytes:
    """CBOR (RFC 8949) of the few types that a token holds; keys go out as byte strings."""
    if isinstance(value, dict):
        items = b"".join(_cbor(key.encode()) + _cbor(item) for key, item in value.items())
        return _head(5, len(value)) + items
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(text := value.encode())) + text
    return _head(0, int(value)) if value >= 0 else _head(1, -1 - int(value))


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * size):
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise ValueError(f"{number} has no CBOR head")
