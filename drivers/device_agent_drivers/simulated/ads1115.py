"""An ADS1115 by its data sheet: conversions take their time, the result stays until the next one."""

from typing import TYPE_CHECKING

from device_agent.testing.chips import Physical, RegisterChip

if TYPE_CHECKING:
    from device_agent_drivers.ads1115 import Ads1115Config

CONVERSION, CONFIG, LOW, HIGH = 0, 1, 2, 3
RATES_SPS = (8, 16, 32, 64, 128, 250, 475, 860)
RANGES_V = (6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256)
PAIRS = ("a0_a1", "a0_a3", "a1_a3", "a2_a3")


class SimulatedAds1115(RegisterChip):
    """Quantities: a0 to a3 (V against ground), and each configured pair, which moves its positive input."""

    slow = 1.1
    """This part's clock: 1.1 is the slowest that the sheet allows."""

    def __init__(self, config: "Ads1115Config") -> None:
        world: dict[str, Physical] = {"a0": 0.5, "a1": 0.25, "a2": 1.5, "a3": 0.0}
        world |= {name: 0.0 for name in config.channels if name in PAIRS}
        self._done_s: float | None = None
        self._converting = 0
        super().__init__(
            {CONVERSION: b"\0\0", CONFIG: b"\x85\x83", LOW: b"\x80\0", HIGH: b"\x7f\xff"},
            world,
            read_only=(CONVERSION,),
        )
        self.address = config.address
        self.changed("a0")

    def reset(self) -> None:
        super().reset()
        self._done_s = None

    def changed(self, quantity: str) -> None:
        if quantity in PAIRS:
            plus, minus = quantity.split("_")
            self._quantities[plus] = self._input(minus) + float(self._quantities[quantity])
        for pair in PAIRS:
            if pair in self._quantities:
                plus, minus = pair.split("_")
                self._quantities[pair] = self._input(plus) - self._input(minus)

    def _input(self, name: str) -> float:
        return float(self._quantities[name])

    def transfer(self, write: bytes, read_size: int) -> bytes:
        self._finish()
        return super().transfer(write, read_size)

    def on_write(self, register: int, value: int) -> int:
        if register != CONFIG:
            return value
        if value & 0x8000 and self._done_s is None:
            self._converting = value
            self._done_s = self.now_s() + 25e-6 + self.slow / RATES_SPS[value >> 5 & 7]
        return value & 0x7FFF

    def on_read(self, register: int, value: int) -> int:
        # The highest bit is 1 while nothing is converted.
        return value & 0x7FFF | (self._done_s is None) << 15 if register == CONFIG else value

    def _finish(self) -> None:
        if self._done_s is None or self.now_s() < self._done_s:
            return
        self._done_s = None
        config = self._converting
        mux, full_v = config >> 12 & 7, RANGES_V[config >> 9 & 7]
        if mux >= 4:
            volts = self._input(f"a{mux - 4}")
        else:
            plus, minus = PAIRS[mux].split("_")
            volts = self._input(plus) - self._input(minus)
        self[CONVERSION] = max(-0x8000, min(0x7FFF, round(volts / full_v * 0x8000)))
