"""Who a request comes from, and what it may do: API keys, JWTs, access-manager tokens (docs/protocol.md).

A messaging token is base64url over CBOR with the members that ``pubnub.parse_token`` reads: a map with the
text keys ``v t ttl res pat meta sig``; ``t`` is epoch seconds, ``ttl`` whole minutes, ``res.chan`` and
``pat.chan`` map a channel name (or pattern) to its bits. A lifetime that is no whole number of minutes is
expressed by an earlier ``t``, so that ``t + 60·ttl`` is always the true expiry.
"""

from __future__ import annotations

import base64
import json
import math
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeVar

import cbor2

from device_agent.testing.network.http import access_denied, backend_error
from device_agent.testing.network.settings import Settings

T = TypeVar("T")

_MAX_SESSIONS = 100_000
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(slots=True, frozen=True)
class Requester:
    """A user and its organisation. ``agent`` is the agent name of a provider's session, else empty."""

    api_key: str
    user_id: str
    org_id: str
    agent: str = ""


@dataclass(slots=True)
class IssuedToken:
    """An issued access or refresh token."""

    identity: Requester
    expires_at_s: float


class Accounts:
    """Accepts any key ``bk_<name>``; its user is ``user_<name>``, its organisation ``org_<name>``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._access: OrderedDict[str, IssuedToken] = OrderedDict()
        self._refresh: OrderedDict[str, Requester] = OrderedDict()
        self.revoked_keys: set[str] = set()

    def by_key(self, api_key: str) -> Requester:
        """The identity of an API key, or 401 ``API_KEY_INVALID``."""
        name = _UNSAFE.sub("_", api_key.removeprefix("bk_"))
        if not api_key.startswith("bk_") or not name or api_key in self.revoked_keys:
            raise backend_error(401, "API_KEY_INVALID", "The API key is not valid.")
        return Requester(api_key, f"user_{name}", f"org_{name}")

    def issue(self, identity: Requester) -> dict[str, object]:
        """A new pair of access and refresh token, as connect, refresh and consumer-token answer it."""
        ttl_s = self._settings.lifetimes.access
        expires_at_s = time.time() + ttl_s
        access, refresh = _jwt(identity, expires_at_s), f"rt_{secrets.token_urlsafe(24)}"
        _keep(self._access, access, IssuedToken(identity, expires_at_s))
        _keep(self._refresh, refresh, identity)
        return {"accessToken": access, "refreshToken": refresh, "expiresIn": max(1, int(ttl_s))}

    def refresh(self, api_key: str, refresh_token: str) -> tuple[Requester, dict[str, object]]:
        """Rotate a refresh token; ``REFRESH_TOKEN_INVALID`` if it is unknown, used or another key's."""
        self.by_key(api_key)
        identity = self._refresh.pop(refresh_token, None)
        if identity is None or identity.api_key != api_key:
            raise backend_error(401, "REFRESH_TOKEN_INVALID", "The refresh token is not valid.")
        return identity, self.issue(identity)

    def optional(self, bearer: str) -> Requester | None:
        """Who a bearer is; a bad one is anonymous."""
        session = self._access.get(bearer)
        if session is not None:
            live = session.expires_at_s > time.time() and session.identity.api_key not in self.revoked_keys
            return session.identity if live else None
        if bearer.startswith("bk_") and bearer not in self.revoked_keys:
            return self.by_key(bearer)
        return None

    def required(self, bearer: str) -> Requester:
        """Who a bearer is, or 401."""
        identity = self.optional(bearer)
        if identity is None:
            raise backend_error(401, "UNAUTHORIZED", "The access token is missing, unknown or expired.")
        return identity

    def revoke_key(self, api_key: str) -> None:
        """From now on the key is invalid, and so is every access token made with it."""
        self.revoked_keys.add(api_key)

    def revoke_access(self) -> int:
        """End all access tokens; how many. Refresh tokens stay."""
        count = len(self._access)
        self._access.clear()
        return count

    def revoke_refresh(self) -> int:
        """End all refresh tokens; how many."""
        count = len(self._refresh)
        self._refresh.clear()
        return count


def _keep(held: OrderedDict[str, T], key: str, value: T) -> None:
    held[key] = value
    if len(held) > _MAX_SESSIONS:
        held.popitem(last=False)


def _jwt(identity: Requester, expires_at_s: float) -> str:
    """A token of the form of a JWT; its signature is random, since only this server reads it."""
    header = {"alg": "none", "typ": "JWT"}
    claims = {"sub": identity.user_id, "org": identity.org_id, "exp": int(expires_at_s)}
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in (header, claims)]
    return ".".join([*parts, secrets.token_urlsafe(24)])


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
        """The token's grant, or a 403 of the access manager."""
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
    empty: dict[bytes, Any] = {b"grp": {}, b"usr": {}, b"spc": {}, b"uuid": {}}
    value = {
        b"v": 2,
        b"t": int(expires_at_s - 60 * ttl_minutes),
        b"ttl": ttl_minutes,
        b"res": {b"chan": {name.encode(): bits for name, bits in channels.items()}, **empty},
        b"pat": {b"chan": {name.encode(): bits for name, bits in patterns.items()}, **empty},
        b"meta": {name.encode(): value for name, value in meta.items()},
        b"sig": secrets.token_bytes(32),
    }
    # Padding is kept: the client decodes without restoring it.
    return base64.urlsafe_b64encode(cbor2.dumps(value)).decode()
