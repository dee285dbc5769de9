"""Any instrument that sends lines of text: a scale, a flow meter, a microcontroller's printout.

A line is a pattern with named groups, comma-separated columns or a JSON object; telegrams of several lines,
as electricity meters and solar chargers send them, with their checksum. What is no such line is counted and
passed over. The first line after opening, of which the start may be missing, is not believed.

Dialects that it was tried with: scales (A&D, Kern, G&G, Sartorius, AWH), VE.Direct text with hexadecimal
answers in it, P1 of DSMR 4 and 5 and of Sweden, DSMR 2.2 without a checksum, NMEA 0183, Modbus ASCII,
IEC 62056-21 that is pushed, multimeters that say OL, JSON with a bare nan, decimal commas.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any, Literal

from device_agent.bus.core import Source
from device_agent.driver import ChipReset, Flagged, NoAnswer, Pattern, SerialBus, Value
from device_agent.schema import Field, model_validator
from device_agent_drivers.configured import ConfiguredListener
from device_agent_drivers.far_end import READY_LIMIT_S, RESET_S, Late, OwnsPort, arrivals, confirmed
from device_agent_drivers.lines import REGEX, LineOptions, LineReader, groups_of, searched

CONFIRM_LIMIT_S = 1.0


class SerialLinesConfig(LineOptions):
    driver: Literal["serial-lines"] = "serial-lines"
    ready_line: str | None = Field(
        None,
        max_length=1000,
        json_schema_extra=REGEX,
        description="Regular expression of the line by which the far end says that it has started. Until "
        "then the device is not online; later it means that the far end was reset.",
    )

    @model_validator(mode="after")
    def _answers_are_patterns(self) -> "SerialLinesConfig":
        if self.checksum != "none" and (self.ready_line or self.confirm):
            raise ValueError("`ready_line` and `confirm` are for lines without `checksum`")
        if self.ready_line is not None:
            groups_of(self.ready_line, "`ready_line`")
        return self


class SerialLines(OwnsPort, ConfiguredListener[SerialLinesConfig, SerialBus]):
    """Reads every line that comes, whichever points are in it; writes by `command`."""

    example = """
pattern = '^W +(?P<weight>-?[0-9.]+)'
points.weight = { unit = "kg" }
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        watched = config.ready_line is not None or config.confirm is not None
        self._reader = LineReader(config, self._watch if watched else None)
        self._templates = config.templates()
        self._ready_line = Pattern(config.ready_line) if config.ready_line is not None else None
        self._confirm = Pattern(config.confirm) if config.confirm is not None else None
        self._has_started = False
        self._listens = False
        self._late = Late(CONFIRM_LIMIT_S)
        # Lines come on the event loop; who waits for an answer is on the bus's thread.
        self._answered = threading.Condition()
        self._answers: deque[dict[str, Value | Flagged]] = deque(maxlen=64)

    @classmethod
    def confirms(cls, config: SerialLinesConfig) -> bool:
        return config.confirm is not None

    @classmethod
    def step_limit_s(cls, config: SerialLinesConfig) -> float:
        return 0.0 if config.confirm is None else (CONFIRM_LIMIT_S + 0.5) * len(config.templates())

    @staticmethod
    def simulator(config: SerialLinesConfig) -> Any:
        from device_agent_drivers.simulated.serial_lines import SimulatedLines

        return SimulatedLines(config)

    def open(self) -> None:
        self._last = {}
        self._listens = False
        self.bus.discard_input()
        self._reader.begin(in_the_middle=True)
        if not self._has_started:  # else it was reset while it was listened to, and has said so
            self._wait_until_ready()
        self._has_started = False
        if type(self).safe_of(self.config):
            self.safe()

    def _wait_until_ready(self) -> None:
        """Raises NoAnswer when `ready_line` did not come, nor anything else that shows that it is at work."""
        wanted, delay_s = self.config.ready_line, self.config.open_delay_s
        for at_s, chunk in arrivals(self.bus, delay_s if wanted is None else READY_LIMIT_S):
            understood = list(self.feed(chunk))
            if self._has_started or (wanted and understood and at_s > max(RESET_S, delay_s)):
                return
        if wanted is not None:
            raise NoAnswer(f"nothing like `ready_line` {wanted!r} came within {READY_LIMIT_S:g} s")

    def listen(self) -> Source:
        self._listens = True
        return super().listen()

    def notes(self) -> Mapping[str, int | str]:
        return {**super().notes(), **self._reader.notes()}

    def feed(self, chunk: bytes) -> Iterator[dict[str, Value | Flagged]]:
        """Raises ChipReset when the far end says that it has started anew."""
        for raw in self._reader.feed(chunk):
            yield self._said(raw)
        if self._has_started and self._listens:
            raise ChipReset("the far end says that it has started: it was reset, and what was set is lost")

    def _watch(self, line: str) -> None:
        if self._ready_line is not None and searched(self._ready_line, line):
            self._has_started = True
        if self._confirm is not None and (found := searched(self._confirm, line)):
            said = {n: self._parsers[n](text) for n, text in found.groupdict().items() if text is not None}
            with self._answered:
                self._answers.append(said)
                self._answered.notify_all()

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Sends each command that holds one of these points. Returns what the far end confirmed of them.

        Raises BusTimeout where it should have confirmed a command and did not.
        """
        sent = {**type(self).safe_of(self.config), **self._sent, **values}
        said: dict[str, Value] = {}
        for template in self._templates:
            if template.fields & set(values):
                self._answers.clear()
                self.bus.write(self.config.encoded(template, sent))
                if self._confirm is not None:
                    answers = self._until(monotonic() + CONFIRM_LIMIT_S)
                    said |= confirmed(template.text, sent, answers, self._late)
        self._sent = sent
        return {name: value for name, value in said.items() if name in values}

    def _until(self, deadline_s: float) -> Iterator[Mapping[str, Value | Flagged]]:
        """The answers that come until then."""
        if not self._listens:
            for _, chunk in arrivals(self.bus, deadline_s - monotonic()):
                list(self.feed(chunk))
                while self._answers:
                    yield self._answers.popleft()
            return
        while (left_s := deadline_s - monotonic()) > 0:
            with self._answered:
                self._answered.wait_for(lambda: self._answers, left_s)
                answers = list(self._answers)
                self._answers.clear()
            yield from answers
