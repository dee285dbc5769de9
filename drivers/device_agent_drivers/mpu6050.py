"""InvenSense MPU-6050: acceleration, rotation, temperature (PS-MPU-6000A, register map RM-MPU-6000A).

Its successors and copies on modules of the same name are taken too; they differ in the temperature.
"""

from typing import Any, Literal

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
from device_agent.schema import Field

# Register map, section 3
CONFIG = 0x1A  # then GYRO_CONFIG, ACCEL_CONFIG
DATA = 0x3B  # acceleration x y z, temperature, rotation x y z: 16 bits each
PWR_MGMT_1 = 0x6B
WHO_AM_I = 0x75

DEVICE_RESET = 1 << 7
SLEEP = 1 << 6
CLOCK_GYRO_X = 1  # steadier than the internal oscillator

G = 9.80665
# Sensitivity of tables 6.1 and 6.2, by range
ACCEL_COUNTS_PER_G = {2: 16384, 4: 8192, 8: 4096, 16: 2048}
GYRO_COUNTS_PER_DPS = {250: 131.0, 500: 65.5, 1000: 32.8, 2000: 16.4}
FILTERS_HZ = {260: 0, 184: 1, 94: 2, 44: 3, 21: 4, 10: 5, 5: 6}
ENDS = (-32768, 32767)

# WHO_AM_I to the temperature's (counts per degree, degrees at zero)
MPU6050 = (340.0, 36.53)
MPU6500 = (333.87, 21.0)
ICM20689 = (326.8, 25.0)
IDS = {
    0x68: MPU6050,
    0x69: MPU6050,
    0x72: MPU6050,  # copies; nobody documents them
    0x70: MPU6500,
    0x71: MPU6500,  # MPU-9250
    0x73: MPU6500,  # MPU-9255
    0x74: MPU6500,  # MPU-6515
    0x98: ICM20689,
    0xAF: ICM20689,  # ICM-20608
    0x12: ICM20689,  # ICM-20602
    0x19: ICM20689,  # MPU-6886
}

RESET_POLL_S = 0.02
RESET_TRIES = 6  # 100 ms at most, section 4.28
START_UP_S = 0.05  # from sleep to a settled gyroscope: 30 ms (MPU-6050), 35 ms (MPU-6500)

AXES = ("x", "y", "z")


class Mpu6050Config(DriverConfig):
    driver: Literal["mpu6050"] = "mpu6050"
    address: Literal[0x68, 0x69] = Field(0x68, description="0x68, or 0x69 with AD0 high.")
    accel_range_g: Literal[2, 4, 8, 16] = Field(2, description="Full scale of the acceleration.")
    gyro_range_dps: Literal[250, 500, 1000, 2000] = Field(250, description="Full scale of the rotation.")
    filter_hz: Literal[260, 184, 94, 44, 21, 10, 5] = Field(44, description="Bandwidth of the low-pass.")


class Mpu6050(Sensor[Mpu6050Config, I2cBus]):
    """Measures all the time; a reading takes the latest values, all of one instant."""

    default_every_s = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self._settings = bytes(
            (
                FILTERS_HZ[config.filter_hz],
                tuple(GYRO_COUNTS_PER_DPS).index(config.gyro_range_dps) << 3,
                tuple(ACCEL_COUNTS_PER_G).index(config.accel_range_g) << 3,
            )
        )
        self._temperature = MPU6050

    @classmethod
    def points_of(cls, config: Mpu6050Config) -> tuple[Point, ...]:
        # The end codes lie a little beyond the nominal range and go out as clipped
        accel = 32768 / ACCEL_COUNTS_PER_G[config.accel_range_g] * G
        gyro = 32768 / GYRO_COUNTS_PER_DPS[config.gyro_range_dps]
        accel_unit, gyro_unit = Unit.METRE_PER_SECOND_SQUARED, Unit.DEGREE_PER_SECOND
        return (
            *(
                Point(f"acceleration_{axis}", accel_unit, low=-accel, high=accel, still_s=3600)
                for axis in AXES
            ),
            *(Point(f"rotation_{axis}", gyro_unit, low=-gyro, high=gyro) for axis in AXES),
            Point("temperature", Unit.CELSIUS, low=-40, high=105, description="Of the chip."),
        )

    @staticmethod
    def simulator(config: Mpu6050Config) -> Any:
        from device_agent_drivers.simulated.mpu6050 import SimulatedMpu6050

        return SimulatedMpu6050(config.address)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        found = cls._checked_id(bus, place)
        return f"{'MPU-6050' if IDS[found] is MPU6050 else 'relative of the MPU-6050'}, WHO_AM_I {found:#04x}"

    @staticmethod
    def _checked_id(bus: I2cBus, address: int) -> int:
        found = bus.read_u8(address, WHO_AM_I)
        if found not in IDS:
            known = "no chip that answers sensibly; check the wiring" if found in (0, 0xFF) else "no MPU-6050"
            raise WrongChip(
                f"WHO_AM_I {found:#04x} at {address:#04x}, not 0x68 or a relative: this is {known}"
            )
        return found

    def open(self) -> None:
        address = self.config.address
        self._temperature = IDS[self._checked_id(self.bus, address)]
        self.bus.write_u8(address, PWR_MGMT_1, DEVICE_RESET)
        for _ in range(RESET_TRIES):
            self.sleep(RESET_POLL_S)
            if not self.bus.read_u8(address, PWR_MGMT_1) & DEVICE_RESET:
                break
        self.bus.write(address, PWR_MGMT_1, bytes((CLOCK_GYRO_X, 0)))  # awake, and no axis on standby
        self.bus.write(address, CONFIG, self._settings)
        self.sleep(START_UP_S)
        if self._lost():
            raise DriverError(f"MPU-6050 at {address:#04x} does not keep its settings: {self._lost()}")

    def read(self) -> dict[str, Value | Flagged]:
        if lost := self._lost():
            raise ChipReset(f"MPU-6050 at {self.config.address:#04x} lost its settings: {lost}")
        data = self.bus.read(self.config.address, DATA, 14)
        raw = [int.from_bytes(data[i : i + 2], "big", signed=True) for i in range(0, 14, 2)]
        config = self.config
        per_g = ACCEL_COUNTS_PER_G[config.accel_range_g] / G
        per_dps = GYRO_COUNTS_PER_DPS[config.gyro_range_dps]
        values: dict[str, Value | Flagged] = {}
        for index, axis in enumerate(AXES):
            values[f"acceleration_{axis}"] = _scaled(raw[index], per_g)
            values[f"rotation_{axis}"] = _scaled(raw[index + 4], per_dps)
        counts_per_degree, at_zero = self._temperature
        values["temperature"] = round(raw[3] / counts_per_degree + at_zero, 2)
        return values

    def _lost(self) -> str:
        """What differs from what `open` set, "" for nothing: a brown-out puts the chip to sleep."""
        power = self.bus.read(self.config.address, PWR_MGMT_1, 2)
        settings = self.bus.read(self.config.address, CONFIG, 3)
        if power == bytes((CLOCK_GYRO_X, 0)) and settings == self._settings:
            return ""
        asleep = " (asleep)" if power[0] & SLEEP else ""
        return f"power management {power.hex(' ')}{asleep}, settings {settings.hex(' ')}; check its supply"


def _scaled(raw: int, counts_per_unit: float) -> Value | Flagged:
    value = round(raw / counts_per_unit, 4)
    return Flagged(value, Flag.CLIPPED) if raw in ENDS else value
