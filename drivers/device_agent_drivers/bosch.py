"""What Bosch's BME280 and BMP280 share: registers, forced measurements, compensation (BST-BME280-DS002,
BST-BMP280-DS001).

One measurement a reading in forced mode: the chip sleeps in between and does not warm itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from device_agent.driver import ChipReset, DriverConfig, DriverError, Flag, Flagged, I2cBus, Sensor, WrongChip
from device_agent.schema import Field

# Memory map, section 5.3 (BME280) and 4.2 (BMP280)
CALIBRATION_1 = 0x88
CHIP_ID = 0xD0
RESET = 0xE0
STATUS = 0xF3
CTRL_MEAS = 0xF4
CONFIG = 0xF5
DATA = 0xF7  # pressure, temperature: 20 bits each

RESET_WORD = 0xB6
MEASURING = 1 << 3
NVM_COPY = 1 << 0
FORCED = 0b01

START_UP_S = 0.002  # table 1: from power-on or reset to communication
NVM_TRIES = 10
SKIPPED_20 = 0x80000  # what a skipped channel shows

OVERSAMPLING = {0: 0, 1: 1, 2: 2, 4: 3, 8: 4, 16: 5}
IIR = {0: 0, 2: 1, 4: 2, 8: 3, 16: 4}
NOT_READY = Flagged(None, Flag.NOT_READY)

Oversampling = Literal[0, 1, 2, 4, 8, 16]

NONSENSE = "no chip that answers sensibly; check the wiring"
FAMILY = {
    0x56: 'a BMP280, which has no humidity: use driver "bmp280"',
    0x57: 'a BMP280, which has no humidity: use driver "bmp280"',
    0x58: 'a BMP280, which has no humidity: use driver "bmp280"',
    0x60: 'a BME280, which has humidity too: use driver "bme280"',
    0x61: "a BME680 or BME688",
    0x55: "a BMP180",
    0x50: "a BMP388",
    0x00: NONSENSE,
    0xFF: NONSENSE,
}


class BoschConfig(DriverConfig):
    """Options of both chips."""

    address: Literal[0x76, 0x77] = Field(0x76, description="0x76, or 0x77 with SDO high.")
    oversampling_temperature: Literal[1, 2, 4, 8, 16] = Field(1, description="The others depend on it.")
    oversampling_pressure: Oversampling = Field(1, description="0: no pressure.")
    iir: Literal[0, 2, 4, 8, 16] = Field(0, description="Filter coefficient for temperature and pressure.")


C = TypeVar("C", bound=BoschConfig)


class BoschSensor(Sensor[C, I2cBus]):
    """`trigger` starts a measurement; after the longest time the sheet allows for it, `read` fetches it."""

    chip: ClassVar[str]
    ids: ClassVar[tuple[int, ...]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.settle_s = longest_measurement_s(config.oversampling_temperature, config.oversampling_pressure)
        self._ctrl_meas = (
            OVERSAMPLING[config.oversampling_temperature] << 5
            | OVERSAMPLING[config.oversampling_pressure] << 2
        )
        self._config = IIR[config.iir] << 2

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        found = cls._checked_id(bus, place)
        return f"{cls.chip}, chip id {found:#04x}"

    @classmethod
    def _checked_id(cls, bus: I2cBus, address: int) -> int:
        found = bus.read_u8(address, CHIP_ID)
        if found not in cls.ids:
            known = FAMILY.get(found, f"no {cls.chip}")
            wanted = " or ".join(f"{one:#04x}" for one in cls.ids)
            raise WrongChip(f"chip id {found:#04x} at {address:#04x}, not {wanted}: this is {known}")
        return found

    # -- life ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        address, bus = self.config.address, self.bus
        self._checked_id(bus, address)
        bus.write_u8(address, RESET, RESET_WORD)
        self._await_calibration()
        self._read_calibration()
        self._configure()

    def _await_calibration(self) -> None:
        for _ in range(NVM_TRIES):
            self.sleep(START_UP_S)
            if not self.bus.read_u8(self.config.address, STATUS) & NVM_COPY:
                return
        raise DriverError(
            f"{self.chip} at {self.config.address:#04x} still copies its calibration "
            f"{NVM_TRIES * START_UP_S * 1000:g} ms after a reset; check its supply"
        )

    def _read_calibration(self) -> None:
        raise NotImplementedError

    def _configure(self) -> None:
        # config is taken only while asleep, where a reset has left the chip
        self.bus.write_u8(self.config.address, CONFIG, self._config)
        self.bus.write_u8(self.config.address, CTRL_MEAS, self._ctrl_meas)

    # -- measuring ----------------------------------------------------------------------------------------

    def trigger(self) -> None:
        self._check_configured()
        self.bus.write_u8(self.config.address, CTRL_MEAS, self._ctrl_meas | FORCED)

    def _check_configured(self) -> int:
        """Returns the status register. A brown-out clears the two registers behind it, which shows it."""
        status, meas, config = self.bus.read(self.config.address, STATUS, 3)
        self._check_settings(
            {"ctrl_meas": (meas & 0xFC, self._ctrl_meas), "config": (config & 0b11100, self._config)}
        )
        return status

    def _check_settings(self, settings: Mapping[str, tuple[int, int]]) -> None:
        """Settings by register as (found, wanted)."""
        lost = {name: found for name, (found, wanted) in settings.items() if found != wanted}
        if lost:
            found = ", ".join(f"{name} is {value:#04x}" for name, value in lost.items())
            raise ChipReset(
                f"{self.chip} at {self.config.address:#04x} lost its settings: {found}; check its supply"
            )


def longest_measurement_s(temperature: int, pressure: int, humidity: int = 0) -> float:
    """Section 9.1 (BME280), 3.8.1 (BMP280): the maximum, from the oversampling factors (0: skipped)."""
    ms = 1.25 + 2.3 * temperature
    ms += 2.3 * pressure + 0.575 if pressure else 0.0
    ms += 2.3 * humidity + 0.575 if humidity else 0.0
    return ms / 1000


# --- from raw values to physical ones (section 4.2, 3.11) ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """The trimming values of one chip for temperature and pressure: T1 and P1 unsigned, all others signed."""

    t: tuple[int, int, int]
    p: tuple[int, ...]

    @classmethod
    def from_memory(cls, memory: bytes) -> "Calibration":
        """From registers 0x88..0x9F (24 bytes). Raises DriverError if blank."""
        words = [int.from_bytes(memory[i : i + 2], "little") for i in range(0, 24, 2)]
        t1, p1 = words[0], words[3]
        if t1 in (0, 0xFFFF) or p1 in (0, 0xFFFF):
            raise DriverError("the chip's calibration memory is blank; the chip or its connection is bad")
        return cls(
            t=(t1, signed(words[1], 16), signed(words[2], 16)),
            p=(p1, *(signed(word, 16) for word in words[4:])),
        )


def signed(value: int, bits: int) -> int:
    """Two's complement of that many bits."""
    return value - (1 << bits) if value & 1 << bits - 1 else value


