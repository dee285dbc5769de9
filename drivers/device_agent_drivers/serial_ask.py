"""Any instrument that speaks only when it is asked: a multimeter, a balance, a meter, a gas sensor.

Each reading sends `ask`, or several questions one after the other, and takes the answers: lines as those of
`serial-lines`, telegrams with a checksum, or binary frames as those of `serial-frames`. What follows a
question may go at another speed, as electricity meters want it.

A late answer is taken for no other question's; what was sent and is heard again is no answer.

Dialects that it was tried with: MT-SICS, SCPI with its codes for overload and "not a number", mode C of IEC
62056-21 with and without another speed, Atlas EZO, MH-Z19, adapters and instruments that repeat what they
hear.
"""

from collections.abc import Generator, Iterator, Mapping
from time import monotonic
from typing import Any, Literal

from device_agent.driver import Dated, Flagged, NoAnswer, Pattern, Sensor, SerialBus, Value, Values
from device_agent.schema import BaseModel, ConfigDict, Field, model_validator
from device_agent_drivers.binary_frames import FrameFormat, FramePointOptions, FrameReader
from device_agent_drivers.configured import NO_ANSWER, ConfiguredDevice, PointName
from device_agent_drivers.far_end import CHUNK_BYTES, Late, OwnsPort, arrivals, at_once, confirmed
from device_agent_drivers.lines import REGEX, LineOptions, LineReader, Raw, groups_of, known, searched

# Between two looks whether somebody else needs the bus: a safe state, a command.
LOOK_S = 0.1
# Whole answers: a meter that tells everything at 300 baud takes a minute.
ANSWER_LIMIT_S = 120.0


class Question(BaseModel):
    """One of several questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    send: str = Field("", max_length=256, description='Such as "MEAS:VOLT?\\n".')
    send_hex: str = Field(
        "", pattern="^ *([0-9A-Fa-f]{2} *)*$", max_length=512, description="Instead, bytes."
    )
    answer: str | None = Field(
        None,
        max_length=1000,
        json_schema_extra=REGEX,
        description="Regular expression of the line that answers it; named groups are points. Without it the "
        "last question is answered as the device's options say, and the others are not.",
    )
    baud: int | None = Field(
        None, ge=50, le=4_000_000, description="Its answer, and what follows, goes at this speed."
    )
    wait_s: float = Field(0.0, ge=0, le=10, description="Wait so long after it.")

    @model_validator(mode="after")
    def _sends_one(self) -> "Question":
        if bool(self.send) is bool(self.send_hex):
            raise ValueError("a question needs either `send` or `send_hex`")
        if self.answer is not None:
            groups_of(self.answer, "`answer`")
        return self

    def encoded(self, encoding: str) -> bytes:
        return bytes.fromhex(self.send_hex) or self.send.encode(encoding)


class SerialAskConfig(LineOptions):
    driver: Literal["serial-ask"] = "serial-ask"
    ask: str | list[Question] = Field(
        description='What is sent for each reading: "SI\\r\\n", or questions one after the other.'
    )
    frame: FrameFormat | None = Field(
        None, description="Answers that are binary frames: what one looks like."
    )
    points: Mapping[PointName, FramePointOptions] = Field(
        min_length=1, max_length=64, description="The device's points by name."
    )
    answer_s: float = Field(
        1.0, ge=0.02, le=10, description="Longest silence before an answer, and in the middle of one."
    )

    @model_validator(mode="after")
    def _is_answered(self) -> "SerialAskConfig":
        if not self.ask:
            raise ValueError("`ask` is empty")
        for question in self.questions():
            known(groups_of(question.answer or "", "`answer`"), self.points, "`answer`")
        if not (self.reads_lines or self.frame or any(q.answer for q in self.questions())):
            raise ValueError("nothing says how an answer is read: give `pattern`, `frame`, or an `answer`")
        return self

    def _check_pattern(self) -> None:
        if self.pattern is not None:
            super()._check_pattern()

    @property
    def _has_members(self) -> bool:
        return self.frame is not None or super()._has_members

    @property
    def reads_lines(self) -> bool:
        return self.format != "regex" or self.pattern is not None

    def questions(self) -> list[Question]:
        return [Question(send=self.ask)] if isinstance(self.ask, str) else self.ask


class Echo:
    """Takes what was sent out of the beginning of what comes: adapters and instruments may repeat it."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self._held = b""

    def cut(self, chunk: bytes) -> bytes:
        self._held += chunk
        if len(self._held) < len(self._sent) and self._sent.startswith(self._held):
            return b""
        chunk, self._sent, self._held = self._held.removeprefix(self._sent), b"", b""
        return chunk


