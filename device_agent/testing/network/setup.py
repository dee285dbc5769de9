"""The server function on ``setup.{org}.{task}``: every publish is answered with 403 (docs/protocol.md)."""

from __future__ import annotations

import re
from typing import Any

from device_agent.records import is_whole
from device_agent.testing.network.accounts import READ, WRITE
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.settings import PROTOCOL_VERSION
from device_agent.testing.network.tasks import Task

_STREAM_ID = re.compile(r"[a-zA-Z0-9\-_]{1,92}")
_DIRECTIONS = ("outbound", "inbound", "bidirectional")
_FORMATS = ("bytes", "events")
_AFFINITIES = ("dedicated", "shared")
_PHASES = ("embedded", "token_request", "activate")
_EXTRA_MINUTES = 2


class SetupRejected(Exception):
    """The handshake is refused; ``code`` is InvalidArgument or another of the function's codes."""

    def __init__(self, message: str, code: str = "InvalidArgument") -> None:
        super().__init__(message)
        self.code = code


class SetupFunction:
    """Checks the request, makes the stream's tokens and announces the stream to the caller."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def answer(self, channel: str, body: Any) -> dict[str, Any]:
        """The body of the 403: ``{"status", "message": {"ok", …}}``."""
        try:
            message: dict[str, Any] = {"ok": True, "streamSetupResponse": self._run(channel, body)}
        except SetupRejected as rejection:
            message = {"ok": False, "error": {"code": rejection.code, "message": str(rejection)}}
        return {"status": 403, "message": message}

    def _run(self, channel: str, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict) or body.get("type") != "stream_setup":
            raise SetupRejected("The message is no stream_setup.")
        task = self._task(channel, body)
        _check_form(body, task)
        _check_kind(body, task)
        _check_card(body, task)
        phase = body.get("phase", "embedded")
        minutes = body["durationMinutes"]
        if phase == "activate" and not self._known(task, body):
            raise SetupRejected(f"Stream {body['streamId']!r} was not set up, so it cannot be activated.")
        reply = {k: body[k] for k in ("taskId", "streamId", "channel", "direction")}
        reply |= {"phase": phase, "tokenTtlMinutes": minutes + _EXTRA_MINUTES}
        task.streams[body["streamId"]] = {
            k: body.get(k) for k in ("channel", "direction", "format", "affinity", "declaredStream")
        }
        if phase != "activate":
            reply["token"] = self._token("stream_provider", task, body)
        if phase != "token_request":
            self._announce(task, body)
        return reply

    def _task(self, channel: str, body: dict[str, Any]) -> Task:
        task = self._backend.tasks.get(str(body.get("taskId")))
        if (
            task is None
            or channel != f"setup.{task.org_id}.{task.task_id}"
            or body.get("orgId") != task.org_id
        ):
            raise SetupRejected("taskId and orgId do not name the task of this channel.")
        if task.ended:
            raise SetupRejected("The task has ended.", "FailedPrecondition")
        if not task.has_stream:
            raise SetupRejected("Streaming was not negotiated for this task.", "FailedPrecondition")
        if body.get("agentName") != task.agent.name:
            raise SetupRejected(f"agentName must be {task.agent.name!r}.")
        return task

    def _known(self, task: Task, body: dict[str, Any]) -> bool:
        if body["streamId"] in task.streams:
            return True
        shared = body["affinity"] == "shared"
        return shared and any(
            body["streamId"] in t.streams for t in self._backend.tasks.all() if t.agent is task.agent
        )

    def _token(self, kind: str, task: Task, body: dict[str, Any]) -> str:
        ttl_s = self._backend.settings.lifetimes.stream
        if ttl_s is None:
            ttl_s = (body["durationMinutes"] + _EXTRA_MINUTES) * 60.0
        grants = {body["channel"]: READ | WRITE}
        return self._backend.tokens.issue(kind, task.environment, grants, ttl_s, subject=task.task_id).token

    def _announce(self, task: Task, body: dict[str, Any]) -> None:
        token = self._token("stream_consumer", task, body)
        task.stream_tokens.append(token)
        stream = {k: body[k] for k in ("channel", "direction", "format", "affinity")} | {"token": token}
        if "metadata" in body:
            stream["metadata"] = body["metadata"]
        event: dict[str, Any] = {
            "type": "progress",
            "taskId": task.task_id,
            "streamEvent": "stream_started",
            "streams": {body["streamId"]: stream},
        }
        if "declaredStream" in body:
            event["declaredStream"] = body["declaredStream"]
        self._backend.wire.send_event(task.environment, task.channel, task.agent.name, event)


def _check_form(body: dict[str, Any], task: Task) -> None:
    if body.get("protocolVersion") != PROTOCOL_VERSION:
        raise SetupRejected(f"protocolVersion must be {PROTOCOL_VERSION}.")
    stream_id = body.get("streamId")
    if not isinstance(stream_id, str) or not _STREAM_ID.fullmatch(stream_id):
        raise SetupRejected("streamId must be 1 to 92 letters, digits, '-' or '_'.")
    if body.get("channel") != f"stream.{task.agent.name}.{stream_id}":
        raise SetupRejected(f"channel must be stream.{task.agent.name}.{stream_id}.")
    for name, allowed in (("direction", _DIRECTIONS), ("format", _FORMATS), ("affinity", _AFFINITIES)):
        if body.get(name) not in allowed:
            raise SetupRejected(f"{name} must be one of {', '.join(allowed)}.")
    if body.get("phase", "embedded") not in _PHASES:
        raise SetupRejected(f"phase must be one of {', '.join(_PHASES)}.")
    minutes = body.get("durationMinutes")
    if not is_whole(minutes) or minutes < 1:
        raise SetupRejected("durationMinutes must be a positive whole number.")
    if "declaredStream" in body and not isinstance(body["declaredStream"], str):
        raise SetupRejected("declaredStream must be a string.")
    if "metadata" in body and not isinstance(body["metadata"], dict):
        raise SetupRejected("metadata must be an object.")


def _check_kind(body: dict[str, Any], task: Task) -> None:
    if body.get("taskKind") != task.kind:
        raise SetupRejected(f"taskKind must be {task.kind}.")
    shared = body["affinity"] == "shared"
    external = body.get("phase") == "token_request"
    if task.kind == "request" and (body["direction"] != "outbound" or shared or external):
        raise SetupRejected("A request task has outbound, dedicated, embedded streams only.")
    if shared and external:
        raise SetupRejected("A shared stream cannot be external.")
    if shared and body.get("declaredStream") == "_default":
        raise SetupRejected("The stream _default cannot be shared.")


def _check_card(body: dict[str, Any], task: Task) -> None:
    streams = task.agent.streams
    if not streams:
        return
    key = body.get("declaredStream")
    declared = streams.get(key) if isinstance(key, str) else None
    if not isinstance(declared, dict):
        raise SetupRejected(f"The card declares no stream {key!r}.")
    expected = {
        "direction": declared.get("direction"),
        "format": declared.get("format"),
        "affinity": declared.get("affinity", "dedicated"),
    }
    for name, value in expected.items():
        if body[name] != value:
            raise SetupRejected(f"The card declares {name} {value!r} for stream {key!r}, not {body[name]!r}.")
    if expected["affinity"] == "shared" and body["streamId"] != key:
        raise SetupRejected(f"The streamId of a shared stream is its card key {key!r}.")
