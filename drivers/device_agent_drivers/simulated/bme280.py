"""A BME280: what a BMP280 is, and humidity, with a calibration that uses all the traps of its packing."""

from typing import Any

from device_agent_drivers.simulated import bosch
from device_agent_drivers.simulated.bosch import CTRL_HUM, FACTORS, ID, SimulatedBosch, bisected, words

H1, H2, H3, H4, H5, H6 = 75, 355, 0, 333, 50, 30
HUMIDITY = 0xFD
NOTHING_MEASURED = bosch.NOTHING_MEASURED + b"\x80\0"


class SimulatedBme280(SimulatedBosch):
    """Quantities: temperature (Cel), pressure (hPa), humidity (%)."""

    def __init__(self, address: int = 0x76) -> None:
        super().__init__(
            address,
            {
                0xA1: bytes((H1,)),
                ID: b"\x60",
                0xE1: words(H2) + bytes((H3, H4 >> 4 & 0xFF, H4 & 0xF | (H5 & 0xF) << 4, H5 >> 4 & 0xFF, H6)),
                HUMIDITY: NOTHING_MEASURED[6:],
            },
            {"humidity": 45.0},
            read_only=range(0xE1, 0xE8),
        )

    def factors(self, ctrl_meas: int) -> tuple[int, ...]:
        return (*super().factors(ctrl_meas), FACTORS[self[CTRL_HUM] & 7])

    def measured(self, t_fine: int) -> None:
        now: dict[str, Any] = self.quantities()
        raw = bisected(lambda raw: percent_of(raw, t_fine), now["humidity"], 16)
        self.put(HUMIDITY, (raw if self[CTRL_HUM] & 7 else 0x8000).to_bytes(2, "big"))


def percent_of(raw: int, t_fine: int) -> float:
    """Section 4.2.3."""
    v = t_fine - 76800
    gain = ((v * H6 >> 10) * ((v * H3 >> 11) + 32768) >> 10) + 2097152
    v = ((raw << 14) - (H4 << 20) - H5 * v + 16384 >> 15) * (gain * H2 + 8192 >> 14)
    v -= ((v >> 15) * (v >> 15) >> 7) * H1 >> 4
    return min(max(v, 0), 419430400) / 4194304
