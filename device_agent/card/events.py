"""The schema of what the agent sends on a stream of events (docs/events.md), for the stream's devices.

It is for callers that know nothing of this project, people and AI agents: besides types and ranges each
point has its `unit` (UCUM) as an annotation.
"""

from collections.abc import Iterable
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
    by_device,
    described,
    object_of,
    variant,
)
from device_agent.config import Config, StreamConfig
from device_agent.driver import Point
from device_agent.messages.acks import AckState
from device_agent.records import DeviceState, Flag

ERROR_REF = {"$ref": "#/$defs/error"}


def outbound(config: Config, stream: StreamConfig) -> dict[str, Any]:
    """What the agent sends on this events stream: what all events have, then what each kind adds."""
    kinds = [_readings(config, stream)] if any(config.points(name) for name in stream.devices) else []
    kinds += [_status(), _gap()]
    answers = _carries_answers(config, stream)
    if answers:
        kinds.append(variant("", "ack", {"device": False, **ack_members()}, ("id", "state")))
    delegations = sorted(delegations_on(config, stream))
    kinds.append(_control(answers, delegations))
    schema = {
        "$schema": DIALECT,
        "type": "object",
        "required": ["kind", "at", "seq"],
        "properties": {
            "at": AT,
            "seq": SEQ,
            "boot": BOOT,
            "clock": CLOCK,
            "late": LATE,
            "device": {"enum": list(stream.devices)},
        },
        "oneOf": kinds,
        "unevaluatedProperties": False,
    }
    return schema | ({"$defs": {"error": ERROR}} if answers or delegations else {})


def _readings(config: Config, stream: StreamConfig) -> dict[str, Any]:
    """The readings of all devices; on a stream that thins, one may stand for several."""
    thins = stream.overflow == "thin"
    members: dict[str, Any] = {
        "values": {"type": "object", "description": "Null: nothing may be believed; `flags` say why."},
        "flags": {"type": "object", "additionalProperties": {"enum": [flag.value for flag in Flag]}},
    }
    if thins:
        spread = {"type": "object", "additionalProperties": {"type": ["number", "null"]}}
        numbers = {
            "count": {"type": "integer", "minimum": 1},
            "from_at": {"type": "integer"},
            "to_at": {"type": "integer"},
        }
        members["thinned"] = object_of(
            {**numbers, "minimum": spread, "maximum": spread},
            required=[*numbers, "minimum", "maximum"],
            description="Stands for `count` readings; `values` are their means.",
        )
    forms = [(name, _reading(points, thins)) for name in stream.devices if (points := config.points(name))]
    return {**variant("", "reading", members, ("device", "boot", "values")), "oneOf": by_device(forms)}


def _reading(points: tuple[Point, ...], thins: bool) -> dict[str, Any]:
    """Of a device with these points: no others, and none is missing."""
    values = {point.name: _sensed(point, mean=thins) for point in points}
    members: dict[str, Any] = {
        "values": {"properties": values, "additionalProperties": False, "minProperties": len(values)},
        "flags": _named(values),
    }
    if thins:
        spread = _named([point.name for point in points if point.type in ("number", "integer")])
        members["thinned"] = {"additionalProperties": spread}
    return {"properties": members}


def _named(names: Iterable[str]) -> dict[str, Any]:
    allowed = list(names)
    return {"propertyNames": {"enum": allowed}} if allowed else {"maxProperties": 0}


def _sensed(point: Point, *, mean: bool) -> dict[str, Any]:
    kind = "number" if point.type == "integer" and mean else point.type
    schema: dict[str, Any] = {"type": [kind, "null"]}
    if kind in ("number", "integer"):
        schema |= {"minimum": point.low, "maximum": point.high}
    return described(schema, point.description, point.unit)


def _status() -> dict[str, Any]:
    members = {
        "state": {"enum": [state.value for state in DeviceState]},
        "reason": {"enum": list(STATUS_REASONS)},
    }
    return variant("", "status", members, ("device", "state"))


def _gap() -> dict[str, Any]:
    number = {"type": ["integer", "null"]}
    members = {
        "from_seq": number,
        "to_seq": number,
        "from_at": {"type": "integer"},
        "to_at": {"type": "integer"},
        "count": {**number, "minimum": 0, "description": "null: nobody knows."},
        "reason": {"enum": ["overflow", "thinned", "power_cut", "device_lost"]},
    }
    return variant("Events that will not come.", "gap", members, tuple(members))


def ack_members() -> dict[str, Any]:
    """The answer to a command, in an event and in a request's result; `error` refers to `$defs`."""
    values = {"type": ["object", "null"]}
    return {
        "id": {"type": ["string", "null"]},
        "state": {
            "enum": [state.value for state in AckState],
            "description": "rejected: nothing moved; unknown: it may have, and the actuator went to safe.",
        },
        "commanded": values,
        "applied": {**values, "description": "What is known to be set."},
        "verified": {"type": "boolean", "description": "Read back."},
        "error": ERROR_REF,
        "repeated": {"const": True, "description": "A used id: nothing moved now."},
        "dry_run": {"const": True},
        "hand_over": {"type": "boolean", "description": "With dry_run: another driver would give way."},
    }


def _control(answers: bool, delegations: list[str]) -> dict[str, Any]:
    """About the session, a session command or a delegation; what else it has depends on that."""
    about = ["session", *(("pause", "resume", "rate", "select", "replay") if answers else ())]
    members: dict[str, Any] = {
        "about": {"enum": about + ["delegation"] * bool(delegations)},
        "devices": {"type": "array"},
        "streams": {"type": "array"},
        "until": {"type": ["integer", "null"], "description": "End of the session, epoch ms."},
        "ok": {"type": "boolean"} if answers else False,
        "error": ERROR_REF if answers or delegations else False,
    }
    if delegations:
        members |= _delegation(delegations)
    return {**variant("", "control", members, ("about",)), "additionalProperties": True}


def _delegation(names: list[str]) -> dict[str, Any]:
    """What an event with `about: "delegation"` has besides."""
    text = {"type": "string"}
    return {
        "delegation": {"enum": names, "description": "about delegation: a question to an AI agent."},
        "id": {**text, "description": "Of the question; its events may come twice."},
        "turn": {"enum": ["question", "unclear", "acted", "ended"], "description": "What is answered."},
        "state": {"enum": ["asked", "answered", "no_answer", "failed", "unknown"]},
        "cause": {**text, "description": "Why it was asked."},
        "asked_at": {"type": "integer", "description": "Epoch ms."},
        "do": {**text, "description": "The id of the `do` that asked."},
        "answer": {**text, "description": "Untrusted text of the AI agent."},
        "cut": {"const": True, "description": "The answer was too long for one event."},
        "command": {**text, "description": "Its choice from the owner's list; `ack` says what became of it."},
        "ack": {"type": "object", "required": ["state"], "properties": ack_members()},
        "unclear": {**text, "description": "Why it chose no command."},
    }


def delegations_on(config: Config, stream: StreamConfig) -> list[str]:
    """The names of the delegations whose answers go out on this stream."""
    return [
        name for name, rule in config.delegations.items() if config.streams.get(rule.stream or "") is stream
    ]


def _carries_answers(config: Config, stream: StreamConfig) -> bool:
    """Commands are answered where they came in; those of inbound-only streams on another stream."""
    return stream.inward or any(
        other.direction == "inbound" and other.format == "events" for other in config.streams.values()
    )
