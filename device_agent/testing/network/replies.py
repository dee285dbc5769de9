"""Answers, and the exception that is one: a handler raises :class:`Refused` to end a request."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

_JSON = "application/json; charset=utf-8"


class Refused(Exception):
    """An answer other than success: HTTP status and JSON body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def raw(body: bytes, status: int = 200) -> web.Response:
    """An answer whose JSON is already encoded."""
    return web.Response(body=body, status=status, headers=CIMultiDict((("Content-Type", _JSON),)))


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return raw(dumps(value).encode(), status)


def dumps(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def backend_error(status: int, code: str, message: str) -> Refused:
    """Error of the backend API: ``{"code", "error"}`` (protocol section 3.3)."""
    return Refused(status, {"code": code, "error": message})


def access_denied(channels: list[str], message: str = "Forbidden") -> Refused:
    """The 403 of the access manager (protocol section 7)."""
    return Refused(
        403,
        {
            "message": message,
            "payload": {"channels": channels},
            "error": True,
            "service": "Access Manager",
            "status": 403,
        },
    )
