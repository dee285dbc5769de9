"""The questions of request tasks, and their way from input parts (design section 5)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from device_agent.errors import Rejected
from device_agent.messages.commands import sentence
from device_agent.network import Part

INPUT_ID = "request"
RESULT_ID = "result"
HISTORY_ID = "history"
FILE_ID = "file"
# The network's ceiling of an input.
FILE_MAX_BYTES = 26_214_400
PROGRESS_STREAM = "_default"

Instant = Annotated[int | str, Field(union_mode="left_to_right")]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ReadQuestion(_Question):
    """Present readings of these devices, of all without a list."""

    op: Literal["read"]
    devices: list[str] | None = Field(None, min_length=1, max_length=256)


class SetQuestion(_Question):
    """Set points; with `for_s` they go back to safe after that time."""

    op: Literal["set"]
    device: str = Field(min_length=1, max_length=64)
    values: dict[str, Any] = Field(min_length=1, max_length=64)
    for_s: float | int | None = Field(None, gt=0, le=86_400)
    dry_run: bool = False


class DoQuestion(_Question):
    """Carry out an action."""

    op: Literal["do"]
    device: str = Field(min_length=1, max_length=64)
    action: str = Field(min_length=1, max_length=64)
    args: dict[str, Any] = Field({}, max_length=64)
    dry_run: bool = False


class HistoryQuestion(BaseModel):
    """Readings from the record: of these devices (of all without a list), from one instant to another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    op: Literal["history"]
    devices: list[str] | None = Field(None, min_length=1, max_length=256)
    from_: Instant | None = Field(None, alias="from")
    to: Instant | None = None
    every_s: float | int | None = Field(None, gt=0, le=31_622_400)
    format: Literal["json", "csv", "png"] = "json"


class DescribeQuestion(_Question):
    """What devices there are, with points, units and ranges."""

    op: Literal["describe"]


class StopQuestion(_Question):
    """The emergency stop: everything to safe, and nothing moves until it is released at the device."""

    op: Literal["stop"]


Question = Annotated[
    ReadQuestion | SetQuestion | DoQuestion | DescribeQuestion | HistoryQuestion | StopQuestion,
    Field(discriminator="op"),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Question)


def asked(parts: Sequence[Part], inputs: Sequence[str]) -> tuple[Any, Part | None]:
    """The question and the file that comes with it. `inputs` are the ids that the card declares.

    Raises Rejected `invalid_value` with a sentence that says which part or field, and why.
    """
    found: dict[str, Part] = {}
    for part in parts:
        if part.part_id not in inputs:
            known = ", ".join(inputs)
            raise Rejected("invalid_value", f"there is no input {part.part_id!r}; there is: {known}")
        if part.part_id in found:
            raise Rejected("invalid_value", f"the input part {part.part_id!r} came more than once")
        found[part.part_id] = part
    if INPUT_ID not in found:
        raise Rejected("invalid_value", f"the input part {INPUT_ID!r} is missing")
    text, file = found[INPUT_ID].text, found.get(FILE_ID)
    if text is None:
        raise Rejected("invalid_value", f"the input part {INPUT_ID!r} is a file; it takes JSON text")
    try:
        question = _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise Rejected("invalid_value", f"{INPUT_ID}: {sentence(error)}") from None
    if file is not None and question.op != "do":
        raise Rejected("invalid_value", f"{FILE_ID}: op {question.op} takes no file")
    if file is not None and file.text is None and file.artifact is None:
        raise Rejected("invalid_value", f"{FILE_ID}: the part is neither a text nor a file")
    return question, file
