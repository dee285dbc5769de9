"""Points that the configuration declares instead of the driver: what `serial-lines`, `framed-msgpack`
and `mqtt-topic` share.

Text or JSON becomes a value, or null with a flag; never an exception, and NaN and infinity are no numbers.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import Formatter
from typing import Annotated, Any, Literal, TypeVar

from device_agent.driver import (
    Actuator,
    ActuatorConfig,
    Dated,
    Flag,
    Flagged,
    Listener,
    MqttBus,
    Point,
    SerialBus,
    Value,
)
from device_agent.records import ValueType, is_number, time_zone
from device_agent.schema import BaseModel, ConfigDict, Field, field_validator, model_validator

TRUE_WORDS = frozenset(("1", "true", "on", "yes"))
FALSE_WORDS = frozenset(("0", "false", "off", "no"))

NO_ANSWER = Flagged(None, Flag.NO_ANSWER)
NOT_READY = Flagged(None, Flag.NOT_READY)
OVERFLOW = Flagged(None, Flag.OVERFLOW)
MISSING = object()
"""Stands for "this line or message does not hold the point"."""


class TimeStamp(BaseModel):
    """How a point tells when the values of its message were measured."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["unix", "unix_ms", "iso8601"] = Field(description="Seconds or milliseconds since 1970.")
    zone: str = Field("UTC", description="Of iso8601 without an offset: Europe/Berlin, local.")
    max_age_s: float = Field(86_400, gt=0, le=315_360_000, description="What is older is not believed.")

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        time_zone(zone)
        return zone

    def at_ms(self, value: Value | Flagged) -> float | None:
        """Epoch milliseconds; None for what tells no time."""
        try:
            if self.format != "iso8601":
                return value * (1000.0 if self.format == "unix" else 1.0) if is_number(value) else None
            at = datetime.fromisoformat(str(value))
            return (at if at.tzinfo else at.replace(tzinfo=time_zone(self.zone))).timestamp() * 1000
        except (ValueError, OverflowError):
            return None

    def written(self, at_s: float) -> float | str:
        """The opposite: an instant, epoch seconds, as a far end says it."""
        if self.format != "iso8601":
            return round(at_s * (1 if self.format == "unix" else 1000))
        return datetime.fromtimestamp(at_s, time_zone(self.zone)).isoformat(timespec="milliseconds")


