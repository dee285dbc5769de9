"""An INA219 by its data sheet; the arithmetic is the chip's, in whole numbers (section 8.5)."""

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
    from device_agent_drivers.ina219 import Ina219Config

SAMPLE_S = 0.000532  # typical


class SimulatedIna219(SimulatedPowerMonitor):
    def __init__(self, config: "Ina219Config") -> None:
        registers = {CONFIG: b"\x39\x9f", SHUNT: b"\0\0", BUS: b"\0\0", POWER: b"\0\0", CURRENT: b"\0\0"}
        super().__init__(config, {**registers, CALIBRATION: b"\0\0"}, {SHUNT, BUS, POWER, CURRENT})

    def on_write(self, register: int, value: int) -> int:
        if register == CALIBRATION:
            return value & 0xFFFE
        if register != CONFIG:
            return value
        if value & 0x8000:
            self.reset()
            return self[CONFIG]
        self[BUS] &= ~0b10
        if value & 7:
            samples = 1 << (value >> 3 & 7) if value >> 6 & 1 else 1
            self.begin(2 * samples * SAMPLE_S)
        return value

    def on_read(self, register: int, value: int) -> int:
        if register == POWER:
            self[BUS] &= ~0b10  # section 8.6.3.2: reading the power clears the ready bit
        return value

    def measure(self) -> None:
        volts, shunt_mv = self.world()
        config = self[CONFIG]
        end = 4000 << (config >> 11 & 3)
        shunt = between(-end, shunt_mv / 0.01, end)
        bus = between(0, volts / 0.004, 8000 if config >> 13 & 1 else 4000)
        current = shunt * self[CALIBRATION] >> 12 if shunt >= 0 else -(-shunt * self[CALIBRATION] >> 12)
        power = abs(current) * bus // 5000
        self.overflowed = not -0x8000 <= current <= 0x7FFF or power > 0xFFFF
        self[SHUNT], self[CURRENT], self[POWER] = shunt, current, power
        self[BUS] = bus << 3 | 0b10 | self.overflowed
        if self[CONFIG] & 4:
            self.begin(2 * SAMPLE_S)
