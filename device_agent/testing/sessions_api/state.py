"""Sessions and their messages, and when the assistant answers."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from device_agent.testing.network.replies import Refused

AGENTS = ("claude", "codex", "gemini", "opencode", "cursor", "kimi")
SESSIONS_MAX = 10_000

Script = Callable[[str], str]
"""From the message of a turn to the assistant's answer."""


def echo(message: str) -> str:
    """The answer where a test scripts none."""
    first = message.strip().splitlines()[0] if message.strip() else "nothing"
    return f"You wrote: {first[:200]}"


@dataclass(slots=True)
class Message:
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
class Session:
    """One session. A turn that a later message interrupts is never answered."""

    id: str
    key: str
    agent: dict[str, Any]
    private: bool
    created_s: float
    thread: str
    messages: list[Message] = field(default_factory=list)
    due: tuple[float, int, str] | None = None
    """When (monotonic) the turn under way is answered, the message it answers, and the answer."""

    def said(self, role: str) -> list[str]:
        """The texts of one side, in order."""
        return [message.text for message in self.messages if message.role == role]

    def settle(self) -> None:
        """Answer the turn under way if its time has come."""
        if self.due is not None and time.monotonic() >= self.due[0]:
            _, number, text = self.due
            self.due = None
            for kind, body in (("tool_call", "think"), ("message", text), ("final_message", text)):
                self._add("assistant", kind, body, number)

    def ask(self, text: str) -> int:
        """A message of the user; its number."""
        self.due = None
        return self._add("user", "message", text, 0)

    def final(self, number: int) -> list[Message]:
        """The final message that answers this one; empty until it exists."""
        self.settle()
        return [one for one in self.messages if one.type == "final_message" and one.answer_to == number]

    def _add(self, role: str, kind: str, text: str, answer_to: int) -> int:
        number = len(self.messages) + 1
        self.messages.append(Message(number, role, kind, text, time.time(), answer_to))
        return number


class State:
    """All sessions, and the script of the assistant.

    `answers` are given to turns in order; where none is left, `script` makes one. Each comes `answer_after_s`
    after its message; with `held` none comes before `release`.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.answers: deque[str] = deque()
        self.script: Script = echo
        self.answer_after_s = 0.0
        self.held = False

    def open(self, key: str, agent: dict[str, Any], message: str, *, private: bool) -> Session:
        if len(self.sessions) >= SESSIONS_MAX:
            raise Refused(503, {"code": "UNAVAILABLE", "message": "There are too many sessions."})
        session = Session(str(uuid.uuid4()), key, agent, private, time.time(), str(uuid.uuid4()))
        self.sessions[session.id] = session
        self.say(session, message)
        return session

    def say(self, session: Session, message: str) -> int:
        """A turn begins; the number of its message."""
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

    def of(self, key: str, id_: str) -> Session:
        """A session, or 404 if it is not there or another workspace's."""
        session = self.sessions.get(id_)
        if session is None or session.key != key:
            raise Refused(404, {"code": "NOT_FOUND", "message": "There is no such session."})
        session.settle()
        return session


def _iso(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def shown(session: Session, base: str, number: int | None = None) -> dict[str, Any]:
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


def final_link(session: Session, base: str, number: int) -> str:
    """Where the final message that answers this one will be."""
    kind = f"type=final_message&role=assistant&answer_to={number}&limit=1"
    return f"{base}/rest/v1/sessions/{session.id}/messages?{kind}"


def _asked(session: Session) -> int:
    return max(one.number for one in session.messages if one.role == "user")
