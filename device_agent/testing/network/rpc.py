"""``POST /api/v1/rpc``: the JSON-RPC methods (protocol section 4)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from device_agent.testing.network.accounts import Accounts, Identity
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.calls import Call
from device_agent.testing.network.replies import Refused, reply
from device_agent.testing.network.sending import RpcError, Sending, invalid
from device_agent.testing.network.tasks import Task

_COMMANDS = ("CancelTask", "TerminateTask", "PauseTask", "ResumeTask", "RetryTask")


class Rpc:
    """The RPC end point."""

    def __init__(self, accounts: Accounts, backend: Backend, sending: Sending) -> None:
        self._accounts = accounts
        self._backend = backend
        self._sending = sending

    async def answer(self, call: Call) -> web.Response:
        """Run one call; errors of the method come with HTTP 200."""
        body = await call.json()
        identity = self._accounts.optional(call.bearer)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": body.get("id")}
        try:
            answer["result"] = self._run(body, identity)
        except RpcError as error:
            answer["error"] = error.to_wire()
        return reply(answer)

    def _run(self, body: dict[str, Any], identity: Identity | None) -> Any:
        method, params = body.get("method"), body.get("params") or {}
        if not isinstance(params, dict):
            raise invalid("params must be an object.")
        if identity is None:
            if method == "GetTask":
                return self._public_task(params)
            raise Refused(401, {"code": "UNAUTHORIZED", "error": "The access token is missing or expired."})
        if method == "SendMessage":
            return self._sending.send(params, identity)
        if method == "ListTasks":
            return self._list(params, identity)
        if method == "GetTask":
            return {"task": self._task(params, identity).to_wire()}
        if method in _COMMANDS:
            return self._command(str(method), self._task(params, identity), identity)
        raise RpcError("MethodNotFound", f"There is no method {method!r}.", code=-32601)

    def _command(self, method: str, task: Task, identity: Identity) -> dict[str, Any]:
        if not task.ended:
            if method == "CancelTask":
                self._backend.cancel(task, identity.user_id)
            elif method == "TerminateTask":
                self._backend.terminate(task, identity.user_id)
            elif not task.queued:
                self._backend.command(task, method, identity.user_id)
        return {"taskId": task.task_id, "state": task.state}

    def _task(self, params: dict[str, Any], identity: Identity) -> Task:
        task = self._backend.tasks.get(str(params.get("taskId")))
        if task is None or identity.org_id not in (task.org_id, task.agent.owner_org):
            raise RpcError("TaskNotFound", f"There is no task {params.get('taskId')!r}.")
        return task

    def _public_task(self, params: dict[str, Any]) -> dict[str, Any]:
        """What anybody may see of a task of a free, public agent (protocol section 13, anonymous mode)."""
        task = self._backend.tasks.get(str(params.get("taskId")))
        if task is None or task.agent.listing != "public" or task.agent.billing_mode != "free":
            raise RpcError("TaskNotFound", f"There is no public task {params.get('taskId')!r}.")
        shown = ("taskId", "agentName", "state", "taskKind", "createdTime", "updatedTime")
        return {"task": {k: v for k, v in task.to_wire().items() if k in shown}}

    def _list(self, params: dict[str, Any], identity: Identity) -> dict[str, Any]:
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
