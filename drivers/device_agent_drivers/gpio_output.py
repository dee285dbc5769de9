"""A GPIO line that is driven: a relay, a valve, a lamp. `on` and `safe` are logical."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from device_agent.bus.gpio import Drive, OutputLine
from device_agent.driver import (
    Action,
    Actuator,
    ActuatorConfig,
    Argument,
    DriverError,
    GpioBus,
    Point,
    Sensor,
    Step,
    Unit,
    Value,
)
from device_agent.schema import Field, field_validator

PULSE_MAX_S = 86_400.0


class GpioOutputConfig(ActuatorConfig):
    driver: Literal["gpio-output"] = "gpio-output"
    line: Annotated[int, Field(strict=True, ge=0, le=65_535)] | Annotated[str, Field(min_length=1)] = Field(
        description='Offset on the chip, or the line\'s name such as "GPIO27".'
    )
    active_low: bool = Field(False, description="The line is low when `on`, as most relay boards want it.")
    drive: Drive = Field("push-pull", description='"push-pull", "open-drain" or "open-source".')

    @field_validator("safe")
    @classmethod
    def _safe_is_logical(cls, safe: Any) -> Any:
        value = safe.get("on") if isinstance(safe, dict) and set(safe) == {"on"} else safe
        if not isinstance(value, bool):
            raise ValueError("must be true or false (logical: `active_low` is applied below it)")
        return safe


class GpioOutput(Sensor[GpioOutputConfig, GpioBus], Actuator[GpioOutputConfig, GpioBus]):
    """Claimed at its safe value in one step with the direction, so that a relay never clicks at the start.

    Also asked for its level now and then: a chip that is gone would not be noticed until the next command.
    """

    example = "line = 27\nsafe = false\nmax_on_s = 600"
    points = (Point("on", type="boolean", write=True, description="Whether the line is driven active."),)
    actions = (
        Action(
            "pulse",
            (Argument("for_s", Unit.SECOND, minimum=0.001, maximum=PULSE_MAX_S, description="How long."),),
            description="Leave the safe value for this time, then return to it.",
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._line: OutputLine | None = None

    @classmethod
    def claims(cls, config: GpioOutputConfig) -> tuple[str, ...]:
        return (f"line {config.line}",)

    def open(self) -> None:
        self.close()
        config = self.config
        self._line = self.bus.output(
            config.line, active=self._safe, active_low=config.active_low, drive=config.drive
        )

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def fileno(self) -> int:
        """The descriptor that keeps the line driven while open."""
        return self._claimed().fileno()

    def read(self) -> dict[str, Value]:
        return {"on": self._claimed().read()}

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        line = self._claimed()
        line.write(bool(values["on"]))
        return {"on": line.read()}

    def do(self, action: str, args: Mapping[str, Value]) -> Iterable[Step] | None:
        if action != "pulse":
            super().do(action, args)
        for_s = args["for_s"]
        if not isinstance(for_s, int | float):
            raise DriverError(f"pulse needs for_s as a number of seconds, not {for_s!r}")
        return (Step({"on": not self._safe}, for_s=float(for_s)), Step({"on": self._safe}))

    @property
    def _safe(self) -> bool:
        return bool(type(self).safe_of(self.config)["on"])

    def _claimed(self) -> OutputLine:
        if self._line is None:
            raise DriverError(f"line {self.config.line} is not open")
        return self._line
