"""Any instrument that sends lines of text: a scale, a flow meter, a microcontroller's printout.

A line is a pattern with named groups, comma-separated columns or a JSON object. What is no such line is
counted and passed over, never fatal: serial lines begin in the middle, and wires pick up noise.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from device_agent.driver import DriverError, Flagged, SerialBus, Value
from device_agent_drivers.configured import (
    ConfiguredListener,
    ConfiguredPoints,
    Template,
    csv_splitter,
    json_splitter,
    template_of,
)

Raw = Mapping[str, Any]
"""What a line holds, point to text (regex, csv) or to a JSON value."""


class SerialLinesConfig(ConfiguredPoints):
    driver: Literal["serial-lines"] = "serial-lines"
    format: Literal["regex", "csv", "json"] = Field("regex", description="What a line looks like.")
    pattern: str | None = Field(
        None, max_length=1000, description="format regex: searched in each line; a named group is a point."
    )
    columns: list[str] = Field(
        [], max_length=64, description='format csv: the points in order; "" is a column to pass over.'
    )
    separator: str = Field(",", min_length=1, max_length=4, description="format csv: between two columns.")
    command: str | dict[str, str] | None = Field(
        None, description='How a writable point is sent: "SP {setpoint}\\n", or a table by point.'
    )
    line_end: str = Field(
        "\n", min_length=1, max_length=8, description='Ends a line; "\\n" takes "\\r\\n" too.'
    )
    encoding: Literal["utf-8", "ascii", "latin-1"] = Field("utf-8", description="Of the text on the wire.")
    max_line_bytes: int = Field(1024, ge=16, le=65_536, description="A longer line is noise and passed over.")

    @model_validator(mode="after")
    def _fits_together(self) -> "SerialLinesConfig":
        if self.format == "regex":
            self._check_pattern()
        if self.format == "csv":
            _known(self.columns, self.points, "`columns`")
            if not any(self.columns):
                raise ValueError("format csv needs `columns`, the names of the points in order")
        if self.format != "json" and (named := [n for n, o in self.points.items() if o.where]):
            raise ValueError(f"`where` of point {named[0]} is for format json, not {self.format}")
        writable = {name for name, options in self.points.items() if options.write}
        sent: set[str] = set()
        for template in self.templates():
            _known(template.fields, writable, "`command`", "a writable point")
            sent |= template.fields
        if unsent := writable - sent:
            raise ValueError(f"no `command` says how {', '.join(sorted(unsent))} is sent")
        return self

    def _check_pattern(self) -> None:
        if self.pattern is None:
            raise ValueError("format regex needs a `pattern`")
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise ValueError(f"`pattern` is no regular expression: {error}") from error
        if not groups:
            raise ValueError("`pattern` has no named group such as (?P<weight>[0-9.]+)")
        _known(groups, self.points, "`pattern`")

    def templates(self) -> list[Template]:
        commands = self.command.values() if isinstance(self.command, dict) else [self.command]
        return [template_of(text) for text in commands if text is not None]


def _known(names: Any, points: Any, where: str, what: str = "one of `points`") -> None:
    unknown = sorted(name for name in names if name and name not in points)
    if unknown:
        raise ValueError(f"{where} names {', '.join(unknown)}, which is not {what}")


class SerialLines(ConfiguredListener[SerialLinesConfig, SerialBus]):
    """Reads every line that comes, whichever points are in it; writes by `command`."""

    example = """
pattern = '^W +(?P<weight>-?[0-9.]+)'
points.weight = { unit = "kg" }
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self._end = config.line_end.encode(config.encoding)
        self._strip = b"\r" if config.line_end == "\n" else b""
        self._split = _splitter(config)
        self._templates = config.templates()
        self._rest = b""
        self._skipping = False
        self.lines_garbage = 0
        self.lines_too_long = 0

    @classmethod
    def claims(cls, config: SerialLinesConfig) -> tuple[str, ...]:
        return ("port",)

    @staticmethod
    def simulator(config: SerialLinesConfig) -> Any:
        from device_agent_drivers.simulated.serial_lines import SimulatedLines

        return SimulatedLines(config)

    def open(self) -> None:
        self._rest = b""
        self._skipping = False
        self._last = {}
        self.bus.discard_input()
        if self._templates:
            self.safe()

    # -- lines in -----------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> Iterator[dict[str, Value | Flagged]]:
        *lines, self._rest = (self._rest + chunk).split(self._end)
        limit = self.config.max_line_bytes
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif len(line) > limit:
                self.lines_too_long += 1
            elif values := self._parse(line):
                yield values
        if len(self._rest) > limit:
            # Forget it now, not when its end comes: a far end gone mad must not fill the memory.
            self.lines_too_long += not self._skipping
            self._skipping = True
            self._rest = self._rest[len(self._rest) - len(self._end) + 1 :]

    def _parse(self, line: bytes) -> dict[str, Value | Flagged] | None:
        if self._strip:
            line = line.rstrip(self._strip)
        if not line:
            return None
        try:
            raw = self._split(line.decode(self.config.encoding))
        except UnicodeDecodeError:
            raw = None
        if raw is None:
            self.lines_garbage += 1
            return None
        return self._said(raw)

    # -- commands out -------------------------------------------------------------------------------------

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Sends each command that holds one of these points; lines cannot be read back."""
        known = {**type(self).safe_of(self.config), **self._sent, **values}
        for template in self._templates:
            if template.fields & set(values):
                self.bus.write(self._encoded(template, known))
        self._sent = known
        return {}

    def _encoded(self, template: Template, values: Mapping[str, Value]) -> bytes:
        texts: dict[str, Any] = {}
        for name in template.fields:
            text = texts[name] = self.config.points[name].to_wire(values[name])
            if isinstance(text, str) and any(end in text for end in (self.config.line_end, "\n", "\r")):
                raise DriverError(f"{name}: {text!r} holds a line end and would be a second command")
        try:
            return template.render(texts).encode(self.config.encoding)
        except (ValueError, UnicodeEncodeError) as error:
            raise DriverError(f"command {template.text!r} cannot be sent with {texts}: {error}") from error


def _splitter(config: SerialLinesConfig) -> Callable[[str], Raw | None]:
    """From the text of a line to its raw values, None for what is no such line."""
    if config.format == "regex":
        search = re.compile(config.pattern or "").search
        # A group that took no part in the match is a point that is not in this line.
        return lambda line: (
            {name: text for name, text in match.groupdict().items() if text is not None}
            if (match := search(line))
            else None
        )
    if config.format == "csv":
        return csv_splitter(config.columns, config.separator)
    return json_splitter(config.points)
