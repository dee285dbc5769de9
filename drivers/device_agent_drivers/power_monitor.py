"""What TI's shunt monitors INA219 and INA226 share: a calibration that fits, and readings with their sign."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from device_agent.driver import (
    ChipReset,
    DriverConfig,
    Flag,
    Flagged,
    I2cBus,
    Point,
    Sensor,
    Unit,
    Value,
)
from device_agent.schema import Field

CONFIG, SHUNT, BUS, POWER, CURRENT, CALIBRATION = range(6)
RESET = 1 << 15
FULL_SCALE = 1 << 15
POLLS_MAX = 10
POLL_S = 0.002

NOT_READY = Flagged(None, Flag.NOT_READY)
OVERFLOW = Flagged(None, Flag.OVERFLOW)
NAMES = ("bus_voltage", "shunt_voltage", "current", "power")


class PowerMonitorConfig(DriverConfig):
    address: int = Field(0x40, ge=0x40, le=0x4F, description="0x40 to 0x4f, by the pins A0 and A1.")
    shunt_ohms: float = Field(gt=0, le=100, description="The resistor that the current flows through.")
    max_current_a: float = Field(gt=0, le=10_000, description="Largest current to be measured.")

    @property
    def full_mv(self) -> float:
        """What the largest current makes at the shunt; rounded, since 0.1 ohm x 3.2 A is 320 mV."""
        return round(self.shunt_ohms * self.max_current_a * 1000, 6)

    def check_full_scale(self, limit_mv: float) -> None:
        """Raises ValueError, one sentence, for more than the chip measures."""
        if self.full_mv > limit_mv:
            raise ValueError(
                f"`max_current_a` {self.max_current_a:g} through `shunt_ohms` {self.shunt_ohms:g} is "
                f"{self.full_mv:g} mV, and the chip measures up to {limit_mv:g} mV: take a smaller shunt or "
                "current"
            )


@dataclass(frozen=True, slots=True)
class ShuntCalibration:
    """The calibration register, and what one bit of the current and power registers then means."""

    register: int
    current_lsb_a: float
    power_lsb_w: float

    @classmethod
    def of(
        cls, shunt_ohms: float, max_current_a: float, *, constant: float, mask: int, power_factor: int
    ) -> "ShuntCalibration":
        """The finest one that covers `max_current_a` and fits the register, whose usable bits are `mask`.

        Rounded down, so that the range is never smaller than asked for; a shunt too small for the register
        gets the finest bit that the register can hold, which covers more current than asked for.
        """
        register = int(min(constant * FULL_SCALE / (max_current_a * shunt_ohms), mask)) & mask
        current_lsb_a = constant / (register * shunt_ohms)
        return cls(register, current_lsb_a, current_lsb_a * power_factor)


C = TypeVar("C", bound=PowerMonitorConfig)


class PowerMonitor(Sensor[C, I2cBus]):
    """One triggered measurement of both voltages a reading; subclasses know the chip's numbers."""

    calibration: ShuntCalibration
    setting: int
    """The config register of a triggered measurement."""

    @classmethod
    def points_of(cls, config: Any) -> tuple[Point, ...]:
        return (
            Point("bus_voltage", Unit.VOLT, low=0, high=36, description="Supply of the load."),
            Point("shunt_voltage", Unit.MILLIVOLT, low=-320, high=320, description="Across the shunt."),
            Point("current", Unit.AMPERE, description="Through the shunt, from IN+ to IN-."),
            Point("power", Unit.WATT, description="Bus voltage times current, with its sign."),
        )

    def trigger(self) -> None:
        self._check_configured()
        self.bus.write_u16(self.config.address, CONFIG, self.setting)

    def read(self) -> dict[str, Value | Flagged]:
        self._check_configured()
        for _ in range(POLLS_MAX):
            ready, overflow = self._status()
            if ready:
                return self._values(overflow)
            self.sleep(POLL_S)
        return dict.fromkeys(NAMES, NOT_READY)

    def _status(self) -> tuple[bool, bool]:
        """Whether the measurement is complete, and whether the chip's arithmetic ran over."""
        raise NotImplementedError

    def _voltages(self) -> tuple[Value | Flagged, Value | Flagged]:
        """Bus voltage (V) and shunt voltage (mV)."""
        raise NotImplementedError

    def _values(self, overflow: bool) -> dict[str, Value | Flagged]:
        bus, shunt = self._voltages()
        raw_current = self.bus.read_s16(self.config.address, CURRENT)
        raw_power = self.bus.read_u16(self.config.address, POWER)  # a magnitude on both chips
        current = raw_current * self.calibration.current_lsb_a
        power = raw_power * self.calibration.power_lsb_w * (-1 if raw_current < 0 else 1)
        values: dict[str, Value | Flagged] = {"bus_voltage": bus, "shunt_voltage": shunt}
        if overflow:
            return values | {"current": OVERFLOW, "power": OVERFLOW}
        # What is computed from a clipped voltage is only a bound.
        beyond = isinstance(shunt, Flagged) or raw_current in (-0x8000, 0x7FFF)
        values["current"] = Flagged(current, Flag.CLIPPED) if beyond else current
        values["power"] = Flagged(power, Flag.CLIPPED) if beyond or isinstance(bus, Flagged) else power
        return values

    def _configure(self) -> None:
        address, calibration = self.config.address, self.calibration.register
        self.bus.write_u16(address, CALIBRATION, calibration)
        self.bus.write_u16(address, CONFIG, self.setting)

    def _check_configured(self) -> None:
        """A brown-out clears the calibration: the current would read 0 from then on."""
        address = self.config.address
        found = {
            "config": self.bus.read_u16(address, CONFIG),
            "calibration": self.bus.read_u16(address, CALIBRATION),
        }
        wanted: Mapping[str, int] = {"config": self.setting, "calibration": self.calibration.register}
        for name, value in found.items():
            if value != wanted[name]:
                raise ChipReset(
                    f"{type(self).__name__.upper()} at {address:#04x} lost its settings: {name} is "
                    f"{value:#06x}, not {wanted[name]:#06x}; check its supply"
                )


def clipped(value: float, raw: int, low: int, high: int) -> Value | Flagged:
    """`value`, doubted where its register stands at an end of the converter."""
    return value if low < raw < high else Flagged(value, Flag.CLIPPED)
