"""The schema of what the agent sends on a stream of events (docs/events.md), for the stream's devices.

It is for callers that know nothing of this project, people and AI agents: besides types and ranges each
point has its `unit` (UCUM) as an annotation.
"""

from typing import Any

from device_agent.card.parts import (
    AT,
    BOOT,
    CLOCK,
    DIALECT,
    ERROR,
    LATE,
    SEQ,
    STATUS_REASONS,
    described,
    event,
    object_of,
)
from device_agent.config import Config, StreamConfig
from device_agent.driver import Point
from device_agent.messages.acks import AckState
from device_agent.records import DeviceState, Flag

# Members that any event may have.
OPTIONAL = {"boot": BOOT, "clock": CLOCK, "late": LATE}


def outbound(config: Config, stream: StreamConfig) -> dict[str, Any]:
    """What the agent sends on this events stream."""
    forms = [reading(config, name, stream) for name in stream.devices if config.points(name)]
    forms += [_status(stream), _gap(stream)]
    if _carries_acks(config, stream):
        forms.append(ack())
    forms.append(_control(sorted(delegations_on(config, stream))))
    return {
        "$schema": DIALECT,
        "description": "One event. Values are null when nothing may be believed; `flags` then say why.",
        "oneOf": forms,
    }


def reading(config: Config, device: str, stream: StreamConfig | None = None) -> dict[str, Any]:
    """The reading of one device; on a stream that thins, one may stand for several."""
    points = config.points(device)
    thins = stream is not None and stream.overflow == "thin"
    values = {point.name: _sensed(point, mean=thins) for point in points}
    members: dict[str, Any] = {
        "kind": {"const": "reading"},
        "device": {"const": device},
        "at": AT,
        "seq": SEQ,
        "boot": BOOT,
        "values": object_of(values, required=list(values)),
        "clock": CLOCK,
        "flags": {
            "type": "object",
            "description": "Why a value is missing or doubtful, by point.",
            "propertyNames": {"enum": list(values)},
            "additionalProperties": {"enum": [flag.value for flag in Flag]},
        },
        "late": LATE,
    }
    if thins:
        members["thinned"] = _thinned(points)
    return event(f"Reading of {device}", members, required=("device", "at", "seq", "boot", "values"))


def _sensed(point: Point, *, mean: bool) -> dict[str, Any]:
    kind = "number" if point.type == "integer" and mean else point.type
    schema: dict[str, Any] = {"type": [kind, "null"]}
    if kind in ("number", "integer"):
        schema |= {"minimum": point.low, "maximum": point.high}
    return described(schema, point.description, point.unit)


def _thinned(points: tuple[Point, ...]) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        point.name: {"type": ["number", "null"]} for point in points if point.type in ("number", "integer")
    }
    return object_of(
        {
            "count": {"type": "integer", "minimum": 1},
            "from_at": {"type": "integer"},
            "to_at": {"type": "integer"},
            "minimum": object_of(numbers),
            "maximum": object_of(numbers),
        },
        required=["count", "from_at", "to_at", "minimum", "maximum"],
        description="This event stands for `count` readings; `values` are their means.",
    )


def _status(stream: StreamConfig) -> dict[str, Any]:
    members = {
        "device": {"enum": list(stream.devices)},
        "at": AT,
        "seq": SEQ,
        "state": {"enum": [state.value for state in DeviceState]},
        "reason": {"enum": list(STATUS_REASONS)},
        **OPTIONAL,
    }
    return event(
        "Health of a device",
        {"kind": {"const": "status"}, **members},
        required=("device", "at", "seq", "state"),
    )


def _gap(stream: StreamConfig) -> dict[str, Any]:
    number = {
        "type": ["integer", "null"],
        "description": "null where no number had been given, or where nobody knows it.",
    }
    members = {
        "kind": {"const": "gap"},
        "at": AT,
        "seq": SEQ,
        "from_seq": number,
        "to_seq": number,
        "from_at": {"type": "integer"},
        "to_at": {"type": "integer"},
        "count": {"type": ["integer", "null"], "minimum": 0, "description": "null where nobody knows."},
        "device": {"enum": list(stream.devices)},
        "reason": {"enum": ["overflow", "thinned", "power_cut", "device_lost"]},
        **OPTIONAL,
    }
    required = ("at", "seq", "from_seq", "to_seq", "from_at", "to_at", "count", "reason")
    return event("Events that will not come", members, required=required)


