"""The stand-in as an object: :class:`DevNetwork`."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from aiohttp import web

from device_agent.testing.network.accounts import Accounts
from device_agent.testing.network.admin import Admin
from device_agent.testing.network.admin_api import AdminApi
from device_agent.testing.network.auth_api import AuthApi
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.calls import Call
from device_agent.testing.network.clock import Clock
from device_agent.testing.network.faults import Faults, Route, act, reset
from device_agent.testing.network.files import FileStore
from device_agent.testing.network.files_api import FilesApi
from device_agent.testing.network.links import Link, Links
from device_agent.testing.network.presence_api import PresenceApi
from device_agent.testing.network.pubsub import PubSub
from device_agent.testing.network.records import Records, RequestRecord
from device_agent.testing.network.registry import Registry
from device_agent.testing.network.registry_api import RegistryApi
from device_agent.testing.network.replies import Refused, reply
from device_agent.testing.network.rpc import Rpc
from device_agent.testing.network.sending import Sending
from device_agent.testing.network.settings import Settings
from device_agent.testing.network.setup import SetupFunction
from device_agent.testing.network.tasks import TaskTable
from device_agent.testing.network.tokens import Tokens
from device_agent.testing.network.wire import Wire
from device_agent.testing.sessions_api.api import PATH, SessionsApi


class DevNetwork(Admin):
    """A local stand-in of the Blocks Network, for development and tests only.

    ``async with DevNetwork() as net:`` serves config document, backend API, PubNub surface, the Sessions API
    (``net.sessions_api``) and the admin surface ``/_dev/`` on one loopback port; ``port`` 0 takes a free one.
    What a test can do with it is in :class:`~device_agent.testing.network.admin.Admin`.
    """

    def __init__(self, port: int = 0, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        records = Records(settings)
        tokens = Tokens()
        wire = Wire(Clock(), settings, records)
        registry = Registry(settings)
        backend = Backend(settings, wire, tokens, TaskTable(settings.max_tasks), registry.by_control)
        accounts = Accounts(settings)
        links = Links(self._serve)
        super().__init__(settings, wire, tokens, backend, registry, accounts, Faults(), links)
        store = FileStore(settings.max_file_bytes)
        files = FilesApi(settings, accounts, registry, backend, store)
        setup = SetupFunction(settings, backend)
        pubsub = PubSub(settings, wire, tokens, backend, setup, files)
        presence = PresenceApi(settings, wire, tokens, backend)
        auth = AuthApi(settings, accounts, registry, backend)
        agents = RegistryApi(accounts, registry)
        self.sessions_api = SessionsApi()
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
            ("api", "v1", "rpc"): Rpc(accounts, backend, Sending(backend, registry, store)).answer,
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

    async def _serve(self, request: web.BaseRequest, link: Link) -> web.StreamResponse:
        call = Call(request, link.name)
        if call.segments[0] == "_dev":
            return await self._admin_api.answer(call)
        started = time.monotonic()
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
            took_s = time.monotonic() - started
            kind = fault.kind if fault else ""
            self.records.requested(
                RequestRecord(time.time(), call.method, call.path, status, call.uuid, link.name, kind, took_s)
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
        except Refused as refused:
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
        raise Refused(404, {"code": "NOT_FOUND", "error": "There is no such address."})
