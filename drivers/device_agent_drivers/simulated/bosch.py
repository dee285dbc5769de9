"""What a simulated BME280 and BMP280 share, by their data sheets: forced measurements take their time, a
reset forgets the settings.

Raw values come from the sheets' integer formulas, turned round by bisection; the drivers use the
floating-point ones, so that a mistake in either shows.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from device_agent.testing.chips import Physical, RegisterChip

# The trimming values of the example in Bosch's data sheets.
T1, T2, T3 = 27504, 26435, -1000
P1, P2, P3, P4, P5, P6, P7, P8, P9 = 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000

ID, RESET, CTRL_HUM, STATUS, CTRL_MEAS, DATA = 0xD0, 0xE0, 0xF2, 0xF3, 0xF4, 0xF7
MEASURING, FORCED, MODE = 0b1000, 0b01, 0b11
FACTORS = (0, 1, 2, 4, 8, 16, 16, 16)
NOTHING_MEASURED = bytes((0x80, 0, 0, 0x80, 0, 0))


class SimulatedBosch(RegisterChip):
    """Quantities: temperature (Cel), pressure (hPa), and those of the subclass."""

    def __init__(
        self,
        address: int,
        registers: Mapping[int, bytes],
        quantities: Mapping[str, Physical] | None = None,
        read_only: Collection[int] = (),
    ) -> None:
        self._done_s: float | None = None
        super().__init__(
            {
                0x88: words(T1, T2, T3, P1, P2, P3, P4, P5, P6, P7, P8, P9),
                CTRL_HUM: b"\0\0\0\0",
                DATA: NOTHING_MEASURED,
                **registers,
            },
            {"temperature": 21.5, "pressure": 1013.25, **(quantities or {})},
            read_only=(*range(0x88, 0xA2), ID, STATUS, *range(DATA, 0xFF), *read_only),
        )
        self.address = address

    def reset(self) -> None:
        super().reset()
        self._done_s = None

    def transfer(self, write: bytes, read_size: int) -> bytes:
        self._finish_measuring()
        return super().transfer(write, read_size)

    def _take(self, data: bytes) -> None:
        """Writes are pairs of register and value; there is no increment in between (section 6.2.1)."""
        super()._take(data[:1])
        for index in range(1, len(data) - 1, 2):
            self.pointer = data[index]
            super()._take(data[index + 1 : index + 2])

    def on_write(self, register: int, value: int) -> int:
        if register == RESET:
            if value == 0xB6:
                self.reset()
            return 0
        if register == CTRL_MEAS and value & MODE in (0b01, 0b10):
            self._begin_measuring(value)
        return value

    def factors(self, ctrl_meas: int) -> tuple[int, ...]:
        """Oversampling of temperature, pressure, and what else there is."""
        return FACTORS[ctrl_meas >> 5], FACTORS[ctrl_meas >> 2 & 7]

    def _begin_measuring(self, ctrl_meas: int) -> None:
        # Section 9.1, typical times
        temperature, *others = self.factors(ctrl_meas)
        ms = 1 + 2.0 * temperature + sum(2.0 * factor + 0.5 for factor in others if factor)
        self._done_s = self.now_s() + ms / 1000
        self[STATUS] |= MEASURING

    def _finish_measuring(self) -> None:
        if self._done_s is None or self.now_s() < self._done_s:
            return
        self._done_s = None
        temperature, pressure, *_ = self.factors(self[CTRL_MEAS])
        self[STATUS] &= ~MEASURING
        self[CTRL_MEAS] &= ~MODE
        now: dict[str, Any] = self.quantities()
        raw_t = bisected(lambda raw: t_fine_of(raw) / 5120, now["temperature"], 20)
        t_fine = t_fine_of(raw_t)
        raw_p = bisected(lambda raw: -pascal_of(raw, t_fine) / 100, -now["pressure"], 20)
        self.put(DATA, _twenty(raw_p if pressure else 0x80000) + _twenty(raw_t if temperature else 0x80000))
        self.measured(t_fine)

    def measured(self, t_fine: int) -> None:
        """A measurement has ended: what else the chip measures follows here."""


def words(*values: int) -> bytes:
    return b"".join((value & 0xFFFF).to_bytes(2, "little") for value in values)


def _twenty(raw: int) -> bytes:
    return (raw << 4).to_bytes(3, "big")


def bisected(rising: Callable[[int], float], wanted: float, bits: int) -> int:
    """The raw value whose physical one is nearest to `wanted`."""
    low, high = 0, (1 << bits) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rising(middle) <= wanted else (low, middle)
    return low if wanted - rising(low) <= rising(high) - wanted else high


# --- section 4.2.3 (BME280), 3.11.3 (BMP280): integers of 32 and 64 bits ---------------------------------


def t_fine_of(raw: int) -> int:
    var1 = ((raw >> 3) - (T1 << 1)) * T2 >> 11
    var2 = (((raw >> 4) - T1) ** 2 >> 12) * T3 >> 14
    return var1 + var2


def pascal_of(raw: int, t_fine: int) -> float:
    var1 = t_fine - 128000
    var2 = var1 * var1 * P6 + (var1 * P5 << 17) + (P4 << 35)
    var1 = (var1 * var1 * P3 >> 8) + (var1 * P2 << 12)
    var1 = ((1 << 47) + var1) * P1 >> 33
    if var1 == 0:
        return 0.0
    pressure = ((1048576 - raw << 31) - var2) * 3125 // var1
    var1 = P9 * (pressure >> 13) * (pressure >> 13) >> 25
    var2 = P8 * pressure >> 19
    return ((pressure + var1 + var2 >> 8) + (P7 << 4)) / 256
