"""The world around a simulated port expander: contacts at its inputs, loads at its outputs."""

from device_agent.testing.chips import Physical
from device_agent_drivers.expander import ExpanderConfig


class Wiring:
    """Values are logical, as the points are; levels are what the chip's pins see."""

    def __init__(self, config: ExpanderConfig, pulled_up: int) -> None:
        self.config = config
        self._active_low = config.mask(config.active_low)
        self._pulled_up = pulled_up

    def quantities(self) -> dict[str, Physical]:
        """Each input with the value of an open contact: what its pull-up makes of it."""
        return self.logical(self._pulled_up, self.config.inputs)

    def outside(self, quantities: dict[str, Physical]) -> int:
        """The levels that the contacts make; every pin that has none is high."""
        levels = ~0
        for name in self.config.inputs:
            bit = self.config.mask((name,))
            if bool(quantities[name]) is bool(self._active_low & bit):
                levels &= ~bit
        return levels

    def logical(self, levels: int, names: list[str]) -> dict[str, Physical]:
        active = levels ^ self._active_low
        return {name: bool(active & self.config.mask((name,))) for name in names}
