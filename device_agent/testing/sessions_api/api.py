"""The HTTP side of the stand-in: keys, rate limit, the four requests."""

from __future__ import annotations

import re
import time
from collections import deque
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from device_agent.testing.network.calls import Call
from device_agent.testing.network.replies import Refused, dumps, reply
from device_agent.testing.sessions_api.state import AGENTS, Message, Session, State, final_link, shown

PATH = ("rest", "v1", "sessions")
RATE_PER_MINUTE = 100
MINUTE_S = 60.0
MESSAGE_MAX = 200_000

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TYPES = ("message", "final_message", "tool_call")
_CHOICES = ("agent_name", "agent_id", "profile")


class SessionsApi(State):
    """Takes any key that begins with ``bk_``, each a workspace of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rate_per_minute = RATE_PER_MINUTE
        self.refused_keys: set[str] = set()
        self.redirect_to = ""
        """Where polls are sent instead of being answered; links point there too."""
        self.limited = 0
        """Requests that were answered with 429."""
        self._times: dict[str, deque[float]] = {}

    async def answer(self, call: Call) -> web.StreamResponse:
        """One request under `/rest/v1/sessions`."""
        key = self._key(call)
        if (wait_s := self._wait_s(key)) > 0:
            self.limited += 1
            body = dumps({"code": "RATE_LIMITED", "message": "Too many requests."})
            return web.Response(
                body=body.encode(),
                status=429,
                headers={"Retry-After": str(int(wait_s) + 1), "Content-Type": "application/json"},
            )
        rest = call.segments[3:]
        match (call.method, rest):
            case ("POST", []):
                return reply(self._create(key, call.base, await call.json()), 201)
            case ("GET", [id_]):
                return reply(shown(self.of(key, id_), call.base))
            case ("POST", [id_, "messages"]):
                return reply(self._follow_up(self.of(key, id_), call.base, await call.json()), 201)
            case ("GET", [id_, "messages"]):
                return self._messages(self.of(key, id_), call)
            case ("GET", [id_, "threads", thread, "messages"]):
                session = self.of(key, id_)
                if thread != session.thread:
                    raise Refused(404, {"code": "NOT_FOUND", "message": "There is no such thread."})
                return self._messages(session, call)
        raise Refused(404, {"code": "NOT_FOUND", "message": "There is no such address."})

    def _key(self, call: Call) -> str:
        scheme, _, key = call.request.headers.get("Authorization", "").partition(" ")
        if scheme != "ApiKey" or not key.startswith("bk_") or key in self.refused_keys:
            raise Refused(401, {"code": "UNAUTHORIZED", "message": "The API key is not valid."})
        return key

    def _wait_s(self, key: str) -> float:
        """How long this key must wait; 0 if the request is within the limit, and counted."""
        now = time.monotonic()
        times = self._times.setdefault(key, deque())
        while times and now - times[0] >= MINUTE_S:
            times.popleft()
        if len(times) >= self.rate_per_minute:
            return MINUTE_S - (now - times[0]) if times else MINUTE_S
        times.append(now)
        return 0.0

    # -- requests ----------------------------------------

    def _create(self, key: str, base: str, body: dict[str, Any]) -> dict[str, Any]:
        message = _text(body)
        chosen = {name: body[name] for name in _CHOICES if body.get(name) is not None}
        if len(chosen) != 1:
            raise _invalid(f"Give exactly one of {', '.join(_CHOICES)}.")
        ((name, value),) = chosen.items()
        if name == "agent_name" and value not in AGENTS:
            raise _invalid(f"There is no agent {value}.")
        if name == "agent_id" and not (isinstance(value, str) and _UUID.fullmatch(value)):
            raise _invalid("agent_id is not a uuid.")
        if name == "profile" and not isinstance(value, dict):
            raise _invalid("profile is not an object.")
        private = body.get("is_private", False)
        if not isinstance(private, bool):
            raise _invalid("is_private is not a boolean.")
        if any(not (isinstance(a, str) and _UUID.fullmatch(a)) for a in body.get("artifact_ids", [])):
            raise _invalid("artifact_ids are not uuids.")
        return self._led_away(shown(self.open(key, chosen, message, private=private), base))

    def _follow_up(self, session: Session, base: str, body: dict[str, Any]) -> dict[str, Any]:
        number = self.say(session, _text(body))
        told = session.messages[number - 1].shown(session.id, session.thread)
        return self._led_away(
            {**told, "_links": {"final_message": {"href": final_link(session, base, number)}}}
        )

    def _led_away(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.redirect_to.startswith("link:"):
            body["_links"]["final_message"]["href"] = self.redirect_to.removeprefix("link:")
        return body

    def _messages(self, session: Session, call: Call) -> web.StreamResponse:
        if self.redirect_to and not self.redirect_to.startswith("link:"):
            return web.Response(status=307, headers={"Location": self.redirect_to})
        query = parse_qs(call.request.query_string)
        found = _chosen(session, query)
        limit, page = _number(query, "limit", 50, 1, 100), _number(query, "page", 1, 1, 1_000_000)
        part = found[(page - 1) * limit : page * limit]
        newest = int(max((one.at_s for one in session.messages), default=0))
        here = f"{call.base}/rest/v1/sessions/{session.id}/messages"
        return reply(
            {
                "items": [one.shown(session.id, session.thread) for one in part],
                "pagination": {"page": page, "limit": limit, "total": len(found)},
                "_links": {"new_messages": {"href": f"{here}?gts={newest}"}},
            }
        )


def _chosen(session: Session, query: dict[str, list[str]]) -> list[Message]:
    """The messages that a query means, newest first unless it says `sort=asc`."""
    kinds = query.get("type", list(_TYPES))
    if unknown := [kind for kind in kinds if kind not in _TYPES]:
        raise _invalid(f"type {unknown[0]} is none of {', '.join(_TYPES)}.")
    roles = query.get("role", ["user", "assistant"])
    since_s = _number(query, "gts", 0, 0, 10**12)
    answer_to = _number(query, "answer_to", 0, 0, 10**9)
    found = [
        one
        for one in session.messages
        if one.type in kinds
        and one.role in roles
        and (not since_s or int(one.at_s) > since_s)
        and (not answer_to or one.answer_to == answer_to)
    ]
    return found if query.get("sort") == ["asc"] else found[::-1]


def _number(query: dict[str, list[str]], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name, [str(default)])[-1]
    if not text.isdecimal() or not low <= int(text) <= high:
        raise _invalid(f"{name} must be a number from {low} to {high}.")
    return int(text)


def _text(body: dict[str, Any]) -> str:
    message = body.get("message")
    if not isinstance(message, str) or not message or len(message) > MESSAGE_MAX:
        raise _invalid("message is missing, empty or too long.")
    return message


def _invalid(message: str) -> Refused:
    return Refused(400, {"code": "VALIDATION", "message": message})
