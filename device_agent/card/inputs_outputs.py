"""The card's inputs and outputs: what a request task, or the start of a session, takes and returns."""

import json
from collections.abc import Iterable
from typing import Any

from device_agent.card.events import ERROR_REF, ack_members
from device_agent.card.parts import AT, DRY_RUN, ERROR, SEQ, STOP, described, object_of, writable
from device_agent.config import Config
from device_agent.driver import Point
from device_agent.messages.acks import AckState
from device_agent.messages.requests import FILE_ID, FILE_MAX_BYTES, HISTORY_ID, INPUT_ID, RESULT_ID
from device_agent.records import SEND_FILE


def _request_schema(config: Config) -> dict[str, Any]:
    """The schema of the input part `request`, in the dialect that the network allows for forms.

    It tells a caller what exists. The runtime checks whether a named device or point exists, with an error
    code of its own, since this dialect cannot say which point belongs to which device.
    """
    kinds = config.agent.task_kinds
    properties: dict[str, Any] = {}
    if "request" in kinds:
        operations = _operations(config)
        text = f"What to do. {STOP}" if "stop" in operations else "What to do."
        properties["op"] = {"type": "string", "enum": operations, "description": text}
    readable = _readable(config)
    properties["devices"] = {
        "type": "array",
        "description": "Devices to read; all where it is left out.",
        "items": {"type": "string", "enum": readable} if readable else {"type": "string"},
    }
    if "request" in kinds:
        properties |= _command_properties(config) | _history_properties(config)
    if config.history.enabled or "pipe" in kinds:
        properties["every_s"] = {
            "type": "number",
            "minimum": 0,
            "description": "Seconds between a session's readings, or a history's steps.",
        }
    if "pipe" in kinds and config.streams:
        properties["streams"] = {
            "type": "array",
            "description": "Those of a session; all where it is left out.",
            "items": {"type": "string", "enum": list(config.streams)},
        }
    body: dict[str, Any] = {"type": "object", "properties": properties}
    if kinds == ("request",):
        body["required"] = ["op"]
    return body


def inputs(config: Config) -> list[dict[str, Any]]:
    """The entries of `io.inputs`; `file` only where a device takes one."""
    takers = _file_takers(config)
    if "request" not in config.agent.task_kinds or not takers:
        return [_request_input(config)]
    file = {
        "id": FILE_ID,
        "description": f"The file that action {SEND_FILE.name} sends. For: {', '.join(takers)}.",
        "contentType": "application/octet-stream",
        "required": False,
        "accept": ["text/*", "application/octet-stream"],
        "maxSizeBytes": FILE_MAX_BYTES,
    }
    return [_request_input(config), file]


def _file_takers(config: Config) -> list[str]:
    return [name for name, driver in config.drivers.items() if driver.takes_bytes()]


def progress_stream() -> dict[str, Any]:
    """The stream of a request task whose caller asked for one: the progress of its work."""
    members = {
        "kind": {"const": "progress"},
        "at": AT,
        "seq": SEQ,
        "message": {"type": "string"},
        "share": {"type": "number", "minimum": 0, "maximum": 1, "description": "What is done of it."},
    }
    return {
        "direction": "outbound",
        "format": "events",
        "affinity": "dedicated",
        "description": "Request tasks whose caller asked for a stream: the progress of their work.",
        "schema": object_of(members, ["kind", "at", "seq", "message"]),
    }


def _request_input(config: Config) -> dict[str, Any]:
    """The entry of `io.inputs`. Required only where there are no pipe tasks: a session needs no body."""
    pipe = "pipe" in config.agent.task_kinds
    request = "request" in config.agent.task_kinds
    uses = []
    if request:
        uses.append("a question (`op`)")
    if pipe:
        uses.append("the wishes for a session (streams, devices, every_s)")
    example: dict[str, Any] = {"op": "read"} if request else {"every_s": 10}
    if readable := _readable(config):
        example["devices"] = readable[:1]
    shown = {name for stream in config.streams.values() if stream.outward for name in stream.devices}
    others = [name for name in config.devices if name not in shown]
    return {
        "id": INPUT_ID,
        "description": f"JSON with {' or '.join(uses)}."
        + f" Devices: {inventory(config, others)}." * bool(others),
        "contentType": "application/json",
        "required": not pipe,
        "schema": _request_schema(config),
        "example": example,
    }


def outputs(config: Config) -> list[dict[str, Any]]:
    """The entries of `io.outputs`: what request tasks return."""
    if "request" not in config.agent.task_kinds:
        return []
    entries: list[dict[str, Any]] = [
        {
            "id": RESULT_ID,
            "description": "What became of the request: its state, and readings, devices, ack or error.",
            "contentType": "application/json",
            "guaranteed": True,
            "schema": _result_schema(config),
        }
    ]
    if config.history.enabled:
        entries.append(
            {
                "id": HISTORY_ID,
                "description": "The readings of op history: JSON, or CSV or PNG as `format` asks.",
                "contentType": "application/json",
                "guaranteed": False,
            }
        )
    files = {
        action.gives: f"{name}.{action.name}"
        for name, driver in config.drivers.items()
        for action in driver.actions
        if action.gives
    }
    if files:
        entries.append(
            {
                "id": FILE_ID,
                "description": f"What these actions of op do give: {', '.join(sorted(files.values()))}.",
                "contentType": next(iter(files)) if len(files) == 1 else "application/octet-stream",
                "guaranteed": False,
            }
        )
    return entries


def _readable(config: Config) -> list[str]:
    return [name for name in config.devices if config.points(name)]