class PointOptions(BaseModel):
    """One entry of a `points` table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    unit: str = Field("", description="UCUM, such as Cel, hPa, %, g, L/min.")
    type: ValueType = Field("number", description="number, integer, boolean or string.")
    low: float | None = Field(None, description="Below it a reading carries the flag out_of_range.")
    high: float | None = Field(None, description="Above it a reading carries the flag out_of_range.")
    write: bool = Field(False, description="Whether the point can be set.")
    minimum: float | None = Field(None, description="Smallest value that may be set.")
    maximum: float | None = Field(None, description="Largest value that may be set.")
    safe: Value = Field(None, description="What a writable point is set to when in doubt.")
    scale: float = Field(1.0, description="What is on the wire is multiplied by this, then `offset` added.")
    offset: float = Field(0.0, description="In the point's unit.")
    decimal: str = Field(".", pattern="^[.,]$", description="The decimal sign on the wire.")
    thousands: Literal["", ",", ".", "'", " "] = Field("", description="Between groups of three digits.")
    suffix: list[str] = Field(
        [],
        max_length=8,
        description="What may stand behind the number, beside `unit`; anything else, another unit, is null.",
    )
    overload: list[str] = Field(
        [], max_length=8, description='Words for "beyond the range", beside OL, OVER, OVLD and their kind.'
    )
    true: str | None = Field(
        None, min_length=1, max_length=64, description="Text for true; 1 on the way out."
    )
    false: str | None = Field(
        None, min_length=1, max_length=64, description="Text for false; 0 on the way out."
    )
    path: str | None = Field(None, max_length=200, description='In JSON: "climate.temperature", "values.0".')
    where: dict[str, Value] = Field(
        {},
        max_length=8,
        description="In JSON: only of documents that hold this, such as `{ channel = 1 }`; keys are paths.",
    )
    description: str = Field("", max_length=200)
    time: TimeStamp | None = Field(
        None,
        description="The point tells when all values of its message were measured: "
        '`{ format = "unix" }`, `"unix_ms"`, or `"iso8601"` with its `zone`; at most `max_age_s` ago.',
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "PointOptions":
        if self.time is not None:
            texts = self.time.format == "iso8601"
            if self.write or texts is not (self.type == "string") or self.type == "boolean":
                raise ValueError(
                    f'`time.format` {self.time.format!r} needs `type = "{"string" if texts else "number"}"` '
                    "and a point that is not written"
                )
        if self.scale == 0:
            raise ValueError("`scale` must not be 0")
        if self.thousands == self.decimal:
            raise ValueError(f"`thousands` is {self.thousands!r}, which is the `decimal` sign")
        if self.safe is not None and not fits(self.safe, self.type):
            raise ValueError(f"`safe` is {self.safe!r}, which is no {self.type}")
        if is_number(self.safe):
            low, high = self.minimum, self.maximum
            if (low is not None and self.safe < low) or (high is not None and self.safe > high):
                raise ValueError(f"`safe` is {self.safe:g}, outside `minimum` {low} to `maximum` {high}")
        return self

    def point(self, name: str) -> Point:
        return Point(
            name,
            self.unit,
            self.type,
            low=self.low,
            high=self.high,
            write=self.write,
            minimum=self.minimum,
            maximum=self.maximum,
            description=self.description,
        )

    def to_wire(self, value: Value) -> Any:
        """What a command's template gets: the number before `scale` and `offset`, whole ones as integers."""
        if isinstance(value, bool):
            return (self.true or "1") if value else (self.false or "0")
        if isinstance(value, int | float):
            if self.scale != 1 or self.offset != 0:
                value = (value - self.offset) / self.scale
                value = float(f"{value:.12g}")  # 0.3 / 0.1 is 3 to whoever reads the instrument's manual
            return int(value) if float(value).is_integer() else value
        return value


def bits_of(number: int, mask: int, *, signed: bool) -> int:
    """What stands in these bits, moved down to bit 0; `signed`: two's complement of so many bits."""
    shift = (mask & -mask).bit_length() - 1
    value, top = (number & mask) >> shift, 1 << mask.bit_length() - shift
    return value - top if signed and value >= top >> 1 else value


def fits(value: Value, kind: ValueType) -> bool:
    """Whether a value is of the point's type."""
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return is_number(value)


PointName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$", max_length=64)]


class ConfiguredPoints(ActuatorConfig):
    """A device whose points are declared in the configuration; it is an actuator if one can be written."""

    points: Mapping[PointName, PointOptions] = Field(
        min_length=1, max_length=64, description="The device's points by name."
    )
    safe: Value | dict[str, Value] = Field({}, description="Safe values, where not given in `points`.")

    @model_validator(mode="after")
    def _moves_safely(self) -> "ConfiguredPoints":
        for name, value in self.safe_values().items():
            if value is None:
                raise ValueError(f"point {name} can be written and needs a `safe` value")
            if not fits(value, self.points[name].type):
                raise ValueError(f"`safe` of point {name} is {value!r}, which is no {self.points[name].type}")
        return self

    def safe_values(self) -> dict[str, Value]:
        """The safe value of each writable point: its own, else that of the device."""
        given = self.safe if isinstance(self.safe, dict) else dict.fromkeys(self.points, self.safe)
        return {
            name: given.get(name) if options.safe is None else options.safe
            for name, options in self.points.items()
            if options.write
        }


M = TypeVar("M", bound=BaseModel)


def without_writing(config: M) -> M:
    """The same device with nothing to set: its `points` have `write` and are sent to nobody."""
    points: Mapping[str, BaseModel] = getattr(config, "points")  # noqa: B009 - of different models
    read_only = {name: options.model_copy(update={"write": False}) for name, options in points.items()}
    return config.model_copy(update={"points": read_only})


