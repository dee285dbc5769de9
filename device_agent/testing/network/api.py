"""The backend API over HTTP: logins and tokens, registry and accounts, JSON-RPC (docs/protocol.md)."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from device_agent.records import is_whole
from device_agent.testing.network.accounts import Requester
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.channels import now_ms
from device_agent.testing.network.files import PendingUpload
from device_agent.testing.network.http import Call, HttpError, backend_error, reply
from device_agent.testing.network.registry import RegisteredAgent
from device_agent.testing.network.settings import BILLING_ENVIRONMENT, KEY_SETS, PROTOCOL_VERSION
from device_agent.testing.network.tasks import Task


class AuthApi:
    """Logins and tokens."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._settings, self._accounts, self._registry = backend.settings, backend.accounts, backend.registry

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
            Requester(identity.api_key, identity.user_id, identity.org_id, agent.name)
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

    def _connecting(self, payload: dict[str, Any], identity: Requester) -> RegisteredAgent:
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
        """A read token in exchange for the fingerprint that the task was made with."""
        payload = await call.json()
        task = self._backend.tasks.get(str(payload.get("taskId")))
        if task is None or task.fingerprint is None or task.fingerprint != payload.get("fingerprint"):
            raise backend_error(403, "FORBIDDEN", "The fingerprint is not that of the task.")
        return self._read_token(task)

    def _read_token(self, task: Task) -> web.Response:
        minutes = max(1, round(self._settings.lifetimes.read / 60))
        token = self._backend.read_token(task)
        return reply({"pamToken": token, "channel": task.channel, "ttlMinutes": minutes})


_PRICE_MEMBERS = ("pricePerTask", "pricePerMinute", "freeTasksPerConsumer", "freeMinutesPerConsumer")
_LIMITS = {
    "minPricePerTask": "0.0001",
    "maxPricePerTask": "25.00",
    "minPricePerMinute": "0.01",
    "maxPricePerMinute": "1.00",
    "maxFreeTasksAllowed": 100,
    "maxFreeMinutesAllowed": 30,
}
_MAX_INVITATIONS = 1000


