"""What callers may send on a stream (docs/events.md), checked for form and against what devices declare."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from device_agent.errors import Rejected
from device_agent.messages.form import Form, boolean, list_of, number, one_of, optional, text, values_by
from device_agent.records import Action, Argument, Point, Value, is_number

# A command is small; a caller that sends more is refused before anything is built from it.
VALUES_MAX = 64
NAME_MAX = 64
ID_MAX_BYTES = 200

NAME = text(1, NAME_MAX)
Name = Annotated[str, NAME]
CommandId = Annotated[str, text(1, most_bytes=ID_MAX_BYTES)]
Seconds = Annotated[float | None, optional(number(0, most=86_400))]
Boolean = Annotated[bool, boolean]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command(Form):
    id: CommandId
    device: Name
    ttl_ms: Annotated[int, number(least=0, most=86_400_000, whole=True)] = 5000
    dry_run: Boolean = False
    """Say what would happen; nothing moves, and the id is not used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Set(_Command):
    """Set points of a device."""

    kind: Annotated[Literal["set"], one_of("set")] = "set"
    values: Annotated[dict[str, Any], values_by(NAME, 1, VALUES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Do(_Command):
    """Carry out an action of a device."""

    kind: Annotated[Literal["do"], one_of("do")] = "do"
    action: Name
    args: Annotated[dict[str, Any], values_by(NAME, 0, VALUES_MAX)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Form):
    """Send no readings until `resume`."""

    kind: Annotated[Literal["pause"], one_of("pause")] = "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Form):
    """Send readings again."""

    kind: Annotated[Literal["resume"], one_of("resume")] = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Form):
    """How often, and from which change on, readings of a device (of all, without one) are wanted."""

    kind: Annotated[Literal["rate"], one_of("rate")] = "rate"
    device: Annotated[str | None, optional(NAME)] = None
    every_s: Seconds = None
    on_change: Annotated[bool | None, optional(boolean)] = None
    dead_band: Annotated[float | None, optional(number(least=0))] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Form):
    """Only these devices' readings are wanted."""

    kind: Annotated[Literal["select"], one_of("select")] = "select"
    devices: Annotated[list[str], list_of(NAME)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay(Form):
    """Send again what is still there, from this number on."""

    kind: Annotated[Literal["replay"], one_of("replay")] = "replay"
    from_seq: Annotated[int, number(least=1, most=2**53, whole=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Form):
    """The emergency stop: everything to safe, and nothing moves until it is released at the device."""

    kind: Annotated[Literal["stop"], one_of("stop")] = "stop"
    id: CommandId


Command = Set | Do
SessionCommand = Pause | Resume | Rate | Select | Replay
_BY_KIND: dict[Any, type[Command | Stop | SessionCommand]] = {
    "set": Set,
    "do": Do,
    "pause": Pause,
    "resume": Resume,
    "rate": Rate,
    "select": Select,
    "replay": Replay,
    "stop": Stop,
}
# What the agent itself sends; on a stream that two instances share, the other one's events come in as well.
OWN_KINDS = frozenset({"reading", "status", "gap", "ack", "control"})


def parse(event: Any) -> Command | Stop | SessionCommand:
    """Raises Rejected `invalid_value` with a sentence that says which member and why."""
    kind = event.get("kind") if isinstance(event, dict) else None
    form = _BY_KIND.get(kind) if isinstance(kind, str) else None
    if form is None:
        raise Rejected("invalid_value", f"the event: its kind must be one of {', '.join(_BY_KIND)}")
    return form.read(event)


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
