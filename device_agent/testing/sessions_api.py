"""A stand-in of the Sessions API, which the network stand-in serves under `/rest/v1/sessions`."""

from __future__ import annotations

import re
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from device_agent.testing.network.http import Call, HttpError, dumps, reply

AGENTS = ("claude", "codex", "gemini", "opencode", "cursor", "kimi")
SESSIONS_MAX = 10_000

Script = Callable[[str], str]
"""From the user's message to the assistant's answer."""


def echo(message: str) -> str:
    """The answer where a test scripts none."""
    first = message.strip().splitlines()[0] if message.strip() else "nothing"
    return f"You wrote: {first[:200]}"


@dataclass(slots=True)
class SessionMessage:
    """One message of a session. `answer_to` is the number of the user's message that a final one answers."""

    number: int
    role: str
    type: str
    text: str
    at_s: float
    answer_to: int = 0

    def shown(self, session: str, thread: str) -> dict[str, Any]:
        """As the API has it."""
        return {
            "id": f"{session}-{self.number}",
            "session_id": session,
            "thread_id": thread,
            "role": self.role,
            "type": self.type,
            "message": self.text,
            "created_at": _iso(self.at_s),
        }


@dataclass(slots=True)
class FakeSession:
    """One session. A message that a later one interrupts is never answered."""

    id: str
    key: str
    agent: dict[str, Any]
    private: bool
    created_s: float
    thread: str
    messages: list[SessionMessage] = field(default_factory=list)
    due: tuple[float, int, str] | None = None
    """When (monotonic) the newest message is answered, its number, and the answer."""

    def said(self, role: str) -> list[str]:
        """The texts of one side, in order."""
        return [message.text for message in self.messages if message.role == role]

    def settle(self) -> None:
        """Answer the newest message if it is time."""
        if self.due is not None and time.monotonic() >= self.due[0]:
            _, number, text = self.due
            self.due = None
            for kind, body in (("tool_call", "think"), ("message", text), ("final_message", text)):
                self._add("assistant", kind, body, number)

    def ask(self, text: str) -> int:
        """A message of the user; its number."""
        self.due = None
        return self._add("user", "message", text, 0)

    def _add(self, role: str, kind: str, text: str, answer_to: int) -> int:
        number = len(self.messages) + 1
        self.messages.append(SessionMessage(number, role, kind, text, time.time(), answer_to))
        return number


class FakeSessions:
    """All sessions, and the script of the assistant.

    `answers` are used in order; where none is left, `script` makes one. Each comes `answer_after_s`
    after its message; with `held` none comes before `release`.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.answers: deque[str] = deque()
        self.script: Script = echo
        self.answer_after_s = 0.0
        self.held = False

    def open(self, key: str, agent: dict[str, Any], message: str, *, private: bool) -> FakeSession:
        if len(self.sessions) >= SESSIONS_MAX:
            raise HttpError(503, {"code": "UNAVAILABLE", "message": "There are too many sessions."})
        session = FakeSession(str(uuid.uuid4()), key, agent, private, time.time(), str(uuid.uuid4()))
        self.sessions[session.id] = session
        self.say(session, message)
        return session

    def say(self, session: FakeSession, message: str) -> int:
        """Add a message of the user, to be answered; its number."""
        session.settle()
        number = session.ask(message)
        text = self.answers.popleft() if self.answers else self.script(message)
        wait_s = float("inf") if self.held else self.answer_after_s
        session.due = (time.monotonic() + wait_s, number, text)
        return number

    def release(self) -> None:
        """Let held answers go out, and hold no more."""
        self.held = False
        for session in self.sessions.values():
            if session.due is not None:
                session.due = (time.monotonic(), *session.due[1:])

    def of(self, key: str, id_: str) -> FakeSession:
        """A session, or 404 if it is not there or another workspace's."""
        session = self.sessions.get(id_)
        if session is None or session.key != key:
            raise HttpError(404, {"code": "NOT_FOUND", "message": "There is no such session."})
        session.settle()
        return session


def _iso(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def shown(session: FakeSession, base: str, number: int | None = None) -> dict[str, Any]:
    """The answer to create and to look up."""
    here = f"{base}/rest/v1/sessions/{session.id}"
    number = number if number is not None else _asked(session)
    return {
        "id": session.id,
        "title": session.messages[0].text[:60],
        "thread_id": session.thread,
        "session_html_url": f"https://blocks.example/sessions/{session.id}",
        "is_private": session.private,
        "is_archived": False,
        "created_at": _iso(session.created_s),
        "updated_at": _iso(session.messages[-1].at_s),
        "_links": {
            "self": {"href": here},
            "messages": {"href": f"{here}/messages"},
            "final_message": {"href": final_link(session, base, number)},
        },
    }


def final_link(session: FakeSession, base: str, number: int) -> str:
    """Where the final message that answers this one will be."""
    kind = f"type=final_message&role=assistant&answer_to={number}&limit=1"
    return f"{base}/rest/v1/sessions/{session.id}/messages?{kind}"


def _asked(session: FakeSession) -> int:
    return max(one.number for one in session.messages if one.role == "user")


PATH = ("rest", "v1", "sessions")
RATE_PER_MINUTE = 100
MINUTE_S = 60.0
MESSAGE_MAX = 200_000

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TYPES = ("message", "final_message", "tool_call")
_CHOICES = ("agent_name", "agent_id", "profile")


class FakeSessionsApi(FakeSessions):
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
                    raise HttpError(404, {"code": "NOT_FOUND", "message": "There is no such thread."})
                return self._messages(session, call)
        raise HttpError(404, {"code": "NOT_FOUND", "message": "There is no such address."})

    def _key(self, call: Call) -> str:
        scheme, _, key = call.request.headers.get("Authorization", "").partition(" ")
        if scheme != "ApiKey" or not key.startswith("bk_") or key in self.refused_keys:
            raise HttpError(401, {"code": "UNAUTHORIZED", "message": "The API key is not valid."})
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

    def _follow_up(self, session: FakeSession, base: str, body: dict[str, Any]) -> dict[str, Any]:
        number = self.say(session, _text(body))
        message = session.messages[number - 1].shown(session.id, session.thread)
        return self._led_away(
            {**message, "_links": {"final_message": {"href": final_link(session, base, number)}}}
        )

    def _led_away(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.redirect_to.startswith("link:"):
            body["_links"]["final_message"]["href"] = self.redirect_to.removeprefix("link:")
        return body

    def _messages(self, session: FakeSession, call: Call) -> web.StreamResponse:
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


def _chosen(session: FakeSession, query: dict[str, list[str]]) -> list[SessionMessage]:
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


def _invalid(message: str) -> HttpError:
    return HttpError(400, {"code": "VALIDATION", "message": message})
