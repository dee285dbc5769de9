"""One HTTP exchange: the request taken apart once, the answer, and the exception that is an answer."""

from __future__ import annotations

import json
import zlib
from typing import Any
from urllib.parse import unquote, unquote_plus

from aiohttp import web
from multidict import CIMultiDict

BODY_LIMIT_BYTES = 4 * 1024 * 1024


class Call:
    """A request. ``segments`` are the decoded parts of the path, ``query`` the last value of each name."""

    __slots__ = ("backwards", "link", "method", "path", "query", "request", "segments", "twice")

    def __init__(self, request: web.BaseRequest, link: str) -> None:
        self.request = request
        self.link = link
        self.method = request.method
        path, _, query = request.raw_path.partition("?")
        # Split before decoding: a channel name or a GET-published message may hold an encoded slash.
        self.segments = [unquote(s) if "%" in s else s for s in path.split("/")[1:]]
        self.path = unquote(path) if "%" in path else path
        self.query: dict[str, str] = {}
        for item in query.split("&"):
            name, _, value = item.partition("=")
            self.query[name] = unquote_plus(value) if "%" in value or "+" in value else value
        self.twice = False
        self.backwards = False

    @property
    def uuid(self) -> str:
        """The PubNub user id of the client, empty for the backend API."""
        return self.query.get("uuid", "")

    @property
    def base(self) -> str:
        """Scheme and authority that the client used, so that answers point back at the same link."""
        return f"http://{self.request.headers.get('Host', '127.0.0.1')}"

    @property
    def bearer(self) -> str:
        """The bearer credential, or empty."""
        scheme, _, value = self.request.headers.get("Authorization", "").partition(" ")
        return value.strip() if scheme.lower() == "bearer" else ""

    async def body(self) -> bytes:
        """The body, decompressed whatever its header calls the form."""
        data = await self.request.read()
        if data and "Content-Encoding" in self.request.headers:
            return inflate(data)
        return data

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; anything else is a 400 of the backend API."""
        try:
            value = json.loads(await self.body() or b"{}")
        except ValueError as error:
            raise backend_error(400, "INVALID_JSON", f"The request body is not JSON: {error}.") from error
        if not isinstance(value, dict):
            raise backend_error(400, "INVALID_JSON", "The request body is not a JSON object.")
        return value


def inflate(data: bytes) -> bytes:
    """Undo gzip, zlib or raw deflate, recognised by content; what is none of them is left as it is.

    Clients are known to announce gzip and to send the zlib form.
    """
    for window_bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        inflater = zlib.decompressobj(window_bits)
        try:
            plain = inflater.decompress(data, BODY_LIMIT_BYTES)
        except zlib.error:
            continue
        if inflater.unconsumed_tail:
            raise HttpError(413, [0, "Message Too Large", "0"])
        if inflater.eof:
            return plain
    return data


_JSON = "application/json; charset=utf-8"


class HttpError(Exception):
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


def backend_error(status: int, code: str, message: str) -> HttpError:
    """Error of the backend API: ``{"code", "error"}``."""
    return HttpError(status, {"code": code, "error": message})


def access_denied(channels: list[str], message: str = "Forbidden") -> HttpError:
    """The 403 of the access manager."""
    return HttpError(
        403,
        {
            "message": message,
            "payload": {"channels": channels},
            "error": True,
            "service": "Access Manager",
            "status": 403,
        },
    )
