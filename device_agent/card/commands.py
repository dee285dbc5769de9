"""The schema of what a caller may send on a stream (docs/events.md), for the stream's devices.

What can be set has its `unit` (UCUM), its `safe` value and its `limits` as annotations.
"""

from typing import Any

from device_agent.card.events import delegations_on
from device_agent.card.parts import DIALECT, DRY_RUN, ID, TTL, described, event, object_of, writable
from device_agent.config import Config, StreamConfig
from device_agent.config.delegation import Delegation
from device_agent.driver import Action, ActuatorConfig, Argument, Point

_LIMITS = ("max_on_s", "min_off_s", "max_step", "max_rate_per_s", "max_cycles_per_hour")


def inbound(config: Config, stream: StreamConfig) -> dict[str, Any]:
    """What a caller may send on this events stream."""
    forms = [_set_command(config, name) for name in stream.devices if writable(config, name)]
    for name in stream.devices:
        # An action that makes a file is for request tasks: no event can carry it.
        forms += [_do_command(name, one) for one in config.drivers[name].actions if not one.gives]
    if any(writable(config, name) for name in stream.devices):
        forms.append(_stop())
    forms += [_ask_command(name, config.delegations[name]) for name in delegations_on(config, stream)]
    if stream.affinity == "dedicated":
        forms += _session_commands(stream)
    return {
        "$schema": DIALECT,
        "description": "One command or session word. A command is answered by an `ack` with its id.",
        "oneOf": forms,
    }


def _set_command(config: Config, device: str) -> dict[str, Any]:
    """`set` for one device: its writable points with their bounds, safe values and limits."""
    points = {point.name: _settable(config, device, point) for point in writable(config, device)}
    members = {
        "kind": {"const": "set"},
        "id": ID,
        "device": {"const": device},
        "values": {**object_of(points), "minProperties": 1},
        "ttl_ms": TTL,
        "dry_run": DRY_RUN,
    }
    return event(f"Set {device}", members, required=("id", "device", "values"))


def _settable(config: Config, device: str, point: Point) -> dict[str, Any]:
    """What may be written to a point."""
    schema: dict[str, Any] = {"type": point.type}
    if point.type in ("number", "integer"):
        schema |= {"minimum": point.minimum, "maximum": point.maximum}
    schema = described(schema, point.description, point.unit)
    schema["safe"] = config.safe(device).get(point.name)
    own = config.devices[device]
    if isinstance(own, ActuatorConfig):
        limits = {name: value for name in _LIMITS if (value := getattr(own, name)) is not None}
        if own.interlock:
            limits["interlock"] = list(own.interlock)
        if limits:
            schema["limits"] = limits
    return schema


def _do_command(device: str, action: Action) -> dict[str, Any]:
    required = [argument.name for argument in action.arguments if argument.required]
    members = {
        "kind": {"const": "do"},
        "id": ID,
        "device": {"const": device},
        "action": {"const": action.name},
        "args": object_of({argument.name: _argument(argument) for argument in action.arguments}, required),
        "ttl_ms": TTL,
        "dry_run": DRY_RUN,
    }
    wanted = ("id", "device", "action", *(("args",) if required else ()))
    form = event(f"{action.name} of {device}", members, required=wanted)
    return {**form, "description": action.description} if action.description else form


def _stop() -> dict[str, Any]:
    form = event("Emergency stop", {"kind": {"const": "stop"}, "id": ID}, required=("id",))
    text = "Every actuator to safe at once; nothing moves until somebody releases it at the device."
    return {**form, "description": text}


def _ask_command(name: str, rule: Delegation) -> dict[str, Any]:
    question = {"question": {"type": "string", "maxLength": 2000}}
    members = {
        "kind": {"const": "do"},
        "id": ID,
        "device": {"const": name},
        "action": {"const": "ask"},
        "args": object_of(question, ["question"]) if rule.asks_question else object_of({}),
        "ttl_ms": TTL,
        "dry_run": DRY_RUN,
    }
    wanted = ("id", "device", "action", *(("args",) if rule.asks_question else ()))
    text = "Asks an AI agent; the answer comes as a `control` event about the delegation."
    return {**event(f"ask {name}", members, required=wanted), "description": text}


def _argument(argument: Argument) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": argument.type}
    if argument.type in ("number", "integer"):
        schema |= {"minimum": argument.minimum, "maximum": argument.maximum}
    return described(schema, argument.description, argument.unit)


def _session_commands(stream: StreamConfig) -> list[dict[str, Any]]:
    devices = {"enum": list(stream.devices)}
    every_s = {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400, "unit": "s"}
    band = {"type": "number", "minimum": 0, "description": "Smallest change worth an event."}
    commands: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
        "pause": ({}, (), "Stop sending readings until resume."),
        "resume": ({}, (), "Send readings again."),
        "rate": (
            {"device": devices, "every_s": every_s, "on_change": {"type": "boolean"}, "dead_band": band},
            (),
            "How often readings come; without `device` for all.",
        ),
        "select": (
            {"devices": {"type": "array", "items": devices}},
            ("devices",),
            "Send readings of these devices alone.",
        ),
        "replay": (
            {"from_seq": {"type": "integer", "minimum": 1}},
            ("from_seq",),
            "Send stored events again.",
        ),
    }
    return [
        {**event(word, {"kind": {"const": word}, **members}, required), "description": text}
        for word, (members, required, text) in commands.items()
    ]
