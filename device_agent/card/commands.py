"""The schema of what a caller may send on a stream (docs/events.md), for the stream's devices.

What can be set has its `unit` (UCUM), its `safe` value and its `limits` as annotations.
"""

from typing import Any

from device_agent.card.events import delegations_on
from device_agent.card.parts import (
    DIALECT,
    DRY_RUN,
    ID,
    STOP,
    TTL,
    by_device,
    described,
    object_of,
    short,
    variant,
    writable,
)
from device_agent.config import Config, StreamConfig
from device_agent.config.delegation import Delegation
from device_agent.driver import Action, ActuatorConfig, Argument, Point

_LIMITS = ("max_on_s", "min_off_s", "max_step", "max_rate_per_s", "max_cycles_per_hour")


def inbound(config: Config, stream: StreamConfig) -> dict[str, Any]:
    """What a caller may send on this events stream."""
    driven = [name for name in stream.devices if writable(config, name)]
    commands = [(name, _set_command(config, name)) for name in driven]
    for name in stream.devices:
        # An action that makes a file is for request tasks: no event can carry it.
        commands += [(name, _do_command(one)) for one in config.drivers[name].actions if not one.gives]
    commands += [(name, _ask_command(config.delegations[name])) for name in delegations_on(config, stream)]
    forms = by_device(commands) + [_stop()] * bool(driven)
    if stream.affinity == "dedicated":
        forms += _session_commands()
    return {
        "$schema": DIALECT,
        "description": "A command, answered by an `ack` with its id, or a session word.",
        "type": "object",
        "required": ["kind"],
        "oneOf": forms,
        "unevaluatedProperties": False,
        "$defs": {
            "command": {
                "required": ["id", "device"],
                "properties": {"id": ID, "ttl_ms": TTL, "dry_run": DRY_RUN},
            },
            "device": {"enum": list(stream.devices)},
        },
    }


def _set_command(config: Config, device: str) -> dict[str, Any]:
    """`set` for one device: its writable points with their bounds, safe values and limits."""
    points = {point.name: _settable(config, device, point) for point in writable(config, device)}
    return _command("set", {"values": {**object_of(points), "minProperties": 1}}, "values")


def _command(kind: str, members: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"$ref": "#/$defs/command", **variant("", kind, members, required)}


def _settable(config: Config, device: str, point: Point) -> dict[str, Any]:
    """What may be written to a point."""
    schema: dict[str, Any] = {"type": point.type}
    if point.type in ("number", "integer"):
        schema |= {"minimum": point.minimum, "maximum": point.maximum}
    schema = described(schema, point.description, point.unit)
    schema["safe"] = short(config.safe(device).get(point.name))
    own = config.devices[device]
    if isinstance(own, ActuatorConfig):
        limits = {name: short(value) for name in _LIMITS if (value := getattr(own, name)) is not None}
        if own.interlock:
            limits["interlock"] = list(own.interlock)
        if limits:
            schema["limits"] = limits
    return schema


def _do_command(action: Action) -> dict[str, Any]:
    arguments = {argument.name: _argument(argument) for argument in action.arguments}
    required = [argument.name for argument in action.arguments if argument.required]
    return _do(action.name, object_of(arguments, required), action.description)


def _do(action: str, arguments: dict[str, Any], description: str) -> dict[str, Any]:
    members = {"action": {"const": action}, "args": arguments}
    form = _command("do", members, "action", *(("args",) if "required" in arguments else ()))
    return described(form, description)


def _stop() -> dict[str, Any]:
    return variant(STOP, "stop", {"id": ID}, ("id",))


def _ask_command(rule: Delegation) -> dict[str, Any]:
    question = {"question": {"type": "string", "maxLength": 2000}}
    arguments = object_of(question, ["question"]) if rule.asks_question else object_of({})
    text = "Asks an AI agent; the answer comes as a `control` event about the delegation."
    return _do("ask", arguments, text)


def _argument(argument: Argument) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": argument.type}
    if argument.type in ("number", "integer"):
        schema |= {"minimum": argument.minimum, "maximum": argument.maximum}
    return described(schema, argument.description, argument.unit)


def _session_commands() -> list[dict[str, Any]]:
    device = {"$ref": "#/$defs/device"}
    every_s = {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400}
    rate = {
        "device": device,
        "every_s": every_s,
        "on_change": {"type": "boolean"},
        "dead_band": {"type": "number", "minimum": 0, "description": "Smaller changes are no event."},
    }
    return [
        {"properties": {"kind": {"enum": ["pause", "resume"]}}},
        variant("Without `device` for all.", "rate", rate),
        variant("", "select", {"devices": {"type": "array", "items": device}}, ("devices",)),
        variant("", "replay", {"from_seq": {"type": "integer", "minimum": 1}}, ("from_seq",)),
    ]