C = TypeVar("C", bound=ConfiguredPoints)
B = TypeVar("B", SerialBus, MqttBus)


class ConfiguredDevice(Actuator[C, B]):
    """Points as the configuration declares them, and what a message of the far end says of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parsers = {name: parser_of(options) for name, options in self.config.points.items()}
        self._stamps = {n: options.time for n, options in self.config.points.items() if options.time}
        self._sent: dict[str, Value] = {}
        self.unusable = 0

    @classmethod
    def points_of(cls, config: ConfiguredPoints) -> tuple[Point, ...]:
        return tuple(options.point(name) for name, options in config.points.items())

    @classmethod
    def safe_of(cls, config: ConfiguredPoints) -> dict[str, Value]:
        return config.safe_values()

    @classmethod
    def to_read(cls, config: C) -> C:
        return without_writing(config)

    @classmethod
    def confirms(cls, config: C) -> bool:
        return False

    def _said(self, raw: Mapping[str, Any]) -> dict[str, Value | Flagged]:
        """The values of what a message holds, point to text or member of a document."""
        values: dict[str, Value | Flagged] = {
            name: self._parsers[name](text) for name, text in raw.items() if name in self._parsers
        }
        self.unusable += [*map(type, values.values())].count(Flagged)
        for name, stamp in self._stamps.items():
            if name in values:
                return Dated(values, stamp.at_ms(values[name]), stamp.max_age_s)
        return values

    def notes(self) -> Mapping[str, int | str]:
        """Of what was understood: values that were none."""
        return {"unusable_values": self.unusable} if self.unusable else {}


class ConfiguredListener(ConfiguredDevice[C, B], Listener[C, B]):
    """A far end that says its configured points by itself, any of them in one message.

    A point that was written is given as it was last sent until the far end says it; before either it is
    `not_ready`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._last: dict[str, Value | Flagged] = {}

    def present(self, monotonic_s: float) -> dict[str, Value | Flagged] | None:
        """The last value of each point; the device decides whether it is stale."""
        known = {**self._sent, **self._last}
        return {name: known.get(name, NOT_READY) for name in self._parsers} if known else None

    def _said(self, raw: Mapping[str, Any]) -> dict[str, Value | Flagged]:
        values = super()._said(raw)
        self._last.update(values)
        return values


# --- in: from text or JSON to a value --------------------------------------------------------------------

Parser = Callable[[Any], Value | Flagged]


def parser_of(options: PointOptions) -> Parser:
    """The function that reads this point's text, or member of a JSON document."""
    match options.type:
        case "string":
            return _string
        case "boolean":
            return _boolean_parser(options)
        case _:
            return _number_parser(options)


def _string(raw: Any) -> Value | Flagged:
    if raw is None:
        return NO_ANSWER
    try:
        text = raw if isinstance(raw, str) else json.dumps(raw)
        text.encode()  # half a surrogate is no text that anything could send on
    except (TypeError, ValueError, RecursionError):  # bytes and time stamps of msgpack among them
        return NO_ANSWER
    return text


def _boolean_parser(options: PointOptions) -> Parser:
    true = TRUE_WORDS if options.true is None else frozenset((options.true.lower(),))
    false = FALSE_WORDS if options.false is None else frozenset((options.false.lower(),))

    def parse(raw: Any) -> Value | Flagged:
        if isinstance(raw, bool):
            return raw
        word = str(raw).strip().lower() if isinstance(raw, str | int | float) else ""
        return True if word in true else False if word in false else NO_ANSWER

    return parse


