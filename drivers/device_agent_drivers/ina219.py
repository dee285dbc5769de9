"""TI INA219: voltage, current and power of a load by its shunt resistor (data sheet SBOS448)."""

from typing import Any, Literal

from device_agent.driver import Flagged, I2cBus, Value, WrongChip
from device_agent.schema import Field, model_validator
from device_agent_drivers.power_monitor import (
    BUS,
    CONFIG,
    RESET,
    SHUNT,
    PowerMonitor,
    PowerMonitorConfig,
    ShuntCalibration,
    clipped,
)

POWER_ON = 0x399F  # section 8.6.2, config register
VOID = 1 << 14
OTHERS = {
    0x4127: 'an INA226 or INA230: use driver "ina226"',
    0x6127: "an INA3221 or INA209",
    0x0000: "no chip that answers sensibly; check the wiring",
    0xFFFF: "no chip that answers sensibly; check the wiring",
}

SHUNT_MV = 0.01  # one bit of the shunt voltage register
BUS_V = 0.004  # one bit of the bus voltage register, which stands three bits to the left
GAIN_MV = (40, 80, 160, 320)
READY, OVERFLOWED = 1 << 1, 1 << 0
TRIGGERED = 0b011

# Section 7.5, maximum of one 12-bit conversion: 586 us.
CONVERSION_S = 0.000586
AVERAGES = {1: 0b0011, 2: 0b1001, 4: 0b1010, 8: 0b1011, 16: 0b1100, 32: 0b1101, 64: 0b1110, 128: 0b1111}


class Ina219Config(PowerMonitorConfig):
    driver: Literal["ina219"] = "ina219"
    bus_range_v: Literal[16, 32] = Field(32, description="Full scale of the bus voltage; pins bear 26 V.")
    averages: Literal[1, 2, 4, 8, 16, 32, 64, 128] = Field(1, description="Samples in one reading.")

    @model_validator(mode="after")
    def _fits_together(self) -> "Ina219Config":
        self.check_full_scale(GAIN_MV[-1])
        return self


class Ina219(PowerMonitor[Ina219Config]):
    """The gain follows from the largest current."""

    example = "shunt_ohms = 0.1\nmax_current_a = 2"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        # Section 8.5.1; bit 0 of the register is void and reads 0
        self.calibration = ShuntCalibration.of(
            config.shunt_ohms, config.max_current_a, constant=0.04096, mask=0xFFFE, power_factor=20
        )
        gain = next(index for index, mv in enumerate(GAIN_MV) if config.full_mv <= mv)
        self._shunt_end = round(GAIN_MV[gain] / SHUNT_MV)
        self._bus_end = round(config.bus_range_v / BUS_V)
        samples = AVERAGES[config.averages]
        self.setting = (config.bus_range_v == 32) << 13 | gain << 11 | samples << 7 | samples << 3 | TRIGGERED
        self.settle_s = 2 * config.averages * CONVERSION_S

    @staticmethod
    def simulator(config: Ina219Config) -> Any:
        from device_agent_drivers.simulated.ina219 import SimulatedIna219

        return SimulatedIna219(config)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        """There is no id, and `scan` must not reset the chip: only a bit that is always 0 excludes others."""
        found = bus.read_u16(place, CONFIG)
        if found & VOID or found in OTHERS:
            raise WrongChip(f"config register {found:#06x} at {place:#04x}: this is no INA219")
        return ""

    def open(self) -> None:
        address = self.config.address
        # There is no id register: the config register's value after a reset identifies the family.
        self.bus.write_u16(address, CONFIG, RESET)
        found = self.bus.read_u16(address, CONFIG)
        if found != POWER_ON:
            known = OTHERS.get(found, "no INA219")
            raise WrongChip(
                f"config register {found:#06x} at {address:#04x} after a reset, not {POWER_ON:#06x}: "
                f"this is {known}"
            )
        self._configure()

    def _status(self) -> tuple[bool, bool]:
        found = self.bus.read_u16(self.config.address, BUS)
        return bool(found & READY), bool(found & OVERFLOWED)

    def _voltages(self) -> tuple[Value | Flagged, Value | Flagged]:
        raw_bus = self.bus.read_u16(self.config.address, BUS) >> 3
        raw_shunt = self.bus.read_s16(self.config.address, SHUNT)
        return (
            clipped(raw_bus * BUS_V, raw_bus, -1, self._bus_end),
            clipped(raw_shunt * SHUNT_MV, raw_shunt, -self._shunt_end, self._shunt_end),
        )
