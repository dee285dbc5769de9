"""An HC-SR04: the falling edge of a trigger pulse sends the burst, the echo line answers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from device_agent.testing.board.gpio import offset_of
from device_agent.testing.chips import Drive, GpioChip

if TYPE_CHECKING:
    from device_agent_drivers.hc_sr04 import HcSr04Config

PULSE_MIN_S = 0.000_01
BURST_S = 0.000_45  # until the echo line rises
NOTHING_S = 0.038
FARTHEST_M = 4.5


class SimulatedHcSr04(GpioChip):
    """Quantities: distance (m); beyond 4.5 m nothing comes back."""

    def __init__(self, config: "HcSr04Config") -> None:
        super().__init__({"distance": 1.25})
        self._trigger, self._echo = offset_of(config.trigger) or 0, offset_of(config.echo) or 0
        self._speed = 331.3 * (1 + config.temperature_c / 273.15) ** 0.5
        self._began_s: float | None = None
        self._busy_until_s = 0.0
        self.nothing_s = NOTHING_S
        """How long the echo of nothing lasts; copies differ."""

    def saw(self, line: int, level: bool) -> Iterable[Drive]:
        now_s = self.now_s()
        if line != self._trigger:
            return ()
        if level:
            self._began_s = now_s
            return ()
        began_s, self._began_s = self._began_s, None
        if began_s is None or now_s - began_s < PULSE_MIN_S or now_s < self._busy_until_s:
            return ()
        metres = float(self._quantities["distance"])
        lasts_s = 2 * metres / self._speed if metres <= FARTHEST_M else self.nothing_s
        self._busy_until_s = now_s + BURST_S + lasts_s
        return (Drive(self._echo, True, BURST_S), Drive(self._echo, False, BURST_S + lasts_s))

    def drives(self) -> Iterable[Drive]:
        return (Drive(self._echo, False),) if self.now_s() >= self._busy_until_s else ()
