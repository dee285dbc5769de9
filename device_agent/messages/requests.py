"""What callers ask in the input part `request` of a task, and how it is read (docs/events.md)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from device_agent.errors import Rejected
from device_agent.messages.commands import NAME, VALUES_MAX, Boolean, Name, Seconds
from device_agent.messages.form import Form, list_of, number, one_of, optional, text, values_by
from device_agent.network import Part

INPUT_ID = "request"
RESULT_ID = "result"
HISTORY_ID = "history"
FILE_ID = "file"
# The network's ceiling of an input.
FILE_MAX_BYTES = 26_214_400
PROGRESS_STREAM = "_default"

F = TypeVar("F", bound=Form)

Devices = Annotated[list[str] | None, optional(list_of(text(), 1))]


def _instant(value: Any) -> str:
    good = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return "" if good else "input should be epoch milliseconds or a text in ISO 8601"


Instant = Annotated[int | str | None, optional(_instant)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeRequest(Form):
    """Which streams and devices a session is about, all of them by default, and how often they are read."""

    streams: Annotated[list[str] | None, optional(list_of(text(), 1, 64))] = None
    devices: Devices = None
    every_s: Seconds = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest(Form):
    """Present readings of these devices, of all without a list."""

    op: Annotated[Literal["read"], one_of("read")] = "read"
    devices: Devices = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRequest(Form):
    """Set points; with `for_s` they go back to safe after that time."""

    op: Annotated[Literal["set"], one_of("set")] = "set"
    device: Name
    values: Annotated[dict[str, Any], values_by(NAME, 1, VALUES_MAX)]
    for_s: Seconds = None
    dry_run: Boolean = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DoRequest(Form):
    """Carry out an action."""

    op: Annotated[Literal["do"], one_of("do")] = "do"
    device: Name
    action: Name
    args: Annotated[dict[str, Any], values_by(NAME, 0, VALUES_MAX)] = field(default_factory=dict)
    dry_run: Boolean = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRequest(Form):
    """Recorded readings of these devices (of all without a list), from one instant to another.

    An instant is epoch milliseconds or ISO 8601; without any, the last day. `zone` is for steps of days.
    """

    op: Annotated[Literal["history"], one_of("history")] = "history"
    devices: Devices = None
    from_: Instant = None
    to: Instant = None
    every_s: Annotated[float | None, optional(number(0, most=31_622_400))] = None
    zone: Annotated[str | None, optional(text(1, 64))] = None
    format: Annotated[Literal["json", "csv", "png"], one_of("json", "csv", "png")] = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeRequest(Form):
    """What devices there are, with points, units and ranges."""

    op: Annotated[Literal["describe"], one_of("describe")] = "describe"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest(Form):
    """The emergency stop: everything to safe, and nothing moves until it is released at the device."""

    op: Annotated[Literal["stop"], one_of("stop")] = "stop"


Request = ReadRequest | SetRequest | DoRequest | DescribeRequest | HistoryRequest | StopRequest
_BY_OP: dict[Any, type[Request]] = {
    "read": ReadRequest,
    "set": SetRequest,
    "do": DoRequest,
    "describe": DescribeRequest,
    "history": HistoryRequest,
    "stop": StopRequest,
}


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("invalid_value", f"{INPUT_ID}: invalid JSON: {error}") from None


def _read(form: type[F], content: Any) -> F:
    try:
        return form.read(content)
    except Rejected as fault:
        raise Rejected(fault.code, f"{INPUT_ID}: {fault.message}") from None


def parse_request(parts: Sequence[Part], *, takes_file: bool) -> tuple[Request, Part | None]:
    """The request of a request task, and the file that comes with it. `takes_file`: the card declares one.

    Raises Rejected `invalid_value` with a sentence that says which part or field, and why.
    """
    inputs = [INPUT_ID, FILE_ID] if takes_file else [INPUT_ID]
    by_id: dict[str, Part] = {}
    for part in parts:
        if part.part_id not in inputs:
            known = ", ".join(inputs)
            raise Rejected("invalid_value", f"there is no input {part.part_id!r}; there is: {known}")
        if part.part_id in by_id:
            raise Rejected("invalid_value", f"the input part {part.part_id!r} came more than once")
        by_id[part.part_id] = part
    if INPUT_ID not in by_id:
        raise Rejected("invalid_value", f"the input part {INPUT_ID!r} is missing")
    text, file = by_id[INPUT_ID].text, by_id.get(FILE_ID)
    if text is None:
        raise Rejected("invalid_value", f"the input part {INPUT_ID!r} is a file; it takes JSON text")
    content = _decoded(text)
    op = content.get("op") if isinstance(content, dict) else None
    if not isinstance(op, str) or op not in _BY_OP:
        raise Rejected("invalid_value", f"{INPUT_ID}: op must be one of {', '.join(_BY_OP)}")
    request = _read(_BY_OP[op], content)
    if file is not None and request.op != "do":
        raise Rejected("invalid_value", f"{FILE_ID}: op {request.op} takes no file")
    if file is not None and file.text is None and file.artifact is None:
        raise Rejected("invalid_value", f"{FILE_ID}: the part is neither a text nor a file")
    return request, file


def asks_for_stop(parts: Sequence[Part]) -> bool:
    """Whether this is the emergency stop, and in good form."""
    try:
        return isinstance(parse_request(parts, takes_file=False)[0], StopRequest)
    except Rejected:
        return False


def parse_pipe_request(parts: Sequence[Part]) -> PipeRequest:
    """The request of a pipe task, which may be left out. Raises Rejected `invalid_value`."""
    for part in parts:
        if part.part_id != INPUT_ID:
            raise Rejected(
                "invalid_value",
                f"there is no input {part.part_id!r}; a pipe task takes the part {INPUT_ID!r}",
            )
        return _read(PipeRequest, _decoded(part.text or "{}"))
    return PipeRequest()