def raw_20(data: bytes) -> int:
    """A 20-bit result from its three registers."""
    return data[0] << 12 | data[1] << 4 | data[2] >> 4


def fine_temperature(calibration: Calibration, raw: int) -> float:
    """The sheet's t_fine: 5120 times the temperature in degrees Celsius."""
    t1, t2, t3 = calibration.t
    var1 = (raw / 16384 - t1 / 1024) * t2
    var2 = (raw / 131072 - t1 / 8192) ** 2 * t3
    return var1 + var2


def compensated_pressure(calibration: Calibration, raw: int, t_fine: int) -> float | None:
    """Pressure in Pa; None where the sheet's formula would divide by zero."""
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = calibration.p
    var1 = t_fine / 2 - 64000
    var2 = var1 * var1 * p6 / 32768 + var1 * p5 * 2
    var2 = var2 / 4 + p4 * 65536
    var1 = (p3 * var1 * var1 / 524288 + p2 * var1) / 524288
    var1 = (1 + var1 / 32768) * p1
    if var1 == 0:
        return None
    pressure = (1048576 - raw - var2 / 4096) * 6250 / var1
    return pressure + (p9 * pressure * pressure / 2147483648 + pressure * p8 / 32768 + p7) / 16


def hectopascal(calibration: Calibration, data: bytes, t_fine: int) -> float | Flagged:
    """Pressure in hPa from its three registers; null where it was skipped or cannot be computed."""
    raw = raw_20(data)
    pascal = None if raw == SKIPPED_20 else compensated_pressure(calibration, raw, t_fine)
    return NOT_READY if pascal is None else round(pascal / 100, 4)
