"""What callers ask in the input part `request` of a task, and how it is read (docs/events.md)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from device_agent.errors import Rejected
from device_agent.messages.commands import explain
from device_agent.network import Part

INPUT_ID = "request"
RESULT_ID = "result"
HISTORY_ID = "history"
FILE_ID = "file"
# The network's ceiling of an input.
FILE_MAX_BYTES = 26_214_400
PROGRESS_STREAM = "_default"

Instant = Annotated[int | str, Field(union_mode="left_to_right")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PipeRequest(_Request):
    """Which streams and devices a session is about, all of them by default, and how often they are read."""

    streams: list[str] | None = Field(None, min_length=1, max_length=64)
    devices: list[str] | None = Field(None, min_length=1, max_length=256)
    every_s: float | int | None = Field(None, gt=0, le=86_400)


class ReadRequest(_Request):
    """Present readings of these devices, of all without a list."""

    op: Literal["read"]
    devices: list[str] | None = Field(None, min_length=1, max_length=256)


class SetRequest(_Request):
    """Set points; with `for_s` they go back to safe after that time."""

    op: Literal["set"]
    device: str = Field(min_length=1, max_length=64)
    values: dict[str, Any] = Field(min_length=1, max_length=64)
    for_s: float | int | None = Field(None, gt=0, le=86_400)
    dry_run: bool = False


class DoRequest(_Request):
    """Carry out an action."""

    op: Literal["do"]
    device: str = Field(min_length=1, max_length=64)
    action: str = Field(min_length=1, max_length=64)
    args: dict[str, Any] = Field({}, max_length=64)
    dry_run: bool = False


class HistoryRequest(_Request):
    """Recorded readings of these devices (of all without a list), from one instant to another.

    An instant is epoch milliseconds or ISO 8601; without any, the last day.
    """

    op: Literal["history"]
    devices: list[str] | None = Field(None, min_length=1, max_length=256)
    from_: Instant | None = Field(None, alias="from")
    to: Instant | None = None
    every_s: float | int | None = Field(None, gt=0, le=31_622_400)
    format: Literal["json", "csv", "png"] = "json"


class DescribeRequest(_Request):
    """What devices there are, with points, units and ranges."""

    op: Literal["describe"]


class StopRequest(_Request):
    """The emergency stop: everything to safe, and nothing moves until it is released at the device."""

    op: Literal["stop"]


Request = ReadRequest | SetRequest | DoRequest | DescribeRequest | HistoryRequest | StopRequest
_ADAPTER: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


def parse_request(parts: Sequence[Part], *, takes_file: bool) -> tuple[Request, Part | None]:
    """The request of a request task, and the file that comes with it. `takes_file`: the card declares one.

    Raises Rejected `invalid_value` with a explain that says which part or field, and why.
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
    try:
        request = _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise Rejected("invalid_value", f"{INPUT_ID}: {explain(error)}") from None
    if file is not None and request.op != "do":
        raise Rejected("invalid_value", f"{FILE_ID}: op {request.op} takes no file")
    if file is not None and file.text is None and file.artifact is None:
        raise Rejected("invalid_value", f"{FILE_ID}: the part is neither a text nor a file")
    return request, file


def parse_pipe_request(parts: Sequence[Part]) -> PipeRequest:
    """The request of a pipe task, which may be left out. Raises Rejected `invalid_value`."""
    for part in parts:
        if part.part_id != INPUT_ID:
            raise Rejected(
                "invalid_value",
                f"there is no input {part.part_id!r}; a pipe task takes the part {INPUT_ID!r}",
            )
        try:
            return PipeRequest.model_validate_json(part.text or "{}")
        except ValidationError as error:
            raise Rejected("invalid_value", f"{INPUT_ID}: {explain(error)}") from None
    return PipeRequest()
