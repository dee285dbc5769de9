"""A rotary encoder: two contacts whose changes follow each other, a quarter of a step apart.

    a   __|‾‾‾‾‾|_____|‾‾‾‾‾|___
    b   _____|‾‾‾‾‾|_____|‾‾‾‾‾|     clockwise: a leads
           1  2  3  4                quarters; with most makes both are inactive at rest

A contact that bounces goes one quarter to and fro, so that nothing has to be filtered. The position changes
when a whole step is done, in either direction; a knob that stands on the edge of one does not flicker. Where
its detents are is where it stands still most often.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from device_agent.bus.core import Source
from device_agent.bus.gpio import Bias, InputLines
from device_agent.driver import DriverConfig, DriverError, Edge, GpioBus, Listener, Point, Unit, Value
from device_agent.schema import Field, model_validator

# A knob that is turned has its next quarter sooner.
STILL_S = 0.3

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


class RotaryEncoder(Listener[RotaryEncoderConfig, GpioBus]):
    """The position goes on over reopened lines, from 0 at each start."""

    example = "line_a = 5\nline_b = 6"
    points = (Point("position", Unit.ONE, "integer", description="Steps clockwise since the start."),)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines: InputLines | None = None
        self._a = self._b = False
        self._stood = Counter({(False, False): 1})
        """How often it stood still, by the contacts."""
        self._edge_s = 0.0
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
        self._lines = self.bus.inputs(
            (config.line_a, config.line_b), active_low=config.active_low, bias=config.bias
        )
        self._a, self._b = self._lines.levels()
        self._stood = Counter({(self._a, self._b): 1})
        self._quarters = 0
        self._known = True

    def close(self) -> None:
        lines, self._lines = self._lines, None
        if lines is not None:
            lines.close()

    def listen(self) -> Source:
        if self._lines is None:
            raise DriverError(f"lines {self.config.line_a} and {self.config.line_b} are not open")
        return self._lines

    def feed(self, chunk: Edge) -> Iterator[dict[str, Value]]:
        self.lost_edges += chunk.lost
        if chunk.monotonic_s - self._edge_s >= STILL_S:
            self._stood[self._a, self._b] += 1
            self._forget_part_of_a_step()
        self._edge_s = chunk.monotonic_s
        is_a = chunk.place == 0
        if chunk.active == (self._a if is_a else self._b):
            return  # its partner was lost
        if is_a:
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
        else:
            self._forget_part_of_a_step()

    def _forget_part_of_a_step(self) -> None:
        """At rest it stands in a detent: what is left of a step are lost edges, or it went to and fro."""
        if self.config.quarters_per_step == 4 and (self._a, self._b) == self._stood.most_common(1)[0][0]:
            self._quarters = 0

    def present(self, monotonic_s: float) -> dict[str, Value] | None:
        return self._values() if self._known else None

    def _values(self) -> dict[str, Value]:
        return {"position": self._position}
