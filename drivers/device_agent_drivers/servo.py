"""A hobby servo on a GPIO line: the length of a pulse, 50 times a second, is the angle.

In hardware where the bus's `pwm` table names a channel; software pulses (back end gpiozero) make it tremble.
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


class ServoConfig(ActuatorConfig):
    driver: Literal["servo"] = "servo"
    line: Annotated[int, Field(strict=True, ge=0, le=65_535)] | Annotated[str, Field(min_length=1)] = Field(
        description='Offset on the chip, or the line\'s name such as "GPIO18".'
    )
    active_low: bool = Field(False, description="For a transistor that turns the signal round.")
    minimum_deg: float = Field(-90.0, ge=-720, le=720, description="The smallest angle.")
    maximum_deg: float = Field(90.0, ge=-720, le=720, description="The largest angle.")
    minimum_pulse_ms: float = Field(1.0, ge=0.1, le=10, description="Pulse at the smallest angle.")
    maximum_pulse_ms: float = Field(
        2.0, ge=0.1, le=10, description="Pulse at the largest angle; may be the shorter one."
    )
    frequency_hz: float = Field(50.0, ge=20, le=400, description="Pulses a second.")

    @model_validator(mode="after")
    def _fits_together(self) -> "ServoConfig":
        if self.minimum_deg >= self.maximum_deg:
            raise ValueError("`minimum_deg` must be below `maximum_deg`")
        if self.minimum_pulse_ms == self.maximum_pulse_ms:
            raise ValueError("`minimum_pulse_ms` and `maximum_pulse_ms` must differ")
        if max(self.minimum_pulse_ms, self.maximum_pulse_ms) * self.frequency_hz >= 1000:
            raise ValueError("the longest pulse does not fit into a period of `frequency_hz`")
        angle = self.safe.get("angle") if isinstance(self.safe, dict) else self.safe
        if not is_number(angle) or not self.minimum_deg <= angle <= self.maximum_deg:
            raise ValueError(
                f"`safe` is {angle!r}; it must be {self.minimum_deg:g} to {self.maximum_deg:g} degrees"
            )
        return self

    def duty_of(self, angle: float) -> float:
        share = (angle - self.minimum_deg) / (self.maximum_deg - self.minimum_deg)
        pulse_ms = self.minimum_pulse_ms + share * (self.maximum_pulse_ms - self.minimum_pulse_ms)
        return pulse_ms * self.frequency_hz / 1000

    def angle_of(self, duty: float) -> float:
        pulse_ms = duty * 1000 / self.frequency_hz
        share = (pulse_ms - self.minimum_pulse_ms) / (self.maximum_pulse_ms - self.minimum_pulse_ms)
        return self.minimum_deg + share * (self.maximum_deg - self.minimum_deg)


class Servo(Sensor[ServoConfig, GpioBus], Actuator[ServoConfig, GpioBus]):
    """`angle` is what the servo was set to; the position of its arm cannot be read."""

    example = "line = 18\nsafe = 0"
    pulses = "position"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._output: PwmOutput | None = None

    @classmethod
    def points_of(cls, config: ServoConfig) -> tuple[Point, ...]:
        low, high = config.minimum_deg, config.maximum_deg
        angle = Point(
            "angle",
            Unit.DEGREE,
            write=True,
            minimum=low,
            maximum=high,
            resolution=0.1,
            description="Angle that the servo is told.",
        )
        return (angle,)

    @classmethod
    def claims(cls, config: ServoConfig) -> tuple[str, ...]:
        return (f"line {config.line}",)

    def open(self) -> None:
        self.close()
        config = self.config
        self._output = self.bus.pwm(
            config.line,
            duty=self._duty(type(self).safe_of(config)),
            frequency_hz=config.frequency_hz,
            active_low=config.active_low,
        )

    def close(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()

    def read(self) -> dict[str, Value]:
        duty, _ = self._claimed().read()
        return {"angle": round(self.config.angle_of(duty), 2)}

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self._claimed().write(self._duty(values), self.config.frequency_hz)
        return self.read()

    def _duty(self, values: Mapping[str, Value]) -> float:
        angle = values["angle"]
        if not isinstance(angle, int | float):
            raise DriverError(f"angle is a number of degrees, not {angle!r}")
        return self.config.duty_of(float(angle))

    def _claimed(self) -> PwmOutput:
        if self._output is None:
            raise DriverError(f"line {self.config.line} is not open")
        return self._output
