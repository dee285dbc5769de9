"""What triggers a delegation, a rule or an alert, and a command that it may cause."""

from typing import Annotated, Any

from device_agent.config.types import Table
from device_agent.driver import Value
from device_agent.records import DeviceState
from device_agent.schema import BeforeValidator, Field, model_validator

_CONDITIONS = ("above", "below", "equals", "status", "at", "every_s")


def _states(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


State = Annotated[DeviceState, Field(strict=False)]


class When(Table):
    """What triggers: a value, a state, or time. Exactly one of them.

    `above` holds until the value is at most `below_again` (`below`: at least `above_again`).
    """

    device: str = Field("", description="The device that is watched.")
    point: str = Field("", description="Its point; not for `status`.")
    above: float | None = Field(None, description="Holds while the value is above this.")
    below_again: float | None = Field(None, description="Over when the value is at most this.")
    below: float | None = Field(None, description="Holds while the value is below this.")
    above_again: float | None = Field(None, description="Over when the value is at least this.")
    equals: bool | str | None = Field(None, description="Holds while the value is this.")
    status: Annotated[tuple[State, ...], BeforeValidator(_states)] = Field(
        (), strict=False, description="Holds while the device is in one of these states."
    )
    for_s: float = Field(0, ge=0, le=604_800, description="How long it must last.")
    at: str | None = Field(
        None, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="Local time of each day."
    )
    every_s: float | None = Field(None, ge=60, le=31_622_400, description="Period.")

    @property
    def timed(self) -> bool:
        """Whether it triggers at a time, instead of holding for a while."""
        return self.at is not None or self.every_s is not None

    @model_validator(mode="after")
    def _one_condition(self) -> "When":
        named = [name for name in _CONDITIONS if getattr(self, name) not in (None, ())]
        if len(named) != 1:
            raise ValueError(f"must have exactly one of {', '.join(_CONDITIONS)}")
        if self.timed and (self.device or self.point or self.for_s):
            raise ValueError(f"has {named[0]}, which needs no device, point or for_s: remove them")
        if not self.timed and not self.device:
            raise ValueError(f"has {named[0]} and no device: add device")
        if bool(self.point) != (named[0] in ("above", "below", "equals")):
            raise ValueError(f"has {named[0]}, which needs {'no' if self.point else 'a'} point")
        self._check_hysteresis()
        return self

    def _check_hysteresis(self) -> None:
        again = {"above": self.below_again, "below": self.above_again}
        for name, other, sign in (("above", "below_again", 1), ("below", "above_again", -1)):
            value, back = getattr(self, name), again[name]
            if back is not None and value is None:
                raise ValueError(f"has {other} without {name}: add {name}, or remove it")
            if back is not None and value is not None and (value - back) * sign < 0:
                raise ValueError(f"has {name} = {value:g} and {other} = {back:g}: swap them")


class AllowedCommand(Table):
    """[delegations.NAME.commands.COMMAND], [rules.NAME].then: one thing that may be caused."""

    description: str = Field(
        "", max_length=500, description="For people, and told to an AI agent that may choose it."
    )
    device: str = Field(description="The device it moves.")
    values: dict[str, Value] = Field(default_factory=dict, description="What is set.")
    for_s: float | None = Field(None, gt=0, le=86_400, description="Then back to safe.")
    action: str = Field("", description="Or: the action that is carried out.")
    args: dict[str, Value] = Field(default_factory=dict, description="Its arguments.")

    @model_validator(mode="after")
    def _one_kind(self) -> "AllowedCommand":
        if bool(self.values) == bool(self.action):
            raise ValueError("must have either values or an action")
        if self.args and not self.action:
            raise ValueError("has args without an action: remove them")
        if self.for_s is not None and self.action:
            raise ValueError("has for_s, which goes with values: put it into args, or remove it")
        return self
