"""Keys, identities and JWTs: who a request comes from (protocol sections 3.2 to 3.4)."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from device_agent.testing.network.replies import backend_error
from device_agent.testing.network.settings import Settings

T = TypeVar("T")

_MAX_SESSIONS = 100_000
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(slots=True, frozen=True)
class Identity:
    """A user and its organisation. ``agent`` is the agent name of a provider's session, else empty."""

    api_key: str
    user_id: str
    org_id: str
    agent: str = ""


@dataclass(slots=True)
class Session:
    """An issued access or refresh token."""

    identity: Identity
    expires_at_s: float


class Accounts:
    """Accepts any key ``bk_<name>``; its user is ``user_<name>``, its organisation ``org_<name>``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._access: OrderedDict[str, Session] = OrderedDict()
        self._refresh: OrderedDict[str, Identity] = OrderedDict()
        self.revoked_keys: set[str] = set()

    def by_key(self, api_key: str) -> Identity:
        """The identity of an API key, or 401 ``API_KEY_INVALID``."""
        name = _UNSAFE.sub("_", api_key.removeprefix("bk_"))
        if not api_key.startswith("bk_") or not name or api_key in self.revoked_keys:
            raise backend_error(401, "API_KEY_INVALID", "The API key is not valid.")
        return Identity(api_key, f"user_{name}", f"org_{name}")

    def issue(self, identity: Identity) -> dict[str, object]:
        """A new pair of access and refresh token, as connect, refresh and consumer-token answer it."""
        ttl_s = self._settings.lifetimes.access
        expires_at_s = time.time() + ttl_s
        access, refresh = _jwt(identity, expires_at_s), f"rt_{secrets.token_urlsafe(24)}"
        _keep(self._access, access, Session(identity, expires_at_s))
        _keep(self._refresh, refresh, identity)
        return {"accessToken": access, "refreshToken": refresh, "expiresIn": max(1, int(ttl_s))}

    def refresh(self, api_key: str, refresh_token: str) -> tuple[Identity, dict[str, object]]:
        """Rotate a refresh token; ``REFRESH_TOKEN_INVALID`` if it is unknown, used or another key's."""
        self.by_key(api_key)
        identity = self._refresh.pop(refresh_token, None)
        if identity is None or identity.api_key != api_key:
            raise backend_error(401, "REFRESH_TOKEN_INVALID", "The refresh token is not valid.")
        return identity, self.issue(identity)

    def optional(self, bearer: str) -> Identity | None:
        """Who a bearer is; a bad one is anonymous (protocol section 3.1)."""
        session = self._access.get(bearer)
        if session is not None:
            live = session.expires_at_s > time.time() and session.identity.api_key not in self.revoked_keys
            return session.identity if live else None
        if bearer.startswith("bk_") and bearer not in self.revoked_keys:
            return self.by_key(bearer)
        return None

    def required(self, bearer: str) -> Identity:
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


def _jwt(identity: Identity, expires_at_s: float) -> str:
    """A token of the form of a JWT; its signature is random, since only this server reads it."""
    header = {"alg": "none", "typ": "JWT"}
    claims = {"sub": identity.user_id, "org": identity.org_id, "exp": int(expires_at_s)}
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in (header, claims)]
    return ".".join([*parts, secrets.token_urlsafe(24)])
