"""A knob with two contacts: turned to a position, it goes there quarter by quarter."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from device_agent.testing.board.gpio import offset_of
from device_agent.testing.chips import Drive, GpioChip

if TYPE_CHECKING:
    from device_agent_drivers.rotary_encoder import RotaryEncoderConfig

QUARTER_S = 0.002
CLOCKWISE = ((False, False), (True, False), (True, True), (False, True))


class SimulatedEncoder(GpioChip):
    """Quantities: position, in whole steps."""

    def __init__(self, config: "RotaryEncoderConfig") -> None:
        super().__init__({"position": 0})
        self._lines = offset_of(config.line_a) or 0, offset_of(config.line_b) or 0
        self._active_low = config.active_low
        self._size = config.quarters_per_step * (-1 if config.reverse else 1)
        self._quarter = 0
        self._still_s = float("-inf")

    def drives(self) -> Iterable[Drive]:
        now_s = self.now_s()
        target = round(float(self._quantities["position"])) * self._size
        starts_s = max(0.0, self._still_s - now_s)
        if target == self._quarter and not starts_s:
            return self._contacts(0.0)
        drives: list[Drive] = []
        while self._quarter != target:
            self._quarter += 1 if target > self._quarter else -1
            drives += self._contacts(starts_s)
            starts_s += QUARTER_S
        self._still_s = now_s + starts_s
        return drives

    def _contacts(self, after_s: float) -> list[Drive]:
        contacts = CLOCKWISE[self._quarter % 4]
        return [
            Drive(line, closed is not self._active_low, after_s)
            for line, closed in zip(self._lines, contacts, strict=True)
        ]