def _number_parser(options: PointOptions) -> Parser:
    scale, offset = options.scale, options.offset
    plain = scale == 1 and offset == 0
    whole = options.type == "integer"
    as_printed = _reader_of_printed(options)
    # Python reads what most senders write, and faster.
    usual = options.decimal == "." and not (options.thousands or options.overload)

    def parse(raw: Any) -> Value | Flagged:
        if isinstance(raw, str):
            if not usual or not _USUAL.fullmatch(raw):
                raw = as_printed(raw)
                if isinstance(raw, Flagged):
                    return raw
        elif not is_number(raw):
            return NO_ANSWER
        try:
            number = float(raw)
            value = number if plain else number * scale + offset
        except OverflowError:
            return OVERFLOW
        if abs(number) in _SCPI:
            return _SCPI[abs(number)]
        if not math.isfinite(value):
            return NO_ANSWER if math.isnan(value) else OVERFLOW
        if not plain:
            return round(value) if whole else value
        if whole or (abs(number) >= EXACT_MAX and str(raw).lstrip("+-").isdecimal()):
            return _whole(raw, number)
        return value

    return parse


_USUAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_OVERLOAD = frozenset(
    [
        "inf",
        "infinity",
        "ol",
        "o.l",
        "o.l.",
        "0l",
        "0.l",
        "over",
        "ovld",
        "ovl",
        "ovf",
        "ovfl",
        "ofl",
        "overload",
        "overflow",
        "overrange",
    ]
)
# From here on not every integer has a float.
EXACT_MAX = 2**53
# Nobody prints a longer number with a sign apart or a unit.
PRINTED_MAX = 200
# What SCPI instruments send for infinity and for "not a number" (SCPI-99, volume 1, section 7.2.1).
_SCPI = {9.9e37: OVERFLOW, 9.91e37: NO_ANSWER}


def _reader_of_printed(options: PointOptions) -> Callable[[str], str | Flagged]:
    """The function that makes what Python reads of a number as instruments print it: with its sign apart, a
    comma, groups of digits, its unit behind it."""
    decimal, thousands = re.escape(options.decimal), re.escape(options.thousands)
    groups = rf"[0-9]{{1,3}}(?:{thousands}[0-9]{{3}})+|" if thousands else ""
    number = rf"(?:(?:{groups}[0-9]+)(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][-+]?[0-9]+)?"
    printed = re.compile(rf"(?P<sign>[-+]?)\s*(?P<number>{number})\s*(?P<suffix>.*)")
    suffixes = {"", *options.suffix, options.unit, *(("C", "°C") if options.unit == "Cel" else ())}
    overload = {*_OVERLOAD, *(word.lower() for word in options.overload)}

    def read(text: str) -> str | Flagged:
        text = text.strip()
        word = text.lower() if len(text) <= PRINTED_MAX else ""
        if word in overload or word.lstrip("-+ ") in overload:
            return OVERFLOW
        found = printed.fullmatch(text) if word else None
        if found is None or found["suffix"] not in suffixes:
            return NO_ANSWER
        digits = found["number"].replace(options.thousands, "") if thousands else found["number"]
        return found["sign"] + digits.replace(options.decimal, ".")

    return read


def _whole(raw: str | float, number: float) -> Value | Flagged:
    """An integer, also as 12.0 or "1e3"; 12.5 is none and is not made one."""
    if not number.is_integer():
        return NO_ANSWER
    try:
        return int(raw)  # exact where the float is not
    except ValueError:
        return int(number)


# --- in: from a line to its parts ------------------------------------------------------------------------


def csv_splitter(columns: Sequence[str], separator: str) -> Callable[[str], dict[str, Any] | None]:
    """None for a line with another number of columns."""
    size = len(columns)

    def split(line: str) -> dict[str, Any] | None:
        if '"' in line and len(separator) == 1:
            try:
                fields = next(csv.reader((line,), delimiter=separator))
            except (csv.Error, StopIteration):
                return None
        else:
            fields = line.split(separator)
        if len(fields) != size:
            return None
        said = dict(zip(columns, map(str.strip, fields), strict=True))
        said.pop("", None)
        return said

    return split


