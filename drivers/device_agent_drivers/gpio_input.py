"""A GPIO line that is sensed: a door contact, a button, a flow meter, a rain gauge.

`debounce_s`: a change counts once the new level has held that long; shorter pulses never happened.

    line     __|‾|_|‾‾‾‾‾‾‾‾‾|_|‾|_____________
    active   __________|‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾|_______
                    <--->            <--->      debounce_s
"""

from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from device_agent.bus.core import Source
from device_agent.bus.gpio import Bias, InputLine
from device_agent.driver import (
    DriverConfig,
    DriverError,
    Edge,
    Flag,
    Flagged,
    GpioBus,
    Listener,
    Point,
    Unit,
    Value,
)
from device_agent.schema import Field, model_validator

# The rate is the mean over at most this many intervals, so that one late edge does not make it jump.
INTERVALS_MAX = 64


TOTAL = Point("total", description="`start`, and what was counted since.")


class GpioInputConfig(DriverConfig):
    driver: Literal["gpio-input"] = "gpio-input"
    line: Annotated[int, Field(strict=True, ge=0, le=65_535)] | Annotated[str, Field(min_length=1)] = Field(
        description='Offset on the chip, or the line\'s name such as "GPIO17".'
    )
    active_low: bool = Field(False, description="A low level is `active`, as with a switch to ground.")
    bias: Bias = Field("as-is", description='The chip\'s own pull: "pull-up", "pull-down", "none", "as-is".')
    debounce_s: float = Field(0.0, ge=0, le=60, description="How long a new level must hold to count.")
    count: bool = Field(False, description="Also count the changes to active, and give their rate.")
    per_unit: float | None = Field(
        None, gt=0, description="Changes to active for one unit of the point `total`: 1000 for 1000 imp/kWh."
    )
    start: float = Field(
        0.0, description="With `per_unit`: what `total` begins at; another number begins the count anew."
    )
    rate_window_s: float = Field(
        60.0, gt=0, le=86_400, description="The rate is the mean over this time; 0 after it without an edge."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "GpioInputConfig":
        if self.per_unit is not None and not self.count:
            raise ValueError("`per_unit` is for what is counted: set `count = true`")
        if self.start and self.per_unit is None:
            raise ValueError("`start` is for the point `total`, which needs `per_unit`")
        return self


class GpioInput(Listener[GpioInputConfig, GpioBus]):
    """Told by the kernel of each edge. The count goes on over a reopened line and over restarts.

    After a crash or a power cut it is `incomplete` until the next change to active.
    """

    example = """
line = 17
bias = "pull-up"
debounce_s = 0.02
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._line: InputLine | None = None
        self._active: bool | None = None
        self._kept: dict[str, float] = {}
        self._rises_s: deque[float] = deque(maxlen=INTERVALS_MAX + 1)
        self.lost_edges = 0

    @classmethod
    def points_of(cls, config: GpioInputConfig) -> tuple[Point, ...]:
        active = Point("active", type="boolean", description="Whether the line is at its active level.")
        if not config.count:
            return (active,)
        return (
            active,
            Point("count", Unit.ONE, "integer", low=0, description="Changes to active that were counted."),
            Point("rate", Unit.HERTZ, low=0, description="Changes to active a second."),
            *((TOTAL,) if config.per_unit is not None else ()),
        )

    @classmethod
    def claims(cls, config: GpioInputConfig) -> tuple[str, ...]:
        return (f"line {config.line}",)

    def keep(self, kept: dict[str, float]) -> None:
        if not self.config.count or kept.get("start", self.config.start) != self.config.start:
            kept.clear()
        if self.config.count:
            kept |= {"count": int(kept.get("count", 0)), "start": self.config.start}
        self._kept = kept

    def open(self) -> None:
        self.close()
        config = self.config
        self._line = self.bus.input(
            config.line, active_low=config.active_low, bias=config.bias, debounce_s=config.debounce_s
        )
        self._rises_s.clear()
        self._active = self._line.read()

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def listen(self) -> Source:
        if self._line is None:
            raise DriverError(f"line {self.config.line} is not open")
        return self._line

    def feed(self, chunk: Edge) -> Iterator[dict[str, Value | Flagged]]:
        self._active = chunk.active
        self.lost_edges += chunk.lost
        if self.config.count:
            # Edges alternate, so those lost before a rise end in a fall: half of them were rises.
            self._kept["count"] = self._count + (chunk.lost + (not chunk.active)) // 2 + chunk.active
            if chunk.lost:
                self._rises_s.clear()  # an interval with a hole in it would say half the true rate
            if chunk.active:
                self._rises_s.append(chunk.monotonic_s)
                self._kept.pop("unclean", None)
        yield self._values(chunk.monotonic_s)

    def present(self, monotonic_s: float) -> dict[str, Value | Flagged] | None:
        return None if self._active is None else self._values(monotonic_s)

    def _values(self, now_s: float) -> dict[str, Value | Flagged]:
        if not self.config.count:
            return {"active": self._active}
        config = self.config
        counted: dict[str, Value] = {"count": self._count}
        if config.per_unit is not None:
            counted["total"] = config.start + self._count / config.per_unit
        doubted = "unclean" in self._kept
        return {
            "active": self._active,
            "rate": self._rate_hz(now_s),
            **{name: Flagged(v, Flag.INCOMPLETE) if doubted else v for name, v in counted.items()},
        }

    @property
    def _count(self) -> int:
        return int(self._kept.get("count", 0))

    def _rate_hz(self, now_s: float) -> float:
        """Mean rate over the window, and never above 1 / (time since the last edge), so that it decays."""
        rises_s = self._rises_s
        while rises_s and rises_s[0] < now_s - self.config.rate_window_s:
            rises_s.popleft()
        if len(rises_s) < 2:
            return 0.0
        span_s = rises_s[-1] - rises_s[0]
        intervals = len(rises_s) - 1
        waited_s = now_s - rises_s[-1]
        if waited_s * intervals > span_s:
            return 1 / waited_s if waited_s > 0 else 0.0
        return intervals / span_s if span_s > 0 else 0.0
