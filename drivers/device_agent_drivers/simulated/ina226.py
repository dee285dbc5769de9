"""An INA226 by its data sheet; the arithmetic is the chip's, in whole numbers (section 7.5)."""

from typing import TYPE_CHECKING

from device_agent_drivers.simulated.power_monitor import (
    BUS,
    CALIBRATION,
    CONFIG,
    CURRENT,
    POWER,
    SHUNT,
    SimulatedPowerMonitor,
    between,
)

if TYPE_CHECKING:
    from device_agent_drivers.ina226 import Ina226Config

MASK_ENABLE, LIMIT, MANUFACTURER, DIE = 0x06, 0x07, 0xFE, 0xFF
SAMPLES = (1, 4, 16, 64, 128, 256, 512, 1024)
SAMPLE_S = 0.0011  # typical, of the setting of 1.1 ms


class SimulatedIna226(SimulatedPowerMonitor):
    def __init__(self, config: "Ina226Config") -> None:
        registers = dict.fromkeys(range(LIMIT + 1), b"\x00\x00")
        registers |= {CONFIG: b"\x41\x27", MANUFACTURER: b"TI", DIE: b"\x22\x60"}
        super().__init__(config, registers, {SHUNT, BUS, POWER, CURRENT, MANUFACTURER, DIE})

    def on_write(self, register: int, value: int) -> int:
        if register == CALIBRATION:
            return value & 0x7FFF
        if register != CONFIG:
            return value
        if value & 0x8000:
            self.reset()
            return self[CONFIG]
        self[MASK_ENABLE] &= ~0b1000
        if value & 3:
            self.begin(2 * SAMPLES[value >> 9 & 7] * SAMPLE_S)
        return value & 0x0FFF | 0x4000

    def on_read(self, register: int, value: int) -> int:
        if register == MASK_ENABLE:
            self[MASK_ENABLE] &= ~0b1000
        return value

    def measure(self) -> None:
        volts, shunt_mv = self.world()
        shunt = between(-0x8000, shunt_mv / 0.0025, 0x7FFF)
        bus = between(0, volts / 0.00125, 0x7FFF)
        product = abs(shunt) * self[CALIBRATION] // 2048
        current = product if shunt >= 0 else -product
        power = product * bus // 20000
        self.overflowed = not -0x8000 <= current <= 0x7FFF or power > 0xFFFF
        self[SHUNT], self[BUS], self[CURRENT], self[POWER] = shunt, bus, current, power
        self[MASK_ENABLE] = self[MASK_ENABLE] & ~0b100 | 0b1000 | self.overflowed << 2
        if self[CONFIG] & 4:
            self.begin(2 * SAMPLE_S)
