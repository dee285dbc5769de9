"""ROHM BH1750FVI: illuminance (technical note 2011.11 - Rev.D).

A quick look first, then a measurement with the mode and measurement time that fit what it saw, so that
0.11 lx and 100 000 lx are both within reach.
"""

from dataclasses import dataclass
from typing import Any, Literal

from device_agent.driver import DriverConfig, Flag, Flagged, I2cBus, Point, Sensor, Unit, Value
from device_agent.schema import Field

POWER_ON = 0x01
RESET = 0x07  # clears the data register; taken only while powered
MTREG_HIGH = 0b01000 << 3  # bits 7 to 5 of the measurement time register
MTREG_LOW = 0b011 << 5  # bits 4 to 0

COUNTS_PER_LUX = 1.2
MTREG_DEFAULT = 69
MTREG_MIN, MTREG_MAX = 31, 254
FULL_SCALE = 0xFFFF
# Light may rise between the look and the measurement, and the look is coarse.
HEADROOM = 2.0
# Above this a measurement of nothing is the data register after a reset, not darkness.
SUSPICIOUS_LX = 20.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One-time measurement `command`, its counts per 1.2 lx at the default measurement time, MTreg."""

    command: int
    gain: int
    longest_s: float
    mtreg: int

    @property
    def settle_s(self) -> float:
        """The maximum of the electrical characteristics, which grows with MTreg."""
        return self.longest_s * self.mtreg / MTREG_DEFAULT

    def lux(self, raw: int) -> float:
        """MTreg divides: a longer measurement counts more for the same light."""
        return raw / COUNTS_PER_LUX / self.gain * MTREG_DEFAULT / self.mtreg


# Command, gain, longest measurement: mode 2 counts half lux
MODES: dict[str, tuple[int, int, float]] = {
    "high2": (0x21, 2, 0.180),
    "high": (0x20, 1, 0.180),
    "low": (0x23, 1, 0.024),
}
LOOK = Setting(*MODES["low"], MTREG_MIN)
HIGHEST_LX = LOOK.lux(FULL_SCALE)


class Bh1750Config(DriverConfig):
    driver: Literal["bh1750"] = "bh1750"
    address: Literal[0x23, 0x5C] = Field(0x23, description="0x23, or 0x5C with ADDR high.")
    mode: Literal["auto", "high", "high2", "low"] = Field("auto", description="Resolution; low is quick.")
    measurement_time: int | None = Field(
        None,
        ge=MTREG_MIN,
        le=MTREG_MAX,
        description="MTreg: 69 is 120 ms, more is finer. By itself if absent.",
    )


class Bh1750(Sensor[Bh1750Config, I2cBus]):
    """One-time measurements: the chip powers down in between."""

    obeys_any_write = True
    points = (Point("illuminance", Unit.LUX, low=0, high=121_557, description="As the human eye sees it."),)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings_of(self.config)
        self._chosen = self._settings[-1]
        self._look_lx = 0.0
        self.settle_s = max(setting.settle_s for setting in self._settings)

    @staticmethod
    def simulator(config: Bh1750Config) -> Any:
        from device_agent_drivers.simulated.bh1750 import SimulatedBh1750

        return SimulatedBh1750(config.address)

    def open(self) -> None:
        self._send(POWER_ON)
        self._send(RESET)

    def trigger(self) -> None:
        if len(self._settings) > 1:
            self._start(LOOK)
            self.sleep(LOOK.settle_s)
            self._look_lx = LOOK.lux(self._raw())
            self._chosen = chosen(self._settings, self._look_lx)
        self._start(self._chosen)
        self.settle_s = self._chosen.settle_s

    def read(self) -> dict[str, Value | Flagged]:
        raw = self._raw()
        lux = round(self._chosen.lux(raw), 3)
        if raw == FULL_SCALE:
            return {"illuminance": Flagged(lux, Flag.CLIPPED)}
        if raw == 0 and self._look_lx > SUSPICIOUS_LX:
            return {"illuminance": Flagged(None, Flag.NOT_READY)}
        return {"illuminance": lux}

    def _start(self, setting: Setting) -> None:
        # A chip that lost power has lost its MTreg, so it is written each time
        self._send(POWER_ON)
        self._send(MTREG_HIGH | setting.mtreg >> 5)
        self._send(MTREG_LOW | setting.mtreg & 0x1F)
        self._send(setting.command)

    def _send(self, command: int) -> None:
        self.bus.transfer(self.config.address, bytes((command,)))

    def _raw(self) -> int:
        return int.from_bytes(self.bus.transfer(self.config.address, b"", 2), "big")


def settings_of(config: Bh1750Config) -> list[Setting]:
    """The settings to choose from, the finest first; one where all is configured."""
    times = [config.measurement_time] if config.measurement_time else [MTREG_MAX, MTREG_DEFAULT, MTREG_MIN]
    modes = ["high2", "high"] if config.mode == "auto" else [config.mode]
    settings = [Setting(*MODES[mode], mtreg) for mode in modes for mtreg in times]
    return sorted(settings, key=lambda setting: setting.lux(FULL_SCALE))


def chosen(settings: list[Setting], lux: float) -> Setting:
    """The finest that still has headroom above this light."""
    for setting in settings:
        if setting.lux(FULL_SCALE) >= lux * HEADROOM:
            return setting
    return settings[-1]
