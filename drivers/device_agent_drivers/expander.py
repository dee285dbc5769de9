"""What port expanders share: pins by name, logical values, and a latch that is kept in memory.

`active_low` is applied here and nowhere else; below it everything is a level.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from device_agent.driver import Actuator, ActuatorConfig, I2cBus, Point, Sensor, Value
from device_agent.schema import Field, model_validator


class ExpanderConfig(ActuatorConfig):
    pins: ClassVar[tuple[str, ...]] = ()
    """The chip's pins in the order of their bits."""

    inputs: list[str] = Field([], max_length=16, description="Pins that are sensed.")
    outputs: list[str] = Field([], max_length=16, description="Pins that are driven.")
    active_low: list[str] = Field([], max_length=16, description="Pins that are low when true.")
    safe: Value | dict[str, Value] = Field(
        {}, description="Logical value of each output when in doubt: one for all, or a table by pin."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "ExpanderConfig":
        used = [*self.inputs, *self.outputs]
        if not used:
            raise ValueError("needs `inputs`, `outputs` or both")
        for key, names in self.lists().items():
            if unknown := sorted(set(names) - set(self.pins)):
                raise ValueError(
                    f"`{key}` names {', '.join(unknown)}; the pins are {self.pins[0]} to {self.pins[-1]}"
                )
        if twice := sorted({name for name in used if used.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice in `inputs` and `outputs`")
        if unused := sorted(set(self.active_low) - set(used)):
            raise ValueError(f"`active_low` names {', '.join(unused)}, which is neither input nor output")
        for name, value in self.safe_values().items():
            if not isinstance(value, bool):
                raise ValueError(f"`safe` of output {name} must be true or false (logical), not {value!r}")
        return self

    def lists(self) -> dict[str, list[str]]:
        """Every option that is a list of pins."""
        return {"inputs": self.inputs, "outputs": self.outputs, "active_low": self.active_low}

    def safe_values(self) -> dict[str, Value]:
        safe = self.safe
        return {name: safe.get(name) if isinstance(safe, dict) else safe for name in self.outputs}

    def mask(self, names: Iterable[str]) -> int:
        """The bits of these pins."""
        return sum(1 << self.pins.index(name) for name in set(names))


C = TypeVar("C", bound=ExpanderConfig)


class Expander(Sensor[C, I2cBus], Actuator[C, I2cBus]):
    """`_latch` holds the level last set of each pin; outputs begin with their safe values."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outputs = self.config.mask(self.config.outputs)
        self._active_low = self.config.mask(self.config.active_low)
        self._latch = 0

    @classmethod
    def points_of(cls, config: Any) -> tuple[Point, ...]:
        return tuple(
            Point(name, type="boolean", write=name in config.outputs, description=_described(name, config))
            for name in config.pins
            if name in config.inputs or name in config.outputs
        )

    @classmethod
    def safe_of(cls, config: Any) -> dict[str, Value]:
        safe: dict[str, Value] = config.safe_values()
        return safe

    def _latched(self, values: Mapping[str, Value]) -> int:
        """The latch with these logical values in it, every other pin as it was."""
        latch = self._latch
        for name, value in values.items():
            bit = self.config.mask((name,))
            level = bool(value) is not bool(self._active_low & bit)
            latch = latch | bit if level else latch & ~bit
        return latch

    def _logical(self, levels: int, names: Iterable[str]) -> dict[str, Value]:
        """The values of these pins from the levels of all."""
        active = levels ^ self._active_low
        return {name: bool(active & self.config.mask((name,))) for name in names}


def _described(name: str, config: ExpanderConfig) -> str:
    kind = "Output" if name in config.outputs else "Input"
    return f"{kind} {name.upper()}, {'low' if name in config.active_low else 'high'} when true."