def _operations(config: Config) -> list[str]:
    moves = any(writable(config, name) for name in config.devices)
    able = {
        "read": True,
        "set": moves,
        "do": any(driver.all_actions() for driver in config.drivers.values()) or bool(config.delegations),
        "describe": True,
        "history": config.history.enabled,
        "stop": moves,
    }
    return [operation for operation, possible in able.items() if possible]


def _command_properties(config: Config) -> dict[str, Any]:
    operations = _operations(config)
    movable = [
        name for name in config.devices if writable(config, name) or config.drivers[name].all_actions()
    ]
    movable += config.delegations
    if not movable:
        return {}
    properties: dict[str, Any] = {
        "device": {"type": "string", "enum": movable, "description": "set, do: the device."}
    }
    if "set" in operations:
        properties["values"] = _values_property(config)
        properties["for_s"] = {
            "type": "number",
            "minimum": 0,
            "description": "set: go back to the safe value after this many seconds.",
        }
    if "do" in operations:
        actions = {a.name: None for driver in config.drivers.values() for a in driver.all_actions()}
        if config.delegations:
            actions["ask"] = None
        properties["action"] = {"type": "string", "enum": list(actions), "description": "do: the action."}
        properties["args"] = {"type": "object", "description": f"do: its arguments.{_actions(config)}"}
    properties["dry_run"] = {"type": "boolean", "description": f"set, do: {DRY_RUN['description']}"}
    return properties


def _values_property(config: Config) -> dict[str, Any]:
    """One property for each name of a writable point; bounds only where one device alone has the name."""
    owners: dict[str, list[str]] = {}
    for device in config.devices:
        for point in writable(config, device):
            owners.setdefault(point.name, []).append(device)
    members: dict[str, Any] = {}
    sentences: list[str] = []
    told = _commanded(config)
    for name, devices in owners.items():
        points = [point for device in devices for point in writable(config, device) if point.name == name]
        sentences += [
            f" {device}.{name}: {_range(point)}, safe {json.dumps(config.safe(device).get(name))}"
            for device, point in zip(devices, points, strict=True)
            if device not in told
        ]
        if len({point.type for point in points}) == 1:
            numeric = len(points) == 1 and points[0].type in ("number", "integer")
            bounds = {"minimum": points[0].minimum, "maximum": points[0].maximum} if numeric else {}
            members[name] = described({"type": points[0].type, **bounds})
    return {
        "type": "object",
        "description": f"set: points to values.{';'.join(sentences)}",
        "properties": members,
    }


def _commanded(config: Config) -> set[str]:
    """Devices whose commands a stream takes, where its schema tells all about them."""
    streams = config.streams.values()
    return {name for one in streams if one.inward and one.format == "events" for name in one.devices}


def _range(point: Point) -> str:
    if point.type not in ("number", "integer"):
        return {"boolean": "true or false", "string": "text"}[point.type]
    low = "" if point.minimum is None else f" from {point.minimum:g}"
    high = "" if point.maximum is None else f" to {point.maximum:g}"
    unit = f" {point.unit}" if point.unit not in ("", "1") else ""
    return f"a number{low}{high}{unit}"


def _actions(config: Config) -> str:
    told = _commanded(config)
    calls = [
        f" {device}.{action.name}({', '.join(argument.name for argument in action.arguments)})"
        for device, driver in config.drivers.items()
        for action in driver.all_actions()
        if device not in told or action.gives or action.name == SEND_FILE.name
    ]
    calls += [
        f" {name}.ask({'question' if rule.asks_question else ''})"
        for name, rule in config.delegations.items()
    ]
    return ";".join(calls)


def _history_properties(config: Config) -> dict[str, Any]:
    if not config.history.enabled:
        return {}
    return {
        "from": {"type": "string", "description": "history: 2026-05-01T06:00:00Z, or epoch milliseconds."},
        "to": {"type": "string", "description": "Now where it is left out."},
        "zone": {
            "type": "string",
            "description": "Of steps of whole days: Europe/Berlin, or local (the device's); else UTC.",
        },
        "format": {"type": "string", "enum": ["json", "csv", "png"], "default": "json"},
    }


def _result_schema(config: Config) -> dict[str, Any]:
    device = {"$ref": "#/$defs/device"}
    return {
        "type": "object",
        "required": ["op", "state"],
        "properties": {
            "op": {"enum": [*_operations(config), "unknown"]},
            "state": {"enum": [state.value for state in AckState]},
            "readings": _objects(device=device, at=AT, values={"type": "object"}),
            "unavailable": _objects(device=device, reason={"type": "string"}),
            "devices": {"type": "array", "description": "describe: each device with points and actions."},
            "ack": {"type": "object", "required": ["state"], "properties": ack_members()},
            "count": {"type": "integer", "minimum": 0},
            "from": {"type": "integer"},
            "to": {"type": "integer"},
            "error": ERROR_REF,
        },
        "$defs": {"device": {"enum": list(config.devices)}, "error": ERROR},
    }


def _objects(**members: dict[str, Any]) -> dict[str, Any]:
    """A list of objects that have at least these members."""
    item = {"type": "object", "required": list(members), "properties": members}
    return {"type": "array", "items": item}


def inventory(config: Config, devices: Iterable[str]) -> str:
    """ "climate (temperature Cel, humidity %), door (active)": what there is, in one line."""
    parts = []
    for name in devices:
        points = ", ".join(
            f"{point.name} {point.unit}" if point.unit not in ("", "1") else point.name
            for point in config.points(name)
        )
        parts.append(f"{name} ({points})" if points else name)
    return ", ".join(parts) or "none yet"
