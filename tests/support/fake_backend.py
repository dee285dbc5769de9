"""An HTTP server on this machine that answers from a script, and notes what it was asked."""

import json
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Asked:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeBackend:
    """`answers[path]` holds (status, JSON or bytes, headers), one for each request; the last one stays."""

    def __init__(self) -> None:
        self.answers: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.asked: list[Asked] = []
        self.url = ""

    async def __aenter__(self) -> "FakeBackend":
        app = web.Application(client_max_size=10_000_000)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(Asked(request.path, dict(request.query), dict(request.headers), body))
        script = self.answers[request.path]
        status, reply, *headers = script.pop(0) if len(script) > 1 else script[0]
        raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        return web.Response(status=status, body=raw, headers=headers[0] if headers else None)

    def asked_for(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]
