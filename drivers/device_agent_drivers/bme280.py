"""Bosch BME280: temperature, pressure, humidity (data sheet BST-BME280-DS002).

One measurement a reading in forced mode: the chip sleeps in between and does not warm itself.
"""

from dataclasses import dataclass
from typing import Any, Literal

from device_agent.driver import Flagged, Point, Unit, Value
from device_agent.schema import Field
from device_agent_drivers import bosch
from device_agent_drivers.bosch import (
    CALIBRATION_1,
    CTRL_MEAS,
    DATA,
    MEASURING,
    NOT_READY,
    OVERSAMPLING,
    SKIPPED_20,
    BoschConfig,
    BoschSensor,
    Oversampling,
    fine_temperature,
    hectopascal,
    longest_measurement_s,
    raw_20,
    signed,
)

# Section 5.3, memory map
CALIBRATION_2 = 0xE1  # 0xE1..0xE7
CTRL_HUM = 0xF2
SKIPPED_16 = 0x8000  # what a skipped humidity shows (section 5.4.8)


class Bme280Config(BoschConfig):
    driver: Literal["bme280"] = "bme280"
    oversampling_humidity: Oversampling = Field(1, description="0: no humidity.")


class Bme280(BoschSensor[Bme280Config]):
    """`trigger` starts a measurement; after the longest time the sheet allows for it, `read` fetches it."""

    chip = "BME280"
    ids = (0x60,)
    points = (
        Point("temperature", Unit.CELSIUS, low=-40, high=85, description="Air temperature."),
        Point(
            "pressure",
            Unit.HECTOPASCAL,
            low=300,
            high=1100,
            description="Air pressure, not reduced.",
            still_s=3600,
        ),
        Point("humidity", Unit.PERCENT, low=0, high=100, description="Relative humidity."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.settle_s = longest_measurement_s(
            config.oversampling_temperature, config.oversampling_pressure, config.oversampling_humidity
        )
        self._ctrl_hum = OVERSAMPLING[config.oversampling_humidity]
        self._calibration: HumidityCalibration | None = None

    @classmethod
    def points_of(cls, config: Bme280Config) -> tuple[Point, ...]:
        off = {"pressure": not config.oversampling_pressure, "humidity": not config.oversampling_humidity}
        return tuple(point for point in cls.points if not off.get(point.name))

    @staticmethod
    def simulator(config: Bme280Config) -> Any:
        from device_agent_drivers.simulated.bme280 import SimulatedBme280

        return SimulatedBme280(config.address)

    def _read_calibration(self) -> None:
        address = self.config.address
        self._calibration = HumidityCalibration.of(
            self.bus.read(address, CALIBRATION_1, 26), self.bus.read(address, CALIBRATION_2, 7)
        )

    def _configure(self) -> None:
        # ctrl_hum counts only after a write to ctrl_meas (section 5.4.3)
        self.bus.write_u8(self.config.address, CTRL_HUM, self._ctrl_hum)
        super()._configure()

    def trigger(self) -> None:
        self._check_configured()
        self.bus.write_u8(self.config.address, CTRL_HUM, self._ctrl_hum)
        self.bus.write_u8(self.config.address, CTRL_MEAS, self._ctrl_meas | bosch.FORCED)

    def read(self) -> dict[str, Value | Flagged]:
        measuring = self._check_configured() & MEASURING
        calibration = self._calibration
        if measuring or calibration is None:
            return {point.name: NOT_READY for point in self.points}
        data = self.bus.read(self.config.address, DATA, 8)
        values = decode(calibration, data)
        return {point.name: values[point.name] for point in self.points}

    def _check_configured(self) -> int:
        hum = self.bus.read_u8(self.config.address, CTRL_HUM) & 0b111
        self._check_settings({"ctrl_hum": (hum, self._ctrl_hum)})
        return super()._check_configured()


# --- from raw values to physical ones (section 4.2) -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class HumidityCalibration(bosch.Calibration):
    """The trimming values of one chip: T1, P1, H1 and H3 unsigned, all others signed (table 16)."""

    h: tuple[int, int, int, int, int, int]

    @classmethod
    def of(cls, first: bytes, second: bytes) -> "HumidityCalibration":
        """From registers 0x88..0xA1 (26 bytes) and 0xE1..0xE7 (7 bytes). Raises DriverError if blank."""
        common = bosch.Calibration.from_memory(first)
        h2 = int.from_bytes(second[0:2], "little", signed=True)
        # H4 and H5 are 12 bits each and share 0xE5, packed in opposite directions
        h4 = signed(second[3] << 4 | second[4] & 0x0F, 12)
        h5 = signed(second[5] << 4 | second[4] >> 4, 12)
        return cls(common.t, common.p, h=(first[25], h2, second[2], h4, h5, signed(second[6], 8)))


def decode(calibration: HumidityCalibration, data: bytes) -> dict[str, Value | Flagged]:
    """The eight data bytes as temperature (Cel), pressure (hPa), humidity (%); null where skipped."""
    raw_t, raw_h = raw_20(data[3:6]), data[6] << 8 | data[7]
    if raw_t == SKIPPED_20:  # the other two are compensated with the temperature
        return dict.fromkeys(("temperature", "pressure", "humidity"), NOT_READY)
    exact = fine_temperature(calibration, raw_t)
    t_fine = int(exact)  # the sheet's own type
    return {
        "temperature": round(exact / 5120, 3),
        "pressure": hectopascal(calibration, data[0:3], t_fine),
        "humidity": (
            NOT_READY if raw_h == SKIPPED_16 else round(compensated_humidity(calibration, raw_h, t_fine), 3)
        ),
    }


def compensated_humidity(calibration: HumidityCalibration, raw: int, t_fine: int) -> float:
    """Relative humidity in %, 0 to 100."""
    h1, h2, h3, h4, h5, h6 = calibration.h
    t = t_fine - 76800
    humidity = raw - (h4 * 64 + h5 / 16384 * t)
    humidity *= h2 / 65536 * (1 + h6 / 67108864 * t * (1 + h3 / 67108864 * t))
    humidity *= 1 - h1 * humidity / 524288
    return min(100.0, max(0.0, humidity))
