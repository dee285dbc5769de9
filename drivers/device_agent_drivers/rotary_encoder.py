"""A rotary encoder: two contacts whose changes follow each other, a quarter of a step apart.

    a   __|‾‾‾‾‾|_____|‾‾‾‾‾|___
    b   _____|‾‾‾‾‾|_____|‾‾‾‾‾|     clockwise: a leads
           1  2  3  4                quarters; at rest both are inactive

A contact that bounces goes one quarter to and fro, so that nothing has to be filtered. The position changes
when a whole step is done, in either direction; a knob that stands on the edge of one does not flicker.
"""

import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from device_agent.bus.core import Source
from device_agent.bus.gpio import Bias, InputLine
from device_agent.driver import DriverConfig, DriverError, Edge, GpioBus, Listener, Point, Unit, Value
from device_agent.schema import Field, model_validator

Line = Annotated[int, Field(strict=True, ge=0, le=65_535)] | Annotated[str, Field(min_length=1)]


class RotaryEncoderConfig(DriverConfig):
    driver: Literal["rotary-encoder"] = "rotary-encoder"
    line_a: Line = Field(description="The contact that leads clockwise.")
    line_b: Line = Field(description="The contact that follows clockwise.")
    active_low: bool = Field(True, description="The contacts close to ground.")
    bias: Bias = Field("pull-up", description="The chip's own pull at both lines.")
    quarters_per_step: Literal[1, 2, 4] = Field(
        4, description="Changes from one detent to the next; 1 for an encoder without."
    )
    reverse: bool = Field(False, description="Count the other way round.")

    @model_validator(mode="after")
    def _two_lines(self) -> "RotaryEncoderConfig":
        if self.line_a == self.line_b:
            raise ValueError("`line_a` and `line_b` are the same line")
        return self


@dataclass(frozen=True, slots=True)
class Turn(Edge):
    """An edge, and which of the two lines it was."""

    is_a: bool = False


class RotaryEncoder(Listener[RotaryEncoderConfig, GpioBus]):
    """The position goes on over reopened lines, from 0 at each start."""

    example = "line_a = 5\nline_b = 6"
    points = (Point("position", Unit.ONE, "integer", description="Steps clockwise since the start."),)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines: tuple[InputLine, InputLine] | None = None
        self._a = self._b = False
        self._position = 0
        self._quarters = 0
        """Since the last whole step."""
        self._known = False
        self.lost_edges = 0

    @classmethod
    def claims(cls, config: RotaryEncoderConfig) -> tuple[str, ...]:
        return (f"line {config.line_a}", f"line {config.line_b}")

    @staticmethod
    def simulator(config: RotaryEncoderConfig) -> Any:
        from device_agent_drivers.simulated.rotary_encoder import SimulatedEncoder

        return SimulatedEncoder(config)

    def open(self) -> None:
        self.close()
        config = self.config
        claimed: list[InputLine] = []
        try:
            for line in (config.line_a, config.line_b):
                claimed.append(self.bus.input(line, active_low=config.active_low, bias=config.bias))
        except OSError:
            for one in claimed:
                one.close()
            raise
        self._lines = claimed[0], claimed[1]
        self._a, self._b = claimed[0].read(), claimed[1].read()
        self._quarters = 0
        self._known = True

    def close(self) -> None:
        lines, self._lines = self._lines, None
        for line in lines or ():
            line.close()

    def listen(self) -> Source:
        if self._lines is None:
            raise DriverError(f"lines {self.config.line_a} and {self.config.line_b} are not open")
        return BothLines(*self._lines)

    def feed(self, chunk: Turn) -> Iterator[dict[str, Value]]:
        self.lost_edges += chunk.lost
        before = self._a if chunk.is_a else self._b
        if chunk.active == before:
            return  # its partner was lost
        if chunk.is_a:
            self._a = chunk.active
            clockwise = self._a != self._b
        else:
            self._b = chunk.active
            clockwise = self._a == self._b
        self._quarters += 1 if clockwise is not self.config.reverse else -1
        size = self.config.quarters_per_step
        if abs(self._quarters) >= size:
            self._position += 1 if self._quarters > 0 else -1
            self._quarters = 0
            yield self._values()
        elif size == 4 and not self._a and not self._b:
            # At rest it stands in a detent: what is left of a step are lost edges, or it went to and fro.
            self._quarters = 0

    def present(self, monotonic_s: float) -> dict[str, Value] | None:
        return self._values() if self._known else None

    def _values(self) -> dict[str, Value]:
        return {"position": self._position}


class BothLines:
    """Two inputs as one source; a descriptor that watches both of theirs."""

    def __init__(self, a: InputLine, b: InputLine) -> None:
        self._a = a
        self._b = b
        self._epoll = select.epoll()
        for line in (a, b):
            self._epoll.register(line.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def drain(self) -> Sequence[Turn]:
        """The edges of both in the order of the kernel's time stamps."""
        if self._epoll.closed:
            return ()
        turns = [
            Turn(edge.active, edge.monotonic_s, edge.lost, is_a)
            for line, is_a in ((self._a, True), (self._b, False))
            for edge in line.drain()
        ]
        return sorted(turns, key=lambda turn: turn.monotonic_s)

    def close(self) -> None:
        self._epoll.close()
        for line in (self._a, self._b):
            with suppress(OSError):
                line.close()
