"""NXP or TI PCF8574(A): eight quasi-bidirectional pins on I2C (data sheet PCF8574_PCF8574A).

There is one latch and no direction: a 1 is a weak pull-up that anything outside may pull down, a 0 is driven.
An input therefore needs a 1 in the latch for ever, whatever its pin reads.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from device_agent.driver import ChipReset, Value
from device_agent.schema import Field, field_validator
from device_agent_drivers.expander import Expander, ExpanderConfig

POWER_ON = 0xFF  # section 7.1: all pins are inputs


class Pcf8574Config(ExpanderConfig):
    pins: ClassVar[tuple[str, ...]] = tuple(f"p{bit}" for bit in range(8))

    driver: Literal["pcf8574"] = "pcf8574"
    address: int = Field(
        0x20, ge=0x20, le=0x3F, description="0x20 to 0x27 (PCF8574), 0x38 to 0x3f (PCF8574A)."
    )

    @field_validator("address")
    @classmethod
    def _is_one_of_its_own(cls, address: int) -> int:
        if 0x28 <= address <= 0x37:
            raise ValueError("must be 0x20 to 0x27 (PCF8574) or 0x38 to 0x3f (PCF8574A)")
        return address


class Pcf8574(Expander[Pcf8574Config]):
    """The latch cannot be read, so it is kept here and starts from its power-on value."""

    example = """
inputs = ["p0"]
outputs = ["p1"]
safe = false
"""
    obeys_any_write = True

    @staticmethod
    def simulator(config: Pcf8574Config) -> Any:
        from device_agent_drivers.simulated.pcf8574 import SimulatedPcf8574

        return SimulatedPcf8574(config)

    def open(self) -> None:
        self._latch = POWER_ON
        self._latch = self._latched(type(self).safe_of(self.config))
        self.bus.transfer(self.config.address, bytes((self._latch,)))
        self._levels()

    def read(self) -> dict[str, Value]:
        return self._logical(self._levels(), (point.name for point in self.points))

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self._levels()
        latch = self._latched(values)
        self.bus.transfer(self.config.address, bytes((latch,)))
        self._latch = latch
        return self._logical(self._levels(), values)

    def _levels(self) -> int:
        """The level of every pin. Raises ChipReset for an output that is driven low and is high."""
        levels = self.bus.transfer(self.config.address, b"", 1)[0]
        if wrong := levels & ~self._latch & self._outputs:
            names = [name for name in self.config.outputs if wrong & self.config.mask((name,))]
            raise ChipReset(
                f"PCF8574 at {self.config.address:#04x}: {', '.join(names)} should be driven low and reads "
                "high: the chip lost its latch, or the pin is shorted; check its supply"
            )
        return levels
