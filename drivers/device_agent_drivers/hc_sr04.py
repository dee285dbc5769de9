"""HC-SR04 ultrasonic ranger: a pulse starts it, the length of its echo pulse is the way there and back.

`trigger` gives the pulse; the kernel stamps the edges of the echo, and `read` looks at them when even the
longest is over. Nothing is measured by waiting in Python.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from device_agent.bus.gpio import Bias, InputLine, OutputLine
from device_agent.driver import (
    DriverConfig,
    DriverError,
    Edge,
    Flag,
    Flagged,
    GpioBus,
    NoAnswer,
    Point,
    Sensor,
    Unit,
    Value,
)
from device_agent.schema import Field, model_validator

PULSE_S = 0.000_02
# The sheet's shortest cycle. Its longest echo, of no object, lasts 38 ms; copies hold it for 200 ms.
CYCLE_S = 0.06
NEAREST_M, FARTHEST_M = 0.02, 4.0

NOT_READY = Flagged(None, Flag.NOT_READY)
OUT_OF_RANGE = Flagged(None, Flag.OUT_OF_RANGE)

Line = Annotated[int, Field(strict=True, ge=0, le=65_535)] | Annotated[str, Field(min_length=1)]


class HcSr04Config(DriverConfig):
    driver: Literal["hc-sr04"] = "hc-sr04"
    trigger: Line = Field(description="The line that starts it.")
    echo: Line = Field(description="The line of its answer: 5 V, to be divided down to what the board bears.")
    bias: Bias = Field("as-is", description="The chip's own pull at the echo line.")
    temperature_c: float = Field(
        20.0, ge=-40, le=85, description="Of the air: sound is 0.18 % faster a degree."
    )

    @model_validator(mode="after")
    def _two_lines(self) -> "HcSr04Config":
        if self.trigger == self.echo:
            raise ValueError("`trigger` and `echo` are the same line")
        return self


class HcSr04(Sensor[HcSr04Config, GpioBus]):
    example = "trigger = 23\necho = 24"
    points = (
        Point("distance", Unit.METRE, low=NEAREST_M, high=FARTHEST_M, description="To the nearest object."),
    )
    settle_s = CYCLE_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trigger: OutputLine | None = None
        self._echo: InputLine | None = None
        self._triggered = False

    @classmethod
    def claims(cls, config: HcSr04Config) -> tuple[str, ...]:
        return (f"line {config.trigger}", f"line {config.echo}")

    @staticmethod
    def simulator(config: HcSr04Config) -> Any:
        from device_agent_drivers.simulated.hc_sr04 import SimulatedHcSr04

        return SimulatedHcSr04(config)

    def open(self) -> None:
        self.close()
        self._trigger = self.bus.output(self.config.trigger, active=False)
        self._echo = self.bus.input(self.config.echo, bias=self.config.bias)

    def close(self) -> None:
        for line in (self._trigger, self._echo):
            if line is not None:
                line.close()
        self._trigger = self._echo = None

    def trigger(self) -> None:
        trigger, echo = self._claimed()
        echo.drain()
        # A copy that holds its line for an echo that never came takes no other pulse meanwhile.
        self._triggered = not echo.read()
        if self._triggered:
            trigger.write(True)
            self.sleep(PULSE_S)
            trigger.write(False)

    def read(self) -> dict[str, Value | Flagged]:
        _, echo = self._claimed()
        edges = echo.drain()
        if not self._triggered:
            return {"distance": NOT_READY}
        if not edges and not echo.read():
            raise NoAnswer(
                f"the ranger at lines {self.config.trigger} and {self.config.echo} gives no echo pulse; "
                "check its 5 V supply, and the divider at the echo line"
            )
        return {"distance": distance(edges, self.config.temperature_c)}

    def _claimed(self) -> tuple[OutputLine, InputLine]:
        if self._trigger is None or self._echo is None:
            raise DriverError(f"lines {self.config.trigger} and {self.config.echo} are not open")
        return self._trigger, self._echo


def distance(edges: Sequence[Edge], temperature_c: float) -> Value | Flagged:
    """Metres from the first pulse among the edges; an echo that is too long or has no end is no distance."""
    rise = next((edge for edge in edges if edge.active), None)
    if rise is None or any(edge.lost for edge in edges):
        return NOT_READY
    fall = next((edge for edge in edges if not edge.active and edge.monotonic_s > rise.monotonic_s), None)
    if fall is None:
        return OUT_OF_RANGE
    metres = (fall.monotonic_s - rise.monotonic_s) * speed_of_sound(temperature_c) / 2
    return metres if NEAREST_M <= metres <= FARTHEST_M else OUT_OF_RANGE


def speed_of_sound(temperature_c: float) -> float:
    """In air, m/s: an ideal gas with 331.3 m/s at 0 degrees."""
    return 331.3 * float((1 + temperature_c / 273.15) ** 0.5)