class RegistryApi:
    """Agents, organisations, invitations and grants."""

    def __init__(self, backend: Backend) -> None:
        self._accounts, self._registry = backend.accounts, backend.registry
        self._org_names: dict[str, str] = {}
        self._invitations: dict[str, dict[str, Any]] = {}

    async def agents(self, call: Call) -> web.Response:
        """Read, list, publish or delete."""
        if call.method == "GET":
            return self._read(call) if "agentName" in call.query else self._list(call)
        identity = self._accounts.required(call.bearer)
        if call.method == "POST":
            return self._publish(await call.json(), identity, call)
        if call.method == "DELETE":
            agent = self._owned(call.query.get("agentName", ""), identity)
            self._registry.remove(agent.name)
            return reply({"agentName": agent.name, "status": "deleted", "ts": now_ms()})
        raise backend_error(405, "METHOD_NOT_ALLOWED", f"{call.method} is not possible here.")

    def _read(self, call: Call) -> web.Response:
        agent = self._registry.find(call.query["agentName"])
        if agent is None or not self._registry.visible(agent, self._accounts.optional(call.bearer)):
            raise backend_error(404, "AGENT_NOT_FOUND", "There is no such agent.")
        return reply({"agent": agent.to_wire()})

    def _list(self, call: Call) -> web.Response:
        identity = self._accounts.optional(call.bearer)
        found = self._registry.listed(identity, call.query.get("tag", ""), call.query.get("listing", ""))
        limit, start = _query_number(call, "limit", 100), _query_number(call, "cursor", 0)
        more = start + limit < len(found)
        return reply(
            {
                "agents": [a.to_wire() for a in found[start : start + limit]],
                "next": str(start + limit) if more else None,
                "totalCount": len(found),
            }
        )

    def _publish(self, body: dict[str, Any], identity: Requester, call: Call) -> web.Response:
        name = str(body.get("agentName", ""))
        known = self._registry.agents.get(name)
        if known is not None and known.owner_org not in (None, identity.org_id):
            raise backend_error(403, "AGENT_NOT_OWNED", f"Agent {name} belongs to another organisation.")
        if not isinstance(body.get("card"), dict):
            raise backend_error(400, "INVALID_CARD", "The card is missing.")
        prices = {k: body[k] for k in _PRICE_MEMBERS if k in body}
        billing_mode = str(body.get("billingMode", "free"))
        if billing_mode == "paid" and "tcAcceptedAt" not in body:
            raise backend_error(400, "TERMS_NOT_ACCEPTED", "A paid agent needs tcAcceptedAt.")
        agent = self._registry.register(
            name,
            body["card"],
            listing=str(body.get("listing", "private")),
            billing_mode=billing_mode,
            owner_org=identity.org_id,
            prices=prices if billing_mode == "paid" else None,
        )
        return reply({"agent": agent.to_wire(), "agentUrl": f"{call.base}/agents/{agent.name}"})

    async def publish_context(self, call: Call) -> web.Response:
        """What the publishing organisation is, and how many agents it has."""
        identity = self._accounts.required(call.bearer)
        count = sum(a.owner_org == identity.org_id for a in self._registry.agents.values())
        name = self._org_names.get(identity.org_id, identity.org_id)
        return reply({"orgId": identity.org_id, "orgName": name, "agentCount": count})

    async def pricing_limits(self, call: Call) -> web.Response:
        """Price bounds."""
        return reply(_LIMITS)

    async def orgs(self, call: Call) -> web.Response:
        """List the caller's organisation, or rename it."""
        identity = self._accounts.required(call.bearer)
        if call.method == "PATCH":
            name = str((await call.json()).get("name", ""))
            if call.segments[3:4] != [identity.org_id] or not name:
                raise backend_error(400, "INVALID_REQUEST", "Only the own organisation can be renamed.")
            if name in (n for org, n in self._org_names.items() if org != identity.org_id):
                raise backend_error(409, "ORG_NAME_TAKEN", "The name is taken.")
            self._org_names[identity.org_id] = name
        org = {
            "id": identity.org_id,
            "name": self._org_names.get(identity.org_id, identity.org_id),
            "slug": identity.org_id.replace("_", "-"),
        }
        return reply({"orgs": [org]} if call.method == "GET" else org)

    async def invitations(self, call: Call) -> web.Response:
        """``/api/v1/agents/{name}/invitations``: make or list them."""
        agent = self._owned(call.segments[3], self._accounts.required(call.bearer))
        if call.method == "GET":
            shown = ("id", "email", "scope", "expiresAt", "createdAt")
            mine = [i for i in self._invitations.values() if i["agent"] == agent.name]
            return reply({"invitations": [{k: i[k] for k in shown} for i in mine]})
        if agent.listing != "private":
            raise backend_error(400, "AGENT_NOT_PRIVATE", "Only private agents take invitations.")
        body = await call.json()
        email, slug = body.get("email"), body.get("targetOrgSlug")
        if body and not email and not slug:
            raise backend_error(400, "INVALID_REQUEST", "email or targetOrgSlug is missing.")
        if len(self._invitations) >= _MAX_INVITATIONS:
            raise backend_error(429, "TOO_MANY", "There are too many open invitations.")
        token, now = secrets.token_urlsafe(16), datetime.now(UTC)
        self._invitations[token] = {
            "id": f"inv_{token[:8]}",
            "agent": agent.name,
            "email": email,
            "slug": slug,
            "scope": "org" if slug else "user",
            "createdAt": now.isoformat(),
            "expiresAt": (now + timedelta(days=7)).isoformat(),
        }
        url = f"{call.base}/invitations/{token}"
        return reply({"id": f"inv_{token[:8]}", "notified": 0, "inviteUrl": url, "token": token})

    async def accept(self, call: Call) -> web.Response:
        """``POST /api/v1/agent-invitations/accept``."""
        identity = self._accounts.required(call.bearer)
        invitation = self._invitations.pop(str((await call.json()).get("token")), None)
        agent = self._registry.agents.get(invitation["agent"]) if invitation else None
        if invitation is None or agent is None:
            raise backend_error(404, "INVITATION_NOT_FOUND", "There is no such invitation.")
        grant_id = f"gr_{secrets.token_hex(6)}"
        agent.grants[grant_id] = {
            "id": grant_id,
            "scope": invitation["scope"],
            "createdAt": datetime.now(UTC).isoformat(),
            "granteeUser": {"name": identity.user_id, "email": invitation["email"]},
            "granteeOrg": {"id": identity.org_id, "name": identity.org_id, "slug": invitation["slug"]},
            "org": identity.org_id,
        }
        return reply({"agentName": agent.name, "grantId": grant_id})

    async def grants(self, call: Call) -> web.Response:
        """``/api/v1/agents/{name}/grants``: list, or delete one."""
        agent = self._owned(call.segments[3], self._accounts.required(call.bearer))
        if call.method == "DELETE":
            if agent.grants.pop(call.segments[-1], None) is None:
                raise backend_error(404, "GRANT_NOT_FOUND", "There is no such grant.")
            return reply({"status": "deleted"})
        shown = ("id", "scope", "createdAt", "granteeUser", "granteeOrg")
        return reply({"grants": [{k: g[k] for k in shown} for g in agent.grants.values()]})

    def _owned(self, name: str, identity: Requester) -> RegisteredAgent:
        agent = self._registry.agents.get(name)
        if agent is None or agent.owner_org not in (None, identity.org_id):
            raise backend_error(404, "AGENT_NOT_FOUND", "There is no such agent of this organisation.")
        return agent


