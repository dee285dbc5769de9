"""Bosch BME280: temperature, pressure, humidity (data sheet BST-BME280-DS002).

One measurement a reading in forced mode: the chip sleeps in between and does not warm itself.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from device_agent.driver import (
    ChipReset,
    DriverConfig,
    DriverError,
    Flag,
    Flagged,
    I2cBus,
    Point,
    Sensor,
    Unit,
    Value,
    WrongChip,
)

# Section 5.3, memory map
CALIBRATION_1 = 0x88  # 0x88..0xA1
CHIP_ID = 0xD0
RESET = 0xE0
CALIBRATION_2 = 0xE1  # 0xE1..0xE7
CTRL_HUM = 0xF2
STATUS = 0xF3
CTRL_MEAS = 0xF4
DATA = 0xF7  # pressure, temperature: 20 bits each; humidity: 16

BME280_ID = 0x60
OTHER_IDS = {
    0x56: 'a BMP280, which has no humidity: use driver "bmp280"',
    0x57: 'a BMP280, which has no humidity: use driver "bmp280"',
    0x58: 'a BMP280, which has no humidity: use driver "bmp280"',
    0x61: "a BME680 or BME688",
    0x55: "a BMP180",
    0x50: "a BMP388",
    0x00: "no chip that answers sensibly; check the wiring",
    0xFF: "no chip that answers sensibly; check the wiring",
}
RESET_WORD = 0xB6
MEASURING = 1 << 3
NVM_COPY = 1 << 0
FORCED = 0b01

START_UP_S = 0.002  # table 1: from power-on or reset to communication
NVM_TRIES = 10

# What a skipped channel shows (section 5.4.8)
SKIPPED_20 = 0x80000
SKIPPED_16 = 0x8000

OVERSAMPLING = {0: 0, 1: 1, 2: 2, 4: 3, 8: 4, 16: 5}
IIR = {0: 0, 2: 1, 4: 2, 8: 3, 16: 4}
NOT_READY = Flagged(None, Flag.NOT_READY)

Oversampling = Literal[0, 1, 2, 4, 8, 16]


class Bme280Config(DriverConfig):
    driver: Literal["bme280"] = "bme280"
    address: Literal[0x76, 0x77] = Field(0x76, description="0x76, or 0x77 with SDO high.")
    oversampling_temperature: Literal[1, 2, 4, 8, 16] = Field(1, description="The others depend on it.")
    oversampling_pressure: Oversampling = Field(1, description="0: no pressure.")
    oversampling_humidity: Oversampling = Field(1, description="0: no humidity.")
    iir: Literal[0, 2, 4, 8, 16] = Field(0, description="Filter coefficient for temperature and pressure.")


class Bme280(Sensor[Bme280Config, I2cBus]):
    """`trigger` starts a measurement; after the longest time the sheet allows for it, `read` fetches it."""

    points = (
        Point("temperature", Unit.CELSIUS, low=-40, high=85, description="Air temperature."),
        Point("pressure", Unit.HECTOPASCAL, low=300, high=1100, description="Air pressure, not reduced."),
        Point("humidity", Unit.PERCENT, low=0, high=100, description="Relative humidity."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.settle_s = longest_measurement_s(
            config.oversampling_temperature, config.oversampling_pressure, config.oversampling_humidity
        )
        self._ctrl_hum = OVERSAMPLING[config.oversampling_humidity]
        self._ctrl_meas = (
            OVERSAMPLING[config.oversampling_temperature] << 5
            | OVERSAMPLING[config.oversampling_pressure] << 2
        )
        self._config_register = IIR[config.iir] << 2
        self._calibration: Calibration | None = None

    @classmethod
    def points_of(cls, config: Bme280Config) -> tuple[Point, ...]:
        off = {"pressure": not config.oversampling_pressure, "humidity": not config.oversampling_humidity}
        return tuple(point for point in cls.points if not off.get(point.name))

    @staticmethod
    def simulator(config: Bme280Config) -> Any:
        from drivers.simulated.bme280 import SimulatedBme280

        return SimulatedBme280(config.address)

    # -- life ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        address, bus = self.config.address, self.bus
        found = bus.read_u8(address, CHIP_ID)
        if found != BME280_ID:
            known = OTHER_IDS.get(found, "no BME280")
            raise WrongChip(f"chip id {found:#04x} at {address:#04x}, not {BME280_ID:#04x}: this is {known}")
        bus.write_u8(address, RESET, RESET_WORD)
        self._await_calibration()
        self._calibration = Calibration.of(
            bus.read(address, CALIBRATION_1, 26), bus.read(address, CALIBRATION_2, 7)
        )
        # ctrl_hum counts only after a write to ctrl_meas, config only while asleep (sections 5.4.3, 5.4.6)
        bus.write_u8(address, CTRL_HUM, self._ctrl_hum)
        bus.write_u8(address, CTRL_MEAS + 1, self._config_register)
        bus.write_u8(address, CTRL_MEAS, self._ctrl_meas)

    def _await_calibration(self) -> None:
        for _ in range(NVM_TRIES):
            self.sleep(START_UP_S)
            if not self.bus.read_u8(self.config.address, STATUS) & NVM_COPY:
                return
        raise DriverError(
            f"BME280 at {self.config.address:#04x} still copies its calibration "
            f"{NVM_TRIES * START_UP_S * 1000:g} ms after a reset; check its supply"
        )

    # -- measuring ----------------------------------------------------------------------------------------

    def trigger(self) -> None:
        self._check_configured()
        self.bus.write_u8(self.config.address, CTRL_HUM, self._ctrl_hum)
        self.bus.write_u8(self.config.address, CTRL_MEAS, self._ctrl_meas | FORCED)

    def read(self) -> dict[str, Value | Flagged]:
        measuring = self._check_configured() & MEASURING
        calibration = self._calibration
        if measuring or calibration is None:
            return {point.name: NOT_READY for point in self.points}
        data = self.bus.read(self.config.address, DATA, 8)
        values = decode(calibration, data)
        return {point.name: values[point.name] for point in self.points}

    def _check_configured(self) -> int:
        """Returns the status register. A brown-out clears the other three, so they tell of it."""
        hum, status, meas, config = self.bus.read(self.config.address, CTRL_HUM, 4)
        found = (hum & 0b111, meas & 0xFC, config & 0b11100)
        wanted = (self._ctrl_hum, self._ctrl_meas, self._config_register)
        if found != wanted:
            raise ChipReset(
                f"BME280 at {self.config.address:#04x} lost its settings: ctrl_hum, ctrl_meas, config are "
                f"{found[0]:#04x}, {found[1]:#04x}, {found[2]:#04x}; check its supply"
            )
        return status


def longest_measurement_s(temperature: int, pressure: int, humidity: int) -> float:
    """Section 9.1, maximum, from the oversampling factors (0: skipped)."""
    ms = 1.25 + 2.3 * temperature
    ms += 2.3 * pressure + 0.575 if pressure else 0.0
    ms += 2.3 * humidity + 0.575 if humidity else 0.0
    return ms / 1000


# --- from raw values to physical ones (section 4.2) -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """The trimming values of one chip: T1, P1, H1 and H3 unsigned, all others signed (table 16)."""

    t: tuple[int, int, int]
    p: tuple[int, ...]
    h: tuple[int, int, int, int, int, int]

    @classmethod
    def of(cls, first: bytes, second: bytes) -> "Calibration":
        """From registers 0x88..0xA1 (26 bytes) and 0xE1..0xE7 (7 bytes). Raises DriverError if blank."""
        words = [int.from_bytes(first[i : i + 2], "little") for i in range(0, 24, 2)]
        t1, p1 = words[0], words[3]
        if t1 in (0, 0xFFFF) or p1 in (0, 0xFFFF):
            raise DriverError("the BME280's calibration memory is blank; the chip or its connection is bad")
        h2 = int.from_bytes(second[0:2], "little", signed=True)
        # H4 and H5 are 12 bits each and share 0xE5, packed in opposite directions
        h4 = _signed(second[3] << 4 | second[4] & 0x0F, 12)
        h5 = _signed(second[5] << 4 | second[4] >> 4, 12)
        return cls(
            t=(t1, _signed(words[1], 16), _signed(words[2], 16)),
            p=(p1, *(_signed(word, 16) for word in words[4:])),
            h=(first[25], h2, second[2], h4, h5, _signed(second[6], 8)),
        )


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value & 1 << bits - 1 else value


def decode(calibration: Calibration, data: bytes) -> dict[str, Value | Flagged]:
    """The eight data bytes as temperature (Cel), pressure (hPa), humidity (%); null where skipped."""
    raw_p = data[0] << 12 | data[1] << 4 | data[2] >> 4
    raw_t = data[3] << 12 | data[4] << 4 | data[5] >> 4
    raw_h = data[6] << 8 | data[7]
    if raw_t == SKIPPED_20:  # the other two are compensated with the temperature
        return dict.fromkeys(("temperature", "pressure", "humidity"), NOT_READY)
    exact = fine_temperature(calibration, raw_t)
    t_fine = int(exact)  # the sheet's own type
    pascal = compensated_pressure(calibration, raw_p, t_fine)
    return {
        "temperature": round(exact / 5120, 3),
        "pressure": NOT_READY if raw_p == SKIPPED_20 or pascal is None else round(pascal / 100, 4),
        "humidity": (
            NOT_READY if raw_h == SKIPPED_16 else round(compensated_humidity(calibration, raw_h, t_fine), 3)
        ),
    }


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


def compensated_humidity(calibration: Calibration, raw: int, t_fine: int) -> float:
    """Relative humidity in %, 0 to 100."""
    h1, h2, h3, h4, h5, h6 = calibration.h
    t = t_fine - 76800
    humidity = raw - (h4 * 64 + h5 / 16384 * t)
    humidity *= h2 / 65536 * (1 + h6 / 67108864 * t * (1 + h3 / 67108864 * t))
    humidity *= 1 - h1 * humidity / 524288
    return min(100.0, max(0.0, humidity))
