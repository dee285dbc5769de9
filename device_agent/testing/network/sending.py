"""SendMessage: checking its parameters and making the task (protocol section 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from device_agent.testing.network.accounts import Identity
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.files import FileStore, Upload
from device_agent.testing.network.registry import Agent, Registry
from device_agent.testing.network.settings import BILLING_ENVIRONMENT, KEY_SETS
from device_agent.testing.network.tasks import Task

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

    def __init__(self, backend: Backend, registry: Registry, files: FileStore) -> None:
        self._backend = backend
        self._registry = registry
        self._files = files

    def send(self, params: dict[str, Any], identity: Identity) -> dict[str, Any]:
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

    def _agent(self, params: dict[str, Any], identity: Identity) -> Agent:
        agent = self._registry.find(str(params.get("agentName", "")))
        if agent is None or not self._registry.visible(agent, identity):
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

    def _make(self, agent: Agent, params: dict[str, Any], identity: Identity) -> Task:
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
                part["artifactRef"] = self._files.store(replace(upload), task.channel)
        return task

    def _uploads(self, params: dict[str, Any], agent: Agent, identity: Identity) -> dict[str, Upload]:
        session_id = params.get("uploadSessionId")
        if session_id is None:
            return {}
        found = {
            u.part_id: u
            for u in self._files.session(str(session_id))
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


def _check_kind(agent: Agent, kind: Any, duration: Any, stream: Any) -> None:
    if kind not in ("request", "pipe"):
        raise invalid(f"taskKind must be request or pipe, not {kind!r}.")
    allowed = (agent.card or {}).get("capabilities", {}).get("taskKinds")
    if isinstance(allowed, list) and kind not in allowed:
        raise RpcError("UnsupportedTaskKind", f"Agent {agent.name} takes {', '.join(allowed)} tasks only.")
    if kind == "request" and duration is not None:
        raise invalid("A request task has no duration.")
    whole = isinstance(duration, int) and not isinstance(duration, bool)
    if kind == "pipe" and not (whole and 1 <= duration <= _MAX_MINUTES):
        raise invalid(f"A pipe task needs a duration of 1 to {_MAX_MINUTES} whole minutes.")
    if stream not in (None, True, False):
        raise invalid("stream must be true or false.")


def _check_parts(agent: Agent, parts: Any, uploaded: set[str]) -> list[dict[str, Any]]:
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