class LineAnswer:
    """A line like a pattern, whose named groups are points."""

    def __init__(self, options: LineOptions, pattern: str) -> None:
        self.points = frozenset(groups_of(pattern, "`answer`"))
        self._pattern = Pattern(pattern)
        self._encoding = options.encoding
        self._lines = LineReader(options)

    def begin(self) -> None:
        self._lines.begin(in_the_middle=False)

    def feed(self, chunk: bytes) -> Iterator[Raw]:
        for line in self._lines.lines(chunk):
            if found := searched(self._pattern, line.decode(self._encoding, "replace")):
                yield {name: text for name, text in found.groupdict().items() if text is not None}


class MainAnswer:
    """What the device's own options describe: lines, a telegram, or a frame."""

    def __init__(self, reader: FrameReader | LineReader, config: SerialAskConfig) -> None:
        self._reader = reader
        self.points = frozenset(name for name, options in config.points.items() if not options.write)
        if config.frame is None and config.format == "regex":
            self.points = frozenset(groups_of(config.pattern or "", "`pattern`"))
        if config.checksum != "none":
            self.points = frozenset()  # it comes as a whole

    def begin(self) -> None:
        self._reader.begin(in_the_middle=False)

    def feed(self, chunk: bytes) -> Iterator[Raw]:
        return self._reader.feed(chunk)


Answer = LineAnswer | MainAnswer


