"""A GPIO line that switches by itself: a dimmed lamp, a fan, a heater. `duty` and `safe` are logical.

In hardware where the bus's `pwm` table names a channel, in software on the back end gpiozero, else refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from device_agent.bus.gpio import PwmOutput
from device_agent.driver import (
    Actuator,
    ActuatorConfig,
    DriverError,
    GpioBus,
    Point,
    Sensor,
    Unit,
    Value,
)
from device_agent.records import is_number
from device_agent.schema import Field, model_validator

FREQUENCY_MIN_HZ, FREQUENCY_MAX_HZ = 1.0, 100_000.0


class GpioPwmConfig(ActuatorConfig):
    driver: Literal["gpio-pwm"] = "gpio-pwm"
    line: Annotated[int, Field(strict=True, ge=0, le=65_535)] | Annotated[str, Field(min_length=1)] = Field(
        description='Offset on the chip, or the line\'s name such as "GPIO18".'
    )
    active_low: bool = Field(False, description="The line is low while on.")
    frequency_hz: float = Field(
        1000.0, ge=FREQUENCY_MIN_HZ, le=FREQUENCY_MAX_HZ, description="At the start, and when safe."
    )

    @model_validator(mode="after")
    def _safe_fits(self) -> "GpioPwmConfig":
        for name, value in self.safe_values().items():
            low, high = (0.0, 1.0) if name == "duty" else (FREQUENCY_MIN_HZ, FREQUENCY_MAX_HZ)
            if not is_number(value) or not low <= value <= high:
                raise ValueError(f"`safe` of {name} is {value!r}; it must be {low:g} to {high:g}")
        return self

    def safe_values(self) -> dict[str, Value]:
        """A single value is the duty; the frequency is the configured one unless a table has it."""
        safe = self.safe if isinstance(self.safe, dict) else {"duty": self.safe}
        return {"duty": safe.get("duty"), "frequency": safe.get("frequency", self.frequency_hz)}


class GpioPwm(Sensor[GpioPwmConfig, GpioBus], Actuator[GpioPwmConfig, GpioBus]):
    """Claimed at its safe duty. Polled, since a channel that is gone does not report it."""

    example = "line = 18\nsafe = 0"
    pulses = "share"
    points = (
        Point(
            "duty",
            write=True,
            minimum=0,
            maximum=1,
            resolution=0.001,
            description="Share of the time that it is on.",
        ),
        Point(
            "frequency",
            Unit.HERTZ,
            write=True,
            minimum=FREQUENCY_MIN_HZ,
            maximum=FREQUENCY_MAX_HZ,
            description="How often a second it switches on.",
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._output: PwmOutput | None = None

    @classmethod
    def claims(cls, config: GpioPwmConfig) -> tuple[str, ...]:
        return (f"line {config.line}",)

    @classmethod
    def safe_of(cls, config: GpioPwmConfig) -> dict[str, Value]:
        return config.safe_values()

    def open(self) -> None:
        self.close()
        duty, frequency_hz = _numbers(type(self).safe_of(self.config))
        self._output = self.bus.pwm(
            self.config.line, duty=duty, frequency_hz=frequency_hz, active_low=self.config.active_low
        )

    def close(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()

    def read(self) -> dict[str, Value]:
        duty, frequency_hz = self._claimed().read()
        return {"duty": round(duty, 6), "frequency": round(frequency_hz, 3)}

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self._claimed().write(*_numbers({**self.read(), **values}))
        read_back = self.read()
        return {name: read_back[name] for name in values}

    def _claimed(self) -> PwmOutput:
        if self._output is None:
            raise DriverError(f"line {self.config.line} is not open")
        return self._output


def _numbers(values: Mapping[str, Value]) -> tuple[float, float]:
    duty, frequency_hz = values["duty"], values["frequency"]
    if not isinstance(duty, int | float) or not isinstance(frequency_hz, int | float):
        raise DriverError(f"duty and frequency are numbers, not {duty!r} and {frequency_hz!r}")
    return float(duty), float(frequency_hz)
