"""The stand-in as an object: :class:`DevNetwork`."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from aiohttp import web

from device_agent.testing.network.admin import Admin, AdminApi
from device_agent.testing.network.api import AuthApi, RegistryApi, Rpc
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.faults import FaultRules, Route, act, reset
from device_agent.testing.network.files import FilesApi
from device_agent.testing.network.http import Call, HttpError, reply
from device_agent.testing.network.links import NetworkLink, NetworkLinks
from device_agent.testing.network.pubsub import PresenceApi, PubSub
from device_agent.testing.network.records import RequestRecord
from device_agent.testing.network.settings import Settings
from device_agent.testing.sessions_api import PATH, FakeSessionsApi

# Of a request, beside its body.
HEADERS_BYTES = 600


class DevNetwork(Admin):
    """A local stand-in of the Blocks Network, for development and tests only.

    ``async with DevNetwork() as net:`` serves config document, backend API, PubNub surface, the Sessions API
    (``net.sessions_api``) and the admin surface ``/_dev/`` on one loopback port; ``port`` 0 takes a free one.
    What a test can do with it is in :class:`~device_agent.testing.network.admin.Admin`.
    """

    def __init__(self, port: int = 0, settings: Settings | None = None) -> None:
        backend = Backend(settings or Settings())
        super().__init__(backend, FaultRules(), NetworkLinks(self._serve))
        files = FilesApi(backend)
        pubsub = PubSub(backend, files)
        presence = PresenceApi(backend)
        auth = AuthApi(backend)
        agents = RegistryApi(backend)
        self.sessions_api = FakeSessionsApi()
        self._port = port
        self._closing = asyncio.Event()
        self._admin_api = AdminApi(self)
        # By the first parts of the path, the most specific first.
        self._routes: dict[tuple[str, ...], Route] = {
            ("publish",): pubsub.publish,
            ("v2", "subscribe"): pubsub.subscribe,
            ("v2", "presence"): presence.answer,
            ("v3", "history"): pubsub.history,
            ("time",): pubsub.time,
            ("v1", "files"): pubsub.file,
            ("config.json",): auth.config,
            ("_storage",): files.storage,
            ("api", "v1", "rpc"): Rpc(backend).answer,
            ("api", "v1", "auth", "agent", "connect"): auth.connect,
            ("api", "v1", "auth", "agent", "refresh"): auth.refresh,
            ("api", "v1", "auth", "agent", "consumer-token"): auth.consumer_token,
            ("api", "v1", "auth", "task-read-token"): auth.task_read_token,
            ("api", "v1", "auth", "anon-task-read-token"): auth.anonymous_read_token,
            ("api", "v1", "files", "request-upload"): files.request_upload,
            ("api", "v1", "files", "confirm-upload"): files.confirm_upload,
            ("api", "v1", "registry", "agents"): agents.agents,
            ("api", "v1", "registry", "publish-context"): agents.publish_context,
            ("api", "v1", "pricing", "limits"): agents.pricing_limits,
            ("api", "v1", "orgs"): agents.orgs,
            ("api", "v1", "agents", "*", "invitations"): agents.invitations,
            ("api", "v1", "agents", "*", "grants"): agents.grants,
            ("api", "v1", "agent-invitations", "accept"): agents.accept,
            PATH: self.sessions_api.answer,
        }

    async def start(self) -> Self:
        """Open the main port."""
        await self.links.open("main", self._port)
        return self

    async def stop(self) -> None:
        """Close every port and connection, and drop what is held."""
        self._closing.set()
        self.backend.close()
        await self.links.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serve(self, request: web.BaseRequest, link: NetworkLink) -> web.StreamResponse:
        call = Call(request, link.name)
        if call.segments[0] == "_dev":
            return await self._admin_api.answer(call)
        await link.upload(HEADERS_BYTES + (request.content_length or 0))
        if link.rtt_s:
            await asyncio.sleep(link.rtt_s / 2)
        fault = self.faults.take(call) if self.faults.rules else None
        response: web.StreamResponse | None = None
        status = 0
        try:
            if fault is None:
                response = await self._route(call)
            else:
                response = await act(fault, call, self._route, self._closing)
            if link.rtt_s:
                await asyncio.sleep(link.rtt_s / 2)
            if response is not None:
                status = response.status
        finally:
            kind = fault.kind if fault else ""
            self.records.requested(
                RequestRecord(time.time(), call.method, call.path, status, call.uuid, link.name, kind)
            )
        if response is None:
            reset(request)
            # The connection is gone; the server only needs something to drop.
            return web.Response(status=503)
        return response

    async def _route(self, call: Call) -> web.StreamResponse:
        segments = call.segments
        try:
            route = self._routes.get((segments[0],)) or self._routes.get(tuple(segments[:2]))
            if route is None:
                route = self._find(segments)
            return await route(call)
        except HttpError as refused:
            return reply(refused.body, refused.status)
        except IndexError:
            return reply({"status": 404, "message": "Not Found", "error": True}, 404)

    def _find(self, segments: list[str]) -> Route:
        for length in (3, 4, 5):
            route = self._routes.get(tuple(segments[:length]))
            if route is not None:
                return route
        if len(segments) >= 5:
            route = self._routes.get(("api", "v1", segments[2], "*", segments[4]))
            if route is not None:
                return route
        raise HttpError(404, {"code": "NOT_FOUND", "error": "There is no such address."})
