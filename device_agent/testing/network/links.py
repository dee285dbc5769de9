"""Listening ports. Each is one link to the same network, so that one party's link can fail alone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

HOST = "127.0.0.1"
_MAX_LINE_BYTES = 128 * 1024
_SHUTDOWN_S = 0.2

Serve = Callable[[web.BaseRequest, "NetworkLink"], Awaitable[web.StreamResponse]]


@dataclass(slots=True, eq=False)
class NetworkLink:
    """A port. ``rtt_s`` is added to every request, half before it acts and half before its answer.

    ``upload_bytes_per_s`` bounds what comes, all requests together, one after the other; 0 is no bound.
    """

    name: str
    port: int
    serve: Serve = field(repr=False)
    rtt_s: float = 0.0
    upload_bytes_per_s: float = 0.0
    _uploaded_s: float = 0.0
    server: web.Server | None = field(default=None, repr=False)
    listening: socket.socket | None = field(default=None, repr=False)
    accepted: set[asyncio.Task[Any]] = field(default_factory=set, repr=False)

    @property
    def origin(self) -> str:
        """``host:port``, the PubNub origin."""
        return f"{HOST}:{self.port}"

    async def upload(self, size_bytes: int) -> None:
        """As long as a request of this size takes; who gives up has sent it all the same."""
        if self.upload_bytes_per_s > 0:
            now_s = time.monotonic()
            self._uploaded_s = max(now_s, self._uploaded_s) + size_bytes / self.upload_bytes_per_s
            await asyncio.sleep(self._uploaded_s - now_s)

    @property
    def addresses(self) -> dict[str, str | int]:
        """Everything that a client has to know."""
        return {
            "port": self.port,
            "cdm_url": f"http://{self.origin}/config.json",
            "api_base_url": f"http://{self.origin}",
            "pubnub_origin": self.origin,
            "sessions_url": f"http://{self.origin}",
            "admin_url": f"http://{self.origin}/_dev",
        }

    async def listen(self) -> None:
        """Take connections on its port."""
        self.server = web.Server(
            lambda request: self.serve(request, self),
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
        )
        self.listening = socket.create_server((HOST, self.port), backlog=1024)
        self.listening.setblocking(False)
        self.port = self.listening.getsockname()[1]
        # Not asyncio's own server: what that had accepted when it was closed, it leaves open.
        asyncio.get_running_loop().add_reader(self.listening, self._accept, self.listening, self.server)

    async def refuse(self) -> None:
        """Take no more connections and cut those there are: clients see "connection refused"."""
        if self.listening is not None:
            asyncio.get_running_loop().remove_reader(self.listening)
            self.listening.close()
            self.listening = None
        await asyncio.gather(*self.accepted, return_exceptions=True)
        if self.server is not None:
            server, self.server = self.server, None
            for handler in list(server.connections):
                handler.force_close()
                if handler.transport is not None:
                    handler.transport.abort()
            await server.shutdown(_SHUTDOWN_S)

    def _accept(self, listening: socket.socket, server: web.Server) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # it has gone again
        task = asyncio.ensure_future(asyncio.get_running_loop().connect_accepted_socket(server, connection))
        self.accepted.add(task)
        task.add_done_callback(self.accepted.discard)


class Addressed:
    """The members of :attr:`NetworkLink.addresses` as properties, for classes that have ``addresses``."""

    addresses: Any

    @property
    def port(self) -> int:
        """The port."""
        return int(self.addresses["port"])

    @property
    def cdm_url(self) -> str:
        """The config document's address."""
        return str(self.addresses["cdm_url"])

    @property
    def api_base_url(self) -> str:
        """Base address of the backend API."""
        return str(self.addresses["api_base_url"])

    @property
    def pubnub_origin(self) -> str:
        """``host:port`` of the PubNub surface; there is no TLS."""
        return str(self.addresses["pubnub_origin"])

    @property
    def admin_url(self) -> str:
        """Base address of the HTTP admin surface."""
        return str(self.addresses["admin_url"])


class NetworkLinks:
    """The open ports by name."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._by_name: dict[str, NetworkLink] = {}

    def __getitem__(self, name: str) -> NetworkLink:
        found = self._by_name.get(name)
        if found is None:
            raise ValueError(f"there is no link {name!r}: one of {', '.join(self._by_name)}")
        return found

    async def open(self, name: str, port: int = 0) -> NetworkLink:
        """Open a port; 0 takes a free one."""
        if name in self._by_name:
            raise ValueError(f"link {name!r} is open already")
        link = NetworkLink(name, port, self._serve)
        await link.listen()
        self._by_name[name] = link
        return link

    async def close(self) -> None:
        """Close all ports."""
        for link in self._by_name.values():
            await link.refuse()
        self._by_name.clear()
