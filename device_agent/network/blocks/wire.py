"""Control messages and task events in the network's format (docs/protocol.md). Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from device_agent.errors import ProtocolFault
from device_agent.network import Caller, Part, StartTask
from device_agent.records import is_whole

log = structlog.get_logger("network")

PROTOCOL_VERSION = "2026-05-01"
PARTS_MAX = 64
ID_MAX = 200
TOKEN_MAX = 8192
DURATION_MAX_MIN = 43_200


@dataclass(frozen=True, slots=True)
class StartRefused:
    """A StartTask to answer with a terminal `failed` if it was sent to this instance, else to ignore."""

    task_id: str
    org: str
    error: str
    version: str = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Begin:
    """A well-formed StartTask, and the renewed control token that it may bring."""

    start: StartTask
    control_token: str


@dataclass(frozen=True, slots=True)
class TaskControl:
    """CancelTask, ExpireTask, TerminateTask, PauseTask, ResumeTask or RetryTask."""

    type: str
    task_id: str


@dataclass(frozen=True, slots=True)
class SwitchEnvironment:
    """Change to the keys of the other environment; channel and instance stay."""

    environment: str
    token: str


Control = StartRefused | Begin | TaskControl | SwitchEnvironment
TASK_CONTROLS = frozenset(
    {"CancelTask", "ExpireTask", "TerminateTask", "PauseTask", "ResumeTask", "RetryTask"}
)


def parse_control(message: Any) -> Control | None:
    """None for a type to be ignored, which this version does not know. Raises ProtocolFault on a bad form."""
    if not isinstance(message, Mapping):
        raise ProtocolFault(f"control message is {type(message).__name__}, not an object")
    kind = message.get("type")
    if kind == "StartTask":
        return _start_task(message)
    if kind == "SwitchEnvironment":
        return _switch(message)
    if isinstance(kind, str) and kind in TASK_CONTROLS:
        return TaskControl(kind, _text(message, "taskId", required=True))
    return None


def _start_task(message: Mapping[str, Any]) -> StartRefused | Begin:
    task_id = _text(message, "taskId", required=True)
    claims = message.get("callerClaims")
    sub = claims.get("sub") if isinstance(claims, Mapping) else None
    owner = _text(message, "ownerId")
    user = owner or (sub if isinstance(sub, str) else "")
    org = _text(message, "orgId")
    channel_org = org or user or "anonymous"
    version = message.get("protocolVersion")
    if version is not None and version != PROTOCOL_VERSION:
        shown = version if isinstance(version, str) else PROTOCOL_VERSION
        return StartRefused(task_id, channel_org, "unsupported_protocol_version", shown[:ID_MAX])
    if isinstance(sub, str) and sub != user:
        # Two names for one caller: access rules must not depend on which of them is believed.
        log.warning("start_task_of_two_callers", task=task_id, owner_id=owner, sub=sub[:ID_MAX])
        return StartRefused(task_id, channel_org, "invalid_start_task")
    kind = message.get("taskKind") or "request"
    duration, expires_at_ms = message.get("duration"), message.get("durationExpiresAtMs")
    if kind not in ("request", "pipe"):
        return StartRefused(task_id, channel_org, "invalid_start_task")
    if kind == "pipe":
        good = is_whole(duration) and 1 <= duration <= DURATION_MAX_MIN
        if not good or not is_whole(expires_at_ms) or expires_at_ms <= 0:
            return StartRefused(task_id, channel_org, "invalid_start_task")
    start = StartTask(
        task_id=task_id,
        kind="pipe" if kind == "pipe" else "request",
        caller=Caller(org=org, user=user),
        org=channel_org,
        parts=_parts(message.get("requestParts")),
        has_stream=message.get("hasStream") is True or kind == "pipe",
        duration_min=int(duration) if kind == "pipe" and duration is not None else None,
        expires_at_ms=int(expires_at_ms) if kind == "pipe" and expires_at_ms is not None else None,
        write_token=_text(message, "writeToken", limit=TOKEN_MAX),
    )
    return Begin(start, _text(message, "controlToken", limit=TOKEN_MAX))


def _switch(message: Mapping[str, Any]) -> SwitchEnvironment:
    version = message.get("protocolVersion")
    if version is not None and version != PROTOCOL_VERSION:
        raise ProtocolFault(
            f"SwitchEnvironment has protocolVersion {str(version)[:40]!r}; only {PROTOCOL_VERSION} is known"
        )
    environment = _text(message, "environment", required=True)
    if environment not in ("playground", "network"):
        raise ProtocolFault(
            f"SwitchEnvironment.environment is {environment[:40]!r}, not playground or network"
        )
    return SwitchEnvironment(environment, _text(message, "pamToken", required=True, limit=TOKEN_MAX))


def _parts(value: Any) -> tuple[Part, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > PARTS_MAX:
        raise ProtocolFault(f"requestParts is not a list of at most {PARTS_MAX}")
    parts = []
    for item in value:
        if not isinstance(item, Mapping):
            raise ProtocolFault("a member of requestParts is not an object")
        text, artifact = item.get("text"), item.get("artifactRef")
        parts.append(
            Part(
                part_id=_text(item, "partId"),
                content_type=_text(item, "contentType"),
                text=text.encode(errors="replace").decode() if isinstance(text, str) else None,
                artifact=artifact if isinstance(artifact, Mapping) else None,
            )
        )
    return tuple(parts)


def _text(message: Mapping[str, Any], name: str, *, required: bool = False, limit: int = ID_MAX) -> str:
    value = message.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or len(value) > limit or (required and not value):
        raise ProtocolFault(f"{name} is not a text of 1 to {limit} characters")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ProtocolFault(f"{name} has half a character (a surrogate), which no text can hold")
    return value


# --- outgoing ----------------------------------------------------------------------------------------------


def task_channel(org: str, task_id: str) -> str:
    return f"u.{org}.{task_id}"


def setup_channel(org: str, task_id: str) -> str:
    return f"setup.{org}.{task_id}"


def stream_channel(agent_name: str, stream_id: str) -> str:
    return f"stream.{agent_name}.{stream_id}"


def task_event(
    task_id: str, type_: str, *, version: str = PROTOCOL_VERSION, **members: Any
) -> dict[str, Any]:
    """A task event; members that are empty or None are left out, but `progress: 0` stays."""
    event = {"type": type_, "taskId": task_id, "protocolVersion": version}
    event.update({name: value for name, value in members.items() if value not in (None, "")})
    return event


def event_meta(agent_name: str, task_id: str) -> dict[str, str]:
    return {"agentName": agent_name, "taskId": task_id, "protocolVersion": PROTOCOL_VERSION}
