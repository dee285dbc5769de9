"""What callers may send on a stream (docs/events.md), checked for form and against what devices declare."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from device_agent.errors import Rejected
from device_agent.records import Action, Argument, Point, Value, is_number

# A command is small; a caller that sends more is refused before anything is built from it.
VALUES_MAX = 64
TEXT_MAX = 4096

ID_MAX_BYTES = 200


def _short(id_: str) -> str:
    try:
        size_bytes = len(id_.encode())
    except UnicodeEncodeError:
        raise ValueError("the id has half a character (a surrogate), which no text can hold") from None
    if size_bytes > ID_MAX_BYTES:
        raise ValueError(f"the id has {size_bytes} bytes, at most {ID_MAX_BYTES} are taken")
    return id_


Name = Annotated[str, Field(min_length=1, max_length=64)]
CommandId = Annotated[str, Field(min_length=1), AfterValidator(_short)]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Command(_StrictModel):
    id: CommandId
    device: Name
    ttl_ms: int = Field(5000, ge=0, le=86_400_000)
    dry_run: bool = False
    """Say what would happen; nothing moves, and the id is not used up."""


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is not a finite number")
        if isinstance(value, str) and len(value) > TEXT_MAX:
            raise ValueError(f"{name} is longer than {TEXT_MAX} characters")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError(f"{name} has half a character (a surrogate), which no text can hold")
        if isinstance(value, (list, dict)):
            raise ValueError(f"{name} is a {type(value).__name__}, not a number, text, true, false or null")
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
            raise ValueError(f"{name} is beyond 2^53")
    return values


class Set(_Command):
    """Set points of a device."""

    kind: Literal["set"]
    values: dict[Name, Any] = Field(min_length=1, max_length=VALUES_MAX)

    _check = field_validator("values")(_plain)


class Do(_Command):
    """Carry out an action of a device."""

    kind: Literal["do"]
    action: Name
    args: dict[Name, Any] = Field({}, max_length=VALUES_MAX)

    _check = field_validator("args")(_plain)


class Pause(_StrictModel):
    """Send no readings until `resume`."""

    kind: Literal["pause"]


class Resume(_StrictModel):
    """Send readings again."""

    kind: Literal["resume"]


class Rate(_StrictModel):
    """How often, and from which change on, readings of a device (of all, without one) are wanted."""

    kind: Literal["rate"]
    device: Name | None = None
    every_s: float | int | None = Field(None, gt=0, le=86_400)
    on_change: bool | None = None
    dead_band: float | int | None = Field(None, ge=0)


class Select(_StrictModel):
    """Only these devices' readings are wanted."""

    kind: Literal["select"]
    devices: list[Name] = Field(max_length=256)


class Replay(_StrictModel):
    """Send again what is still there, from this number on."""

    kind: Literal["replay"]
    from_seq: int = Field(ge=1, le=2**53)


class Stop(_StrictModel):
    """The emergency stop: everything to safe, and nothing moves until it is released at the device."""

    kind: Literal["stop"]
    id: CommandId


Command = Set | Do
SessionCommand = Pause | Resume | Rate | Select | Replay
_ADAPTER: TypeAdapter[Command | Stop | SessionCommand] = TypeAdapter(
    Annotated[Command | Stop | SessionCommand, Field(discriminator="kind")]
)
# What the agent itself sends; on a stream that two instances share, the other one's events come in as well.
OWN_KINDS = frozenset({"reading", "status", "gap", "ack", "control"})


def parse(event: Any) -> Command | Stop | SessionCommand:
    """Raises Rejected `invalid_value` with a sentence that says which member and why."""
    try:
        return _ADAPTER.validate_python(event)
    except ValidationError as error:
        raise Rejected("invalid_value", explain(error)) from None
    except RecursionError:
        raise Rejected("invalid_value", "the event is nested too deeply") from None


def explain(error: ValidationError) -> str:
    """The first fault of a pydantic error as one sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"] if not _is_tag(part)) or "the event"
    more = f" (and {error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    # Names and tags are echoed, and may be anything.
    text = f"{place[:100]}: {message[:1].lower()}{message[1:300]}{more}"
    return text.encode(errors="replace").decode()


def _is_tag(part: Any) -> bool:
    return part in ("set", "do", "pause", "resume", "rate", "select", "replay")


def id_of(event: Any) -> str:
    """The id of an event that could not be parsed, so that the caller can match the refusal."""
    value = event.get("id") if isinstance(event, dict) else None
    if not isinstance(value, str):
        return ""
    return value[:ID_MAX_BYTES].encode(errors="replace")[:ID_MAX_BYTES].decode(errors="ignore")


def checked_values(values: Mapping[str, Any], points: Mapping[str, Point], device: str) -> dict[str, Value]:
    """Values by point, of the right type and in range. Raises Rejected."""
    clean: dict[str, Value] = {}
    for name, value in values.items():
        point = points.get(name)
        if point is None:
            known = ", ".join(sorted(points)) or "none"
            raise Rejected("unknown_point", f"device {device} has no point {name!r}; it has: {known}")
        if not point.write:
            raise Rejected("read_only", f"{device}.{name} can be read, not set")
        clean[name] = checked_value(value, point, f"{device}.{name}")
    return clean


def checked_value(value: Any, item: Point | Argument, place: str) -> Value:
    """One value against a Point's or Argument's type and bounds. Raises Rejected."""
    if item.type == "boolean":
        good = isinstance(value, bool)
    elif item.type == "string":
        good = isinstance(value, str)
    elif item.type == "integer":
        good = isinstance(value, int) and is_number(value)
    else:
        good = is_number(value)
    if not good:
        raise Rejected("invalid_value", f"{place} takes a {item.type}, not {value!r:.60}")
    low, high = item.minimum, item.maximum
    if item.type in ("number", "integer") and (
        (low is not None and value < low) or (high is not None and value > high)
    ):
        bounds = f"{'' if low is None else f'{low:g}'} to {'' if high is None else f'{high:g}'}"
        unit = f" {item.unit}" if item.unit else ""
        raise Rejected("out_of_range", f"{place} = {value!r} is outside {bounds}{unit}")
    return value  # type: ignore[no-any-return]


def checked_args(action: Action, given: Mapping[str, Any]) -> dict[str, Value]:
    """Arguments of an action, complete, of the right type and in range. Raises Rejected."""
    arguments = {argument.name: argument for argument in action.arguments}
    for name in given:
        if name not in arguments:
            raise Rejected("invalid_value", f"action {action.name} takes no argument {name!r}")
    args: dict[str, Value] = {}
    for name, argument in arguments.items():
        if name in given:
            args[name] = checked_value(given[name], argument, f"{action.name}.{name}")
        elif argument.required:
            raise Rejected("invalid_value", f"action {action.name} needs the argument {name!r}")
    return args