# Outside strings: what an Arduino prints of a float that is none
_NO_NUMBER = re.compile(
    r'"(?:[^"\\]|\\.)*"|(?P<sign>[-+]?)\b(?:(?P<nan>nan)|inf(?:inity)?|ovf)\b', re.IGNORECASE
)
# Beyond, no integer becomes a float; int() itself refuses 4300 digits and would cost the whole document.
_DIGITS_MAX = 400


def _document(text: str) -> Any:
    """JSON, with a bare `nan` or `inf` in it taken for what they are. Raises ValueError, RecursionError."""
    try:
        return json.loads(text, parse_int=_integer)
    except ValueError:
        mended = _NO_NUMBER.sub(_as_json, text)
        if mended == text:
            raise
        return json.loads(mended, parse_int=_integer)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) < _DIGITS_MAX else float(digits)


def _as_json(found: re.Match[str]) -> str:
    if found[0].startswith('"'):
        return found[0]
    return "NaN" if found["nan"] else "-Infinity" if found["sign"] == "-" else "Infinity"


def json_splitter(points: Mapping[str, PointOptions]) -> Callable[[str], dict[str, Any] | None]:
    """None for what is no JSON, or holds none of these points: at its `path`, else under its own name."""

    def split(line: str) -> dict[str, Any] | None:
        try:
            document = _document(line)
        except (ValueError, RecursionError):
            return None
        return members(document, points) or None

    return split


def members(document: Any, points: Mapping[str, PointOptions]) -> dict[str, Any]:
    """What a document holds of these points."""
    found = {
        name: member(document, options.path or name)
        for name, options in points.items()
        if all(_is(member(document, path), wanted) for path, wanted in options.where.items())
    }
    return {name: raw for name, raw in found.items() if raw is not MISSING}


def _is(found: Any, wanted: Value) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool) or not isinstance(found, str | int | float):
        return found is wanted
    return found == wanted or str(found) == str(wanted)  # many senders quote their numbers


def member(document: Any, path: str) -> Any:
    """What stands at "climate.values.0" in a JSON document, else MISSING."""
    if isinstance(document, dict) and path in document:
        return document[path]
    steps = path.split(".")
    # The shortest key first; a key may itself have dots in it.
    for size in range(1, len(steps)):
        inner = member(document, ".".join(steps[:size]))
        if inner is not MISSING and (found := member(inner, ".".join(steps[size:]))) is not MISSING:
            return found
    if isinstance(document, list) and path.isdecimal() and int(path) < len(document):
        return document[int(path)]
    return MISSING


# --- out: commands ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """A command's text with the points in it, such as "SP {setpoint:.1f}\\n"."""

    text: str
    fields: frozenset[str]
    literal: str
    """What stands around them."""

    def ending(self, text: str) -> str:
        """The first sign of a caller's text that would end its value here and begin another; "" if none.

        In quotes, as in JSON, these are quotes, backslashes and control characters, else the signs that stand
        around the values.
        """
        if '"' in self.literal:
            return next((sign for sign in text if sign in '"\\' or not sign.isprintable()), "")
        around = {
            sign for sign in self.literal if not sign.isalnum() and (sign != " " or len(self.fields) > 1)
        }
        return next((sign for sign in text if sign in around), "")

    def render(self, values: Mapping[str, Any]) -> str:
        """Raises ValueError where a value does not fit its format."""
        return self.text.format(**values)


def template_of(text: str) -> Template:
    """Raises ValueError, one sentence, for anything but plain names and formats in the braces."""
    fields: set[str] = set()
    literal = ""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"command {text!r}: {error}; write {{{{ and }}}} for braces themselves") from error
    for around, name, spec, conversion in parts:
        literal += around
        if name is None:
            continue
        if not name.isidentifier() or conversion or "{" in (spec or ""):
            raise ValueError(
                f"command {text!r}: {{{name}}} is no point's name, with at most a format after ':'"
            )
        fields.add(name)
    if not fields:
        raise ValueError(f"command {text!r} names no point; write one as {{setpoint}}")
    return Template(text, frozenset(fields), literal)