def ack(*, numbered: bool = True) -> dict[str, Any]:
    """The answer to a command. Outside a stream (a request's result) it has no number."""
    values = {"type": ["object", "null"]}
    members: dict[str, Any] = {
        "kind": {"const": "ack"},
        "id": {"type": ["string", "null"], "description": "The command's; null where it could not be read."},
        "at": AT,
        "seq": SEQ,
        "state": {
            "enum": [state.value for state in AckState],
            "description": "rejected: nothing moved; unknown: it may have, and the actuator went to safe.",
        },
        "commanded": {**values, "description": "What was asked."},
        "applied": {**values, "description": "What is known to be set."},
        "verified": {"type": "boolean", "description": "True only after it was read back."},
        "error": ERROR,
        "repeated": {"const": True, "description": "This id was answered before: nothing moved now."},
        "dry_run": {"const": True, "description": "It was only asked what would happen: nothing moved."},
        "hand_over": {
            "type": "boolean",
            "description": "With `dry_run`: whether another driver would have to give way.",
        },
        **OPTIONAL,
    }
    if numbered:
        return event("Answer to a command", members, required=("id", "at", "seq", "state"))
    return {"type": "object", "required": ["state"], "properties": members}


def _control(delegations: list[str]) -> dict[str, Any]:
    """About the session, a session command or a delegation; what else it has depends on that."""
    form: dict[str, Any] = {
        "title": "About the session",
        "description": "`session` is the first event; the others answer a session word with `ok` or `error`.",
        "type": "object",
        "required": ["kind", "at", "seq", "about"],
        "properties": {
            "kind": {"const": "control"},
            "at": AT,
            "seq": SEQ,
            "about": {"enum": ["session", "pause", "resume", "rate", "select", "replay"]},
            "devices": {"type": "array"},
            "streams": {"type": "array"},
            "until": {"type": ["integer", "null"], "description": "Epoch milliseconds of the session's end."},
            "ok": {"type": "boolean"},
            "error": ERROR,
            **OPTIONAL,
        },
    }
    if delegations:
        form["properties"]["about"]["enum"].append("delegation")
        form["properties"] |= _delegation(delegations)
    return form


def _delegation(names: list[str]) -> dict[str, Any]:
    """What an event with `about: "delegation"` has besides."""
    text = {"type": "string"}
    return {
        "delegation": {"enum": names, "description": "about delegation: a question to an AI agent."},
        "id": {**text, "description": "Of the question; its events may come twice."},
        "turn": {"enum": ["question", "unclear", "acted", "ended"], "description": "What is answered."},
        "state": {"enum": ["asked", "answered", "no_answer", "failed", "unknown"]},
        "cause": {**text, "description": "Why it was asked."},
        "asked_at": {"type": "integer", "description": "Epoch milliseconds."},
        "do": {**text, "description": "The id of the `do` that asked."},
        "answer": {**text, "description": "Untrusted text of the AI agent."},
        "cut": {"const": True, "description": "The answer was too long for one event."},
        "command": {
            **text,
            "description": "What it chose from the owner's list; `ack` says what became of it.",
        },
        "ack": ack(numbered=False),
        "unclear": {**text, "description": "Why it chose no command."},
    }


def delegations_on(config: Config, stream: StreamConfig) -> list[str]:
    """The names of the delegations whose answers go out on this stream."""
    return [
        name for name, rule in config.delegations.items() if config.streams.get(rule.stream or "") is stream
    ]


def _carries_acks(config: Config, stream: StreamConfig) -> bool:
    """Commands are answered where they came in; those of inbound-only streams on another stream."""
    return stream.inward or any(
        other.direction == "inbound" and other.format == "events" for other in config.streams.values()
    )