class SerialAsk(OwnsPort, ConfiguredDevice[SerialAskConfig, SerialBus], Sensor[SerialAskConfig, SerialBus]):
    """Points that no answer has are as they were sent last, or `no_answer`."""

    example = """
ask = "SI\\\\r\\\\n"
pattern = '^S [SD] +(?P<weight>-? *[0-9.]+ g)'
points.weight = { unit = "g" }
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self._frames = None if config.frame is None else FrameReader(config.frame, config.points)
        self._lines = LineReader(config) if config.reads_lines else None
        questions = config.questions()
        self._questions = [(one, self._answer_to(one, last=one is questions[-1])) for one in questions]
        self._templates = config.templates()
        self._confirm = None if config.confirm is None else LineAnswer(config, config.confirm)
        self._speed = 0
        self._late = Late(config.answer_s)

    def _answer_to(self, question: Question, *, last: bool) -> "Answer | None":
        if question.answer is not None:
            return LineAnswer(self.config, question.answer)
        reader = self._frames or self._lines
        return MainAnswer(reader, self.config) if last and reader is not None else None

    @classmethod
    def confirms(cls, config: SerialAskConfig) -> bool:
        return config.confirm is not None

    @staticmethod
    def simulator(config: SerialAskConfig) -> Any:
        from device_agent_drivers.simulated.serial_ask import SimulatedAnswers

        return SimulatedAnswers(config)

    def open(self) -> None:
        self._sent = {}
        self._speed = self._speed or self.bus.baud
        for _ in arrivals(self.bus, self.config.open_delay_s):
            pass  # nobody has asked for it
        if type(self).safe_of(self.config):
            self.safe()

    def notes(self) -> Mapping[str, int | str]:
        late = {"late_answers": self._late.count} if self._late.count else {}
        lines = self._lines.notes() if self._lines else {}
        return {**super().notes(), **late, **lines, **(self._frames.notes() if self._frames else {})}

    # -- reading ------------------------------------------------------------------------------------------

    def read(self) -> Values:
        return at_once(self.read_steps())

    def read_steps(self) -> Generator[None, None, Values]:
        self._go_at(self._speed)
        found: dict[str, Any] = {}
        for question, answer in self._questions:
            found |= yield from self._asked(question, answer)
            until_s = monotonic() + question.wait_s
            while (left_s := until_s - monotonic()) > 0:
                self.bus.read(CHUNK_BYTES, min(LOOK_S, left_s))
                yield
        said = self._said(found)
        known = {**self._sent, **said}
        values = {name: known.get(name, NO_ANSWER) for name in self._parsers}
        return Dated(values, said.at_ms, said.max_age_s) if isinstance(said, Dated) else values

    def _asked(self, question: Question, answer: "Answer | None") -> Generator[None, None, dict[str, Any]]:
        """What the answer says. Raises NoAnswer."""
        sent = question.encoded(self.config.encoding)
        if sent != self._late.question:
            yield from self._until_silent()
        self.bus.discard_input()
        self.bus.write(sent)
        self._go_at(question.baud or self.bus.baud)
        if answer is None:
            return {}
        answer.begin()
        heard, found, answered, echo = b"", dict[str, Any](), False, Echo(sent)
        began_s = last_s = monotonic()
        while not (answered and answer.points <= found.keys()):
            chunk = self.bus.read(1, min(LOOK_S, self.config.answer_s)) + self.bus.read(CHUNK_BYTES, 0.0)
            now_s = monotonic()
            last_s = now_s if chunk else last_s
            heard = (heard + chunk)[-40:]
            for said in answer.feed(echo.cut(chunk)):
                answered = True
                found |= said
            if now_s - last_s >= self.config.answer_s or now_s - began_s >= ANSWER_LIMIT_S:
                break
            yield
        if not answered:
            self._late.expect(sent)
            what = f"only {heard!r}" if heard else "nothing"
            late = f"; {self._late.count} answers came late: raise `answer_s`" if self._late.count else ""
            raise NoAnswer(f"{sent!r} was not answered as it should be: {what} came{late}")
        if self._late.left_s > 0:
            # This may be the answer to an earlier try; that to this one takes as long.
            self._late.expect(sent)
        return found

    def _go_at(self, baud: int) -> None:
        if self.bus.baud != baud:
            self.bus.set_baud(baud)

    def _until_silent(self) -> Generator[None, None, None]:
        """Drop what is said to what was asked before."""
        late, began_s = self._late, monotonic()
        while (left_s := late.left_s) > 0:
            if self.bus.read(CHUNK_BYTES, min(LOOK_S, left_s)):
                late.count += 1
                late.expect(late.question)
            if monotonic() - began_s > ANSWER_LIMIT_S:
                raise NoAnswer(f"it goes on talking after {late.question!r}")
            yield

    # -- writing ------------------------------------------------------------------------------------------

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Sends each command that holds one of these points. Returns what the instrument confirmed of them.

        Raises BusTimeout where it should have confirmed a command and did not.
        """
        sent = {**type(self).safe_of(self.config), **self._sent, **values}
        said: dict[str, Value] = {}
        self._go_at(self._speed)
        for template in self._templates:
            if not template.fields & set(values):
                continue
            self.bus.discard_input()
            self.bus.write(self.config.encoded(template, sent))
            if self._confirm is not None:
                said |= confirmed(template.text, sent, self._answers(self._confirm), self._late)
        self._sent = sent
        return {name: value for name, value in said.items() if name in values}

    def _answers(self, answer: LineAnswer) -> Iterator[Mapping[str, Value | Flagged]]:
        answer.begin()
        for _, chunk in arrivals(self.bus, self.config.answer_s):
            for found in answer.feed(chunk):
                yield {name: self._parsers[name](text) for name, text in found.items()}
