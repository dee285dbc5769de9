"""A PCF8574 by its data sheet: a latch of weak ones and strong zeros, and pins that can be read."""

from typing import TYPE_CHECKING

from device_agent.testing.chips import I2cChip, Physical
from device_agent_drivers.simulated.expander import Wiring

if TYPE_CHECKING:
    from device_agent_drivers.pcf8574 import Pcf8574Config


class SimulatedPcf8574(I2cChip):
    """Quantities: each configured input. Outputs: each configured output."""

    def __init__(self, config: "Pcf8574Config") -> None:
        self._wiring = Wiring(config, 0xFF)
        self.latch = 0xFF
        super().__init__(self._wiring.quantities())
        self.address = config.address

    def outputs(self) -> dict[str, Physical]:
        return self._wiring.logical(self.latch, self._wiring.config.outputs)

    def reset(self) -> None:
        self.latch = 0xFF

    def transfer(self, write: bytes, read_size: int) -> bytes:
        for value in write:
            self.latch = value
        levels = self.latch & self._wiring.outside(self._quantities) & 0xFF
        return bytes((levels,)) * read_size
