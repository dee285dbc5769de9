"""TI TMP117 thermometer: one 16-bit register, 1/128 degree Celsius a bit."""

from typing import Literal

from pydantic import Field

from device_agent.driver import DriverConfig, I2cBus, Point, Sensor, Unit, WrongChip
from device_agent.testing import Quantity, RegisterChip

SENSED = Quantity(0x00, lambda celsius: round(celsius * 128).to_bytes(2, "big", signed=True), 25.0)


class Tmp117Config(DriverConfig):
    driver: Literal["acme-tmp117"] = "acme-tmp117"
    address: int = Field(0x48, ge=0x48, le=0x4B, description="By the pin ADD0.")


class Tmp117(Sensor[Tmp117Config, I2cBus]):
    points = (Point("temperature", Unit.CELSIUS, low=-55, high=150, description="Of the chip."),)
    simulator = lambda config: RegisterChip({0x0F: b"\x01\x17"}, {"temperature": SENSED})  # noqa: E731

    def open(self) -> None:
        if self.bus.read_u16(self.config.address, 0x0F) & 0xFFF != 0x117:
            raise WrongChip(f"no TMP117 at {self.config.address:#04x}")

    def read(self) -> dict[str, float]:
        return {"temperature": self.bus.read_s16(self.config.address, 0x00) / 128}
