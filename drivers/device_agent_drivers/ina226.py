"""TI INA226: voltage, current and power of a load by its shunt resistor (data sheet SBOS547)."""

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

MASK_ENABLE, MANUFACTURER, DIE = 0x06, 0xFE, 0xFF
TEXAS_INSTRUMENTS = 0x5449
INA226_DIE = 0x226  # the lowest four bits are the revision
READY, OVERFLOWED = 1 << 3, 1 << 2

SHUNT_MV = 0.0025
BUS_V = 0.00125
FULL_MV = 81.92
UNUSED = 1 << 14  # section 7.1.1: reads 1
CONVERSION_1_1_MS = 0b100
TRIGGERED = 0b011
CONVERSION_S = 0.00121  # section 6.5, maximum of the setting of 1.1 ms
AVERAGES = {1: 0, 4: 1, 16: 2, 64: 3, 128: 4, 256: 5, 512: 6, 1024: 7}


class Ina226Config(PowerMonitorConfig):
    driver: Literal["ina226"] = "ina226"
    averages: Literal[1, 4, 16, 64, 128, 256, 512, 1024] = Field(
        1, description="Samples in one reading, 2.4 ms each."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Ina226Config":
        self.check_full_scale(FULL_MV)
        return self


class Ina226(PowerMonitor[Ina226Config]):
    example = "shunt_ohms = 0.01\nmax_current_a = 5"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        # Section 7.5; the register has 15 bits
        self.calibration = ShuntCalibration.of(
            config.shunt_ohms, config.max_current_a, constant=0.00512, mask=0x7FFF, power_factor=25
        )
        self.setting = (
            UNUSED
            | AVERAGES[config.averages] << 9
            | CONVERSION_1_1_MS << 6
            | CONVERSION_1_1_MS << 3
            | TRIGGERED
        )
        self.settle_s = 2 * config.averages * CONVERSION_S

    @staticmethod
    def simulator(config: Ina226Config) -> Any:
        from device_agent_drivers.simulated.ina226 import SimulatedIna226

        return SimulatedIna226(config)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        maker, die = bus.read_u16(place, MANUFACTURER), bus.read_u16(place, DIE)
        if maker != TEXAS_INSTRUMENTS or die >> 4 != INA226_DIE:
            raise WrongChip(
                f"manufacturer {maker:#06x} and die id {die:#06x} at {place:#04x}, not "
                f"{TEXAS_INSTRUMENTS:#06x} and {INA226_DIE:#05x}0: this is no INA226"
            )
        return f"INA226, die id {die:#06x}"

    def open(self) -> None:
        address = self.config.address
        self.identify(self.bus, address)
        self.bus.write_u16(address, CONFIG, RESET)
        self._configure()

    def _status(self) -> tuple[bool, bool]:
        # Reading it clears the ready bit.
        found = self.bus.read_u16(self.config.address, MASK_ENABLE)
        return bool(found & READY), bool(found & OVERFLOWED)

    def _voltages(self) -> tuple[Value | Flagged, Value | Flagged]:
        raw_bus = self.bus.read_u16(self.config.address, BUS)
        raw_shunt = self.bus.read_s16(self.config.address, SHUNT)
        return (
            clipped(raw_bus * BUS_V, raw_bus, -1, 0x7FFF),
            clipped(raw_shunt * SHUNT_MV, raw_shunt, -0x8000, 0x7FFF),
        )