def _query_number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "")
    if text and not text.isdigit():
        raise backend_error(400, "INVALID_REQUEST", f"{name} must be a number.")
    return int(text) if text else default


_MAX_MINUTES = 43_200


class RpcError(Exception):
    """A JSON-RPC error; ``data_code`` is ``error.data.code``."""

    def __init__(
        self, data_code: str, message: str, *, code: int = -32000, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.data_code = data_code
        self.code = code
        self.details = details

    def to_wire(self) -> dict[str, Any]:
        """The ``error`` member of the answer."""
        data: dict[str, Any] = {"code": self.data_code, "message": str(self)}
        if self.details is not None:
            data["details"] = self.details
        return {"code": self.code, "message": str(self), "data": data}


def invalid(message: str) -> RpcError:
    """Invalid parameters."""
    return RpcError("InvalidParams", message, code=-32602)


class Sending:
    """Makes tasks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def send(self, params: dict[str, Any], identity: Requester) -> dict[str, Any]:
        """Run SendMessage; its result."""
        agent = self._agent(params, identity)
        key = params.get("idempotencyKey")
        if key is not None and not isinstance(key, str):
            raise invalid("idempotencyKey must be a string.")
        known = self._backend.tasks.by_key(identity.org_id, agent.name, key) if key else None
        if known is not None:
            return self._result(known, params, idempotent=True)
        task = self._make(agent, params, identity)
        if agent.forced_offline:
            raise RpcError("AGENT_FORCED_OFFLINE", f"Agent {agent.name} was forced offline.")
        limit = self._backend.backlog_limit(agent)
        candidates = self._backend.candidates(agent)
        waiting = len(self._backend.waiting(agent))
        if waiting >= limit and (waiting or not any(c.free for c in candidates)):
            raise RpcError("BacklogFull", f"{waiting} tasks wait for agent {agent.name}; {limit} may.")
        task.queued = True
        self._backend.tasks.add(task, key)
        self._backend.dispatch(agent)
        return self._result(task, params, idempotent=False)

    def _agent(self, params: dict[str, Any], identity: Requester) -> RegisteredAgent:
        agent = self._backend.registry.find(str(params.get("agentName", "")))
        if agent is None or not self._backend.registry.visible(agent, identity):
            raise RpcError("AgentNotFound", f"There is no agent {params.get('agentName')!r}.")
        got = params.get("billingMode")
        if got not in BILLING_ENVIRONMENT:
            raise invalid("billingMode must be free or paid.")
        if got != agent.billing_mode:
            raise RpcError(
                "BillingModeMismatch",
                f"Agent {agent.name} is {agent.billing_mode}, the request says {got}.",
                details={"expected": agent.billing_mode, "got": got},
            )
        return agent

    def _make(self, agent: RegisteredAgent, params: dict[str, Any], identity: Requester) -> Task:
        blocks = (params.get("extensions") or {}).get("blocks") or {}
        kind = blocks.get("taskKind", "request")
        duration = blocks.get("duration")
        stream = blocks.get("stream")
        _check_kind(agent, kind, duration, stream)
        uploads = self._uploads(params, agent, identity)
        parts = _check_parts(agent, params.get("requestParts", []), set(uploads))
        task = Task(
            task_id=self._backend.tasks.new_id(),
            agent=agent,
            environment=agent.environment,
            owner_id=str(params.get("ownerId") or identity.user_id),
            user_id=identity.user_id,
            org_id=identity.org_id,
            kind=kind,
            parts=parts,
            has_stream=agent.streams != {} and (kind == "pipe" or stream is True),
            claims={"sub": identity.user_id, "orgId": identity.org_id},
            duration_minutes=duration,
            consumer_public_key=blocks.get("consumerPublicKey"),
        )
        for part in parts:
            upload = uploads.get(part.get("partId", ""))
            if upload is not None:
                part["artifactRef"] = self._backend.files.store(replace(upload), task.channel)
        return task

    def _uploads(
        self, params: dict[str, Any], agent: RegisteredAgent, identity: Requester
    ) -> dict[str, PendingUpload]:
        session_id = params.get("uploadSessionId")
        if session_id is None:
            return {}
        found = {
            u.part_id: u
            for u in self._backend.files.session(str(session_id))
            if u.agent == agent.name and u.org_id == identity.org_id
        }
        if not found:
            raise invalid("uploadSessionId names no confirmed upload for this agent.")
        return found

    def _result(self, task: Task, params: dict[str, Any], *, idempotent: bool) -> dict[str, Any]:
        blocks: dict[str, Any] = {
            "readToken": self._backend.read_token(task),
            "streamChannels": {"status": task.channel},
        }
        if task.environment != BILLING_ENVIRONMENT[params["billingMode"]]:
            publish_key, subscribe_key = KEY_SETS[task.environment]
            blocks |= {"subscribeKey": subscribe_key, "publishKey": publish_key}
        push = params.get("pushNotificationConfig")
        return {
            "taskId": task.task_id,
            "state": task.state,
            "idempotent": idempotent,
            "queued": task.queued,
            "pushConfigId": f"push_{task.task_id}" if push else None,
            "extensions": {"blocks": blocks},
        }


def _check_kind(agent: RegisteredAgent, kind: Any, duration: Any, stream: Any) -> None:
    if kind not in ("request", "pipe"):
        raise invalid(f"taskKind must be request or pipe, not {kind!r}.")
    allowed = (agent.card or {}).get("capabilities", {}).get("taskKinds")
    if isinstance(allowed, list) and kind not in allowed:
        raise RpcError("UnsupportedTaskKind", f"Agent {agent.name} takes {', '.join(allowed)} tasks only.")
    if kind == "request" and duration is not None:
        raise invalid("A request task has no duration.")
    whole = is_whole(duration)
    if kind == "pipe" and not (whole and 1 <= duration <= _MAX_MINUTES):
        raise invalid(f"A pipe task needs a duration of 1 to {_MAX_MINUTES} whole minutes.")
    if stream not in (None, True, False):
        raise invalid("stream must be true or false.")


def _check_parts(agent: RegisteredAgent, parts: Any, uploaded: set[str]) -> list[dict[str, Any]]:
    if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
        raise invalid("requestParts must be a list of objects.")
    for part in parts:
        if part.get("text") is not None and part.get("artifactRef") is not None:
            raise invalid("A part holds text or a file, not both.")
        if part.get("artifactRef") is not None and not part.get("partId"):
            raise invalid("A part with a file needs a partId.")
    named = {p["partId"] for p in parts if p.get("partId")}
    if uploaded - named:
        raise invalid("An uploaded file has no part with its partId.")
    inputs = (agent.card or {}).get("io", {}).get("inputs")
    if isinstance(inputs, list):
        known = {i.get("id"): bool(i.get("required")) for i in inputs if isinstance(i, dict)}
        strange = sorted(named - set(known))
        if strange:
            raise invalid(f"Agent {agent.name} has no input {', '.join(strange)}.")
        missing = sorted(str(i) for i, required in known.items() if required and i not in named)
        # A part without an id stands for the only input there is.
        if missing and not (len(known) == 1 and any(not p.get("partId") for p in parts)):
            raise invalid(f"Agent {agent.name} needs the input {', '.join(missing)}.")
    return [dict(p) for p in parts]


_COMMANDS = ("CancelTask", "TerminateTask", "PauseTask", "ResumeTask", "RetryTask")


class Rpc:
    """The RPC end point."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._sending = Sending(backend)

    async def answer(self, call: Call) -> web.Response:
        """Run one call; errors of the method come with HTTP 200."""
        body = await call.json()
        identity = self._backend.accounts.optional(call.bearer)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": body.get("id")}
        try:
            answer["result"] = self._run(body, identity)
        except RpcError as error:
            answer["error"] = error.to_wire()
        return reply(answer)

    def _run(self, body: dict[str, Any], identity: Requester | None) -> Any:
        method, params = body.get("method"), body.get("params") or {}
        if not isinstance(params, dict):
            raise invalid("params must be an object.")
        if identity is None:
            if method == "GetTask":
                return self._public_task(params)
            raise HttpError(401, {"code": "UNAUTHORIZED", "error": "The access token is missing or expired."})
        if method == "SendMessage":
            return self._sending.send(params, identity)
        if method == "ListTasks":
            return self._list(params, identity)
        if method == "GetTask":
            return {"task": self._task(params, identity).to_wire()}
        if method in _COMMANDS:
            return self._command(str(method), self._task(params, identity), identity)
        raise RpcError("MethodNotFound", f"There is no method {method!r}.", code=-32601)

    def _command(self, method: str, task: Task, identity: Requester) -> dict[str, Any]:
        if not task.ended:
            if method == "CancelTask":
                self._backend.cancel(task, identity.user_id)
            elif method == "TerminateTask":
                self._backend.terminate(task, identity.user_id)
            elif not task.queued:
                self._backend.command(task, method, identity.user_id)
        return {"taskId": task.task_id, "state": task.state}

    def _task(self, params: dict[str, Any], identity: Requester) -> Task:
        task = self._backend.tasks.get(str(params.get("taskId")))
        if task is None or identity.org_id not in (task.org_id, task.agent.owner_org):
            raise RpcError("TaskNotFound", f"There is no task {params.get('taskId')!r}.")
        return task

    def _public_task(self, params: dict[str, Any]) -> dict[str, Any]:
        """What anybody may see of a task of a free, public agent."""
        task = self._backend.tasks.get(str(params.get("taskId")))
        if task is None or task.agent.listing != "public" or task.agent.billing_mode != "free":
            raise RpcError("TaskNotFound", f"There is no public task {params.get('taskId')!r}.")
        shown = ("taskId", "agentName", "state", "taskKind", "createdTime", "updatedTime")
        return {"task": {k: v for k, v in task.to_wire().items() if k in shown}}

    def _list(self, params: dict[str, Any], identity: Requester) -> dict[str, Any]:
        wanted = {
            "owner": params.get("ownerId"),
            "agentName": params.get("agentName"),
            "state": params.get("state"),
        }
        found = [
            wire
            for task in reversed(self._backend.tasks.all())
            if identity.org_id in (task.org_id, task.agent.owner_org)
            and all(v in (None, (wire := task.to_wire())[k]) for k, v in wanted.items())
        ]
        start, limit = _number(params, "cursor", 0), max(1, _number(params, "limit", 50))
        more = start + limit < len(found)
        return {
            "tasks": found[start : start + limit],
            "next": str(start + limit) if more else None,
            "totalCount": len(found),
        }


def _number(params: dict[str, Any], name: str, default: int) -> int:
    value = params.get(name)
    if value is None:
        return default
    if not str(value).isdigit():
        raise invalid(f"{name} must be a number.")
    return int(value)
