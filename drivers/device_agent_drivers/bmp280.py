"""Bosch BMP280: temperature and pressure (data sheet BST-BMP280-DS001).

One measurement a reading in forced mode: the chip sleeps in between and does not warm itself.
"""

from typing import Any, Literal

from device_agent.driver import Flagged, Point, Unit, Value
from device_agent_drivers.bosch import (
    CALIBRATION_1,
    DATA,
    MEASURING,
    NOT_READY,
    SKIPPED_20,
    BoschConfig,
    BoschSensor,
    Calibration,
    fine_temperature,
    hectopascal,
    raw_20,
)


class Bmp280Config(BoschConfig):
    driver: Literal["bmp280"] = "bmp280"


class Bmp280(BoschSensor[Bmp280Config]):
    """`trigger` starts a measurement; after the longest time the sheet allows for it, `read` fetches it."""

    chip = "BMP280"
    ids = (0x56, 0x57, 0x58)  # samples, samples, mass production (section 4.3.1)
    points = (
        Point(
            "temperature", Unit.CELSIUS, low=-40, high=85, description="Of the chip, near that of the air."
        ),
        Point(
            "pressure",
            Unit.HECTOPASCAL,
            low=300,
            high=1100,
            description="Air pressure, not reduced.",
            still_s=3600,
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._calibration: Calibration | None = None

    @classmethod
    def points_of(cls, config: Bmp280Config) -> tuple[Point, ...]:
        return cls.points if config.oversampling_pressure else cls.points[:1]

    @staticmethod
    def simulator(config: Bmp280Config) -> Any:
        from device_agent_drivers.simulated.bmp280 import SimulatedBmp280

        return SimulatedBmp280(config.address)

    def _read_calibration(self) -> None:
        self._calibration = Calibration.from_memory(self.bus.read(self.config.address, CALIBRATION_1, 24))

    def read(self) -> dict[str, Value | Flagged]:
        measuring = self._check_configured() & MEASURING
        calibration = self._calibration
        if measuring or calibration is None:
            return {point.name: NOT_READY for point in self.points}
        values = decode(calibration, self.bus.read(self.config.address, DATA, 6))
        return {point.name: values[point.name] for point in self.points}


def decode(calibration: Calibration, data: bytes) -> dict[str, Value | Flagged]:
    """The six data bytes as temperature (Cel) and pressure (hPa); null where skipped."""
    raw_t = raw_20(data[3:6])
    if raw_t == SKIPPED_20:  # the pressure is compensated with the temperature
        return dict.fromkeys(("temperature", "pressure"), NOT_READY)
    exact = fine_temperature(calibration, raw_t)
    return {
        "temperature": round(exact / 5120, 3),
        "pressure": hectopascal(calibration, data[0:3], int(exact)),
    }
