"""Config document, connect, refresh and the token end points (protocol sections 2.1, 3.2 to 3.5)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from device_agent.testing.network.accounts import Accounts, Identity
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.calls import Call
from device_agent.testing.network.registry import Agent, Registry
from device_agent.testing.network.replies import backend_error, reply
from device_agent.testing.network.settings import KEY_SETS, PROTOCOL_VERSION, Settings
from device_agent.testing.network.tasks import Task


class AuthApi:
    """Logins and tokens."""

    def __init__(self, settings: Settings, accounts: Accounts, registry: Registry, backend: Backend) -> None:
        self._settings = settings
        self._accounts = accounts
        self._registry = registry
        self._backend = backend

    async def config(self, call: Call) -> web.Response:
        """The config document; its addresses are those of the link that it was asked on."""
        document: dict[str, Any] = {
            name: {"publishKey": keys[0], "subscribeKey": keys[1]} for name, keys in KEY_SETS.items()
        }
        document["api"] = {"baseUrl": call.base, "clientId": "dev"}
        document["dashboard"] = {"baseUrl": call.base}
        return reply(document)

    async def connect(self, call: Call) -> web.Response:
        """Provider login."""
        payload = await call.json()
        identity = self._accounts.by_key(call.bearer)
        agent = self._connecting(payload, identity)
        agent.connected(payload)
        instance_id = str(payload["instanceId"])
        session = self._accounts.issue(
            Identity(identity.api_key, identity.user_id, identity.org_id, agent.name)
        )
        token = self._backend.control_token(agent, instance_id)
        return reply(
            {
                **session,
                "agentId": agent.agent_id,
                "agentName": agent.name,
                "instanceId": instance_id,
                "controlChannel": agent.control_channel,
                "pamToken": token,
            }
        )

    def _connecting(self, payload: dict[str, Any], identity: Identity) -> Agent:
        agent = self._registry.find(str(payload.get("agentName", "")))
        if agent is None:
            raise backend_error(
                404, "AGENT_NOT_FOUND", f"No agent {payload.get('agentName')!r} is registered."
            )
        if agent.forced_offline:
            raise backend_error(403, "AGENT_FORCED_OFFLINE", "An administrator has taken this agent offline.")
        if agent.owner_org not in (None, identity.org_id):
            raise backend_error(
                403, "AGENT_NOT_OWNED", f"Agent {agent.name} belongs to another organisation."
            )
        if not isinstance(payload.get("instanceId"), str) or not payload["instanceId"]:
            raise backend_error(400, "INVALID_REQUEST", "instanceId is missing.")
        if payload.get("billingMode") != agent.billing_mode:
            raise backend_error(409, "BillingModeMismatch", f"Agent {agent.name} is {agent.billing_mode}.")
        versions = payload.get("protocolVersions", [PROTOCOL_VERSION])
        if PROTOCOL_VERSION not in versions:
            raise backend_error(
                400, "UNSUPPORTED_PROTOCOL_VERSION", f"Only {PROTOCOL_VERSION} is spoken here."
            )
        agent.owner_org = identity.org_id
        return agent

    async def refresh(self, call: Call) -> web.Response:
        """Rotate a refresh token, of a provider or of a caller."""
        payload = await call.json()
        self._accounts.by_key(call.bearer)
        identity, session = self._accounts.refresh(call.bearer, str(payload.get("refreshToken")))
        agent = self._registry.agents.get(identity.agent)
        if agent is not None and agent.forced_offline:
            raise backend_error(403, "AGENT_FORCED_OFFLINE", "An administrator has taken this agent offline.")
        return reply(session)

    async def consumer_token(self, call: Call) -> web.Response:
        """Caller login."""
        payload = await call.json()
        identity = self._accounts.by_key(str(payload.get("apiKey", "")))
        return reply({**self._accounts.issue(identity), "userId": identity.user_id})

    async def task_read_token(self, call: Call) -> web.Response:
        """A read token for a task of the caller, or of the agent's owner."""
        payload = await call.json()
        identity = self._accounts.required(call.bearer)
        task = self._backend.tasks.get(str(payload.get("taskId")))
        role = payload.get("role", "consumer")
        if role not in ("consumer", "provider"):
            raise backend_error(400, "INVALID_REQUEST", "role must be consumer or provider.")
        entitled = task and (task.org_id if role == "consumer" else task.agent.owner_org)
        if task is None or entitled != identity.org_id:
            raise backend_error(404, "TASK_NOT_FOUND", "There is no such task for this caller.")
        return self._read_token(task)

    async def anonymous_read_token(self, call: Call) -> web.Response:
        """A read token for whoever shows the fingerprint that the task was made with."""
        payload = await call.json()
        task = self._backend.tasks.get(str(payload.get("taskId")))
        if task is None or task.fingerprint is None or task.fingerprint != payload.get("fingerprint"):
            raise backend_error(403, "FORBIDDEN", "The fingerprint is not that of the task.")
        return self._read_token(task)

    def _read_token(self, task: Task) -> web.Response:
        minutes = max(1, round(self._settings.lifetimes.read / 60))
        token = self._backend.read_token(task)
        return reply({"pamToken": token, "channel": task.channel, "ttlMinutes": minutes})
