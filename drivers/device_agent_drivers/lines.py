"""Lines of text as instruments send them: what they look like, and how commands are written.

A line is a pattern with named groups, comma-separated columns or a JSON object. What is no such line is
counted and passed over, never fatal: serial lines begin in the middle, and wires pick up noise.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any, Literal

from device_agent.driver import DriverError, Pattern, Value
from device_agent.schema import Field, model_validator
from device_agent_drivers.configured import (
    ConfiguredPoints,
    Template,
    csv_splitter,
    json_splitter,
    template_of,
)
from device_agent_drivers.far_end import OPEN_DELAY
from device_agent_drivers.telegrams import TELEGRAMS, TelegramReader

REGEX: dict[str, Any] = {"format": "regex"}
"""Of an option that is a `Pattern`: `device-agent check` tries it on texts that are hard for it."""
Raw = Mapping[str, Any]
"""What a line holds, point to text (regex, csv) or to a JSON value."""

# Nobody stops for so long in the middle of a line: what comes after such a silence is one from its beginning.
SILENCE_S = 2.0


class LineOptions(ConfiguredPoints):
    format: Literal["regex", "csv", "json"] = Field("regex", description="What a line looks like.")
    pattern: str | None = Field(
        None,
        max_length=1000,
        json_schema_extra=REGEX,
        description="format regex: searched in each line for at most 50 ms; a named group is a point.",
    )
    columns: list[str] = Field(
        [], max_length=64, description='format csv: the points in order; "" is a column to pass over.'
    )
    separator: str = Field(",", min_length=1, max_length=4, description="format csv: between two columns.")
    checksum: Literal["none", "nmea", "ve-direct", "p1", "iec-62056-21", "lrc"] = Field(
        "none",
        description="What telegrams of one or more lines carry; those whose checksum is wrong are passed "
        "over, and the values of one come together.",
    )
    command: str | dict[str, str] | None = Field(
        None, description='How a writable point is sent: "SP {setpoint}\\n", or a table by point.'
    )
    separators: str = Field(
        ";",
        max_length=16,
        description="Signs between two commands of a line: no text that is set may hold one.",
    )
    confirm: str | None = Field(
        None,
        max_length=1000,
        json_schema_extra=REGEX,
        description="Regular expression of the line that answers a command; a named group is a point, and "
        "tells what was set.",
    )
    open_delay_s: float = OPEN_DELAY
    line_end: str = Field(
        "\n", min_length=1, max_length=8, description='Ends a line; "\\n" takes "\\r\\n" too.'
    )
    encoding: Literal["utf-8", "ascii", "latin-1"] = Field("utf-8", description="Of the text on the wire.")
    max_line_bytes: int = Field(1024, ge=16, le=65_536, description="A longer line is noise and passed over.")

    @model_validator(mode="after")
    def _fits_together(self) -> "LineOptions":
        if self.format == "regex":
            self._check_pattern()
        if self.format == "csv":
            known(self.columns, self.points, "`columns`")
            if not any(self.columns):
                raise ValueError("format csv needs `columns`, the names of the points in order")
        if not self._has_members and (named := [n for n, o in self.points.items() if o.where]):
            raise ValueError(f"`where` of point {named[0]} is for format json, not {self.format}")
        writable = {name for name, options in self.points.items() if options.write}
        sent: set[str] = set()
        for template in self.templates():
            known(template.fields, writable, "`command`", "a writable point")
            sent |= template.fields
        if unsent := writable - sent:
            raise ValueError(f"no `command` says how {', '.join(sorted(unsent))} is sent")
        if self.confirm is not None:
            known(groups_of(self.confirm, "`confirm`"), writable, "`confirm`", "a writable point")
        return self

    @property
    def _has_members(self) -> bool:
        return self.format == "json"

    def _check_pattern(self) -> None:
        if self.pattern is None:
            raise ValueError("format regex needs a `pattern`")
        groups = groups_of(self.pattern, "`pattern`")
        if not groups:
            raise ValueError("`pattern` has no named group such as (?P<weight>[0-9.]+)")
        known(groups, self.points, "`pattern`")

    def templates(self) -> list[Template]:
        commands = self.command.values() if isinstance(self.command, dict) else [self.command]
        return [template_of(text) for text in commands if text is not None]

    def encoded(self, template: Template, values: Mapping[str, Value]) -> bytes:
        """The command on the wire. Raises DriverError for values that cannot be sent by it."""
        texts: dict[str, Any] = {}
        for name in template.fields:
            text = texts[name] = self.points[name].to_wire(values[name])
            if isinstance(text, str) and any(end in text for end in (self.line_end, "\n", "\r")):
                raise DriverError(f"{name}: {text!r} holds a line end and would be a second command")
            if self.points[name].type == "string" and isinstance(text, str):
                separators = (sign for sign in text if sign in self.separators)
                if sign := template.ending(text) or next(separators, ""):
                    raise DriverError(f"{name}: {text!r} holds {sign!r} and would be more than its value")
        try:
            return template.render(texts).encode(self.encoding)
        except (ValueError, UnicodeEncodeError) as error:
            raise DriverError(f"command {template.text!r} cannot be sent with {texts}: {error}") from error


def known(names: Any, points: Any, where: str, what: str = "one of `points`") -> None:
    """Raises ValueError for names that are no points."""
    unknown = sorted(name for name in names if name and name not in points)
    if unknown:
        raise ValueError(f"{where} names {', '.join(unknown)}, which is not {what}")


def groups_of(pattern: str, where: str) -> Mapping[str, int]:
    """The named groups of a regular expression. Raises ValueError for what is none."""
    try:
        return re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"{where} is no regular expression: {error}") from error


def searched(pattern: Pattern, text: str) -> re.Match[str] | None:
    """Raises DriverError where the pattern takes too long."""
    try:
        return pattern.search(text)
    except TimeoutError as error:
        raise DriverError(
            f"a `pattern` was given up on a text of {len(text)} characters ({error}): make it simpler, with "
            "no repetition inside another; `device-agent check` names such patterns"
        ) from error


class LineReader:
    """Takes chunks, gives what each line, or telegram of lines, says."""

    def __init__(self, options: LineOptions, watch: Callable[[str], object] | None = None) -> None:
        """`watch` is called with each line, also one of which the start may have been missed."""
        self._watch = watch
        self._limit = options.max_line_bytes
        self._encoding = options.encoding
        self._end = options.line_end.encode(options.encoding)
        self._strip = b"\r" if options.line_end == "\n" else b""
        self._split = splitter(options)
        # No end of a JSON object is one.
        self._proves_itself = options.format == "json"
        self._telegrams = None if options.checksum == "none" else TelegramReader(TELEGRAMS[options.checksum])
        self.garbage = 0
        self.too_long = 0
        self.begin(in_the_middle=False)

    def begin(self, *, in_the_middle: bool) -> None:
        """Forget what came. `in_the_middle`: the start of the first line may have been missed."""
        self._rest = b""
        self._skipping = False
        self._fragment = in_the_middle and not self._proves_itself
        self._since_s = monotonic()
        if self._telegrams is not None:
            self._telegrams.clear()

    def notes(self) -> dict[str, int | str]:
        """What was not understood, by kind."""
        bad = 0 if self._telegrams is None else self._telegrams.bad
        counts = {"lines_unlike": self.garbage, "lines_too_long": self.too_long, "wrong_checksums": bad}
        return {name: count for name, count in counts.items() if count}

    def feed(self, chunk: bytes) -> Iterator[Raw]:
        if self._telegrams is None:
            yield from filter(None, map(self._said, self.lines(chunk)))
            return
        for text in self._telegrams.feed(chunk):
            whole: dict[str, Any] = {}
            for line in text.split(self._end):
                whole |= self._said(line.rstrip(self._strip), counted=False) or {}
            if whole:
                yield whole
            else:
                self.garbage += 1

    def lines(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that this chunk ends, without their ends."""
        if self._fragment and chunk and not self._rest and monotonic() - self._since_s >= SILENCE_S:
            self._fragment = False
        *lines, self._rest = (self._rest + chunk).split(self._end)
        for line in lines:
            line = line.rstrip(self._strip)
            if self._watch is not None:
                self._watch(line.decode(self._encoding, "replace"))
            if self._skipping or self._fragment:
                self._skipping = self._fragment = False
            elif len(line) > self._limit:
                self.too_long += 1
            else:
                yield line
        if len(self._rest) > self._limit:
            # Forget it now, not when its end comes: a far end gone mad must not fill the memory.
            self.too_long += not self._skipping
            self._skipping = True
            self._rest = self._rest[len(self._rest) - len(self._end) + 1 :]

    def _said(self, line: bytes, *, counted: bool = True) -> Raw | None:
        if not line:
            return None
        try:
            raw = self._split(line.decode(self._encoding))
        except UnicodeDecodeError:
            raw = None
        if raw is None and counted:
            self.garbage += 1
        return raw


def splitter(options: LineOptions) -> Callable[[str], Raw | None]:
    """From the text of a line to its raw values, None for what is no such line."""
    if options.format == "regex":
        pattern = Pattern(options.pattern or "")

        def split(line: str) -> Raw | None:
            match = searched(pattern, line)
            # A group that took no part in the match is a point that is not in this line.
            return match and {name: text for name, text in match.groupdict().items() if text is not None}

        return split
    if options.format == "csv":
        return csv_splitter(options.columns, options.separator)
    return json_splitter(options.points)
