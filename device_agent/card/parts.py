"""Pieces that the schemas of events and of commands share."""

import json
from collections.abc import Iterable
from typing import Any

from device_agent.config import Config
from device_agent.driver import Point

DIALECT = "https://json-schema.org/draft/2020-12/schema"

STATUS_REASONS = (
    "absent",
    "wrong_chip",
    "chip_reset",
    "checksum",
    "not_understood",
    "timeout",
    "bus_fault",
    "unplugged",
    "busy",
    "permission",
    "driver_error",
)
ERROR_CODES = (
    "unknown_device",
    "unknown_point",
    "invalid_value",
    "out_of_range",
    "read_only",
    "expired",
    "not_allowed",
    "leased",
    "interlocked",
    "too_soon",
    "device_offline",
    "bus_timeout",
    "clock_unset",
    "internal",
)
TTL_DEFAULT_MS = 5000
STOP = "stop: every actuator to safe at once; nothing moves until somebody releases it at the device."

AT = {"type": "integer", "description": "Epoch ms of the measurement."}
CLOCK = {"const": "unset", "description": "Time unknown: `at` counts from the start of the machine, `boot`."}
BOOT = {"type": "string"}
SEQ = {"type": "integer", "minimum": 1, "description": "Without holes."}
LATE = {"const": True, "description": "From the buffer."}
ERROR = {
    "type": "object",
    "required": ["code", "message"],
    "additionalProperties": False,
    "properties": {"code": {"enum": list(ERROR_CODES)}, "message": {"type": "string"}},
}
ID = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "description": "New for each command: a used one moves nothing.",
}
TTL = {
    "type": "integer",
    "minimum": 0,
    "maximum": 86_400_000,
    "default": TTL_DEFAULT_MS,
    "description": "After this the command is refused.",
}
DRY_RUN = {"type": "boolean", "description": "Only say what would happen; nothing moves."}


def writable(config: Config, device: str) -> tuple[Point, ...]:
    """The points of one device that can be set."""
    return tuple(point for point in config.points(device) if point.write)


def variant(text: str, kind: str, members: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """One kind of event or command, beside the members that all of its schema share."""
    schema: dict[str, Any] = {"description": text} if text else {}
    if required:
        schema["required"] = list(required)
    return {**schema, "properties": {"kind": {"const": kind}, **members}}


def by_device(forms: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A form for each device, which it names; devices whose forms are alike share one."""
    alike: dict[str, list[str]] = {}
    for device, form in forms:
        alike.setdefault(json.dumps(form), []).append(device)
    made = []
    for text, devices in alike.items():
        form = json.loads(text)
        named = {"const": devices[0]} if len(devices) == 1 else {"enum": devices}
        made.append({**form, "properties": {"device": named, **form["properties"]}})
    return made


def object_of(
    properties: dict[str, Any], required: list[str] | None = None, description: str = ""
) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    if required:
        schema["required"] = required
    if description:
        schema["description"] = description
    return schema


def short(value: Any) -> Any:
    """A number in its shortest form: 85, not 85.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def described(schema: dict[str, Any], description: str = "", unit: str = "") -> dict[str, Any]:
    """With what is said about it, without bounds that it has not."""
    full = {key: short(value) for key, value in schema.items() if value is not None}
    if unit:
        full["unit"] = str(unit)
    if description:
        full["description"] = description
    return full
