"""Sensirion SHT40, SHT41, SHT43, SHT45: temperature and humidity (data sheet SHT4x, version 6)."""

from typing import Any, Literal

from device_agent.driver import I2cBus, WrongChip
from device_agent.schema import Field
from device_agent_drivers.sensirion import COMMAND_S, FULL_SCALE, SensirionConfig, SensirionSensor, answer_of

# Section 4.5, command overview
MEASURE = {"high": b"\xfd", "medium": b"\xf6", "low": b"\xe0"}
READ_SERIAL = b"\x89"
SOFT_RESET = b"\x94"

# Table 5, maxima
MEASURE_S = {"high": 0.0083, "medium": 0.0045, "low": 0.0016}
RESET_S = 0.001


class Sht4xConfig(SensirionConfig):
    driver: Literal["sht4x"] = "sht4x"
    address: Literal[0x44, 0x45, 0x46] = Field(0x44, description="Fixed by the part's order code.")
    repeatability: Literal["high", "medium", "low"] = Field("high", description="Noise against time.")


class Sht4x(SensirionSensor[Sht4xConfig]):
    """Waits 8.3 ms at most between `trigger` and `read`. The chip keeps no settings that it could lose."""

    chip = "SHT4x"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settle_s = MEASURE_S[self.config.repeatability]

    @staticmethod
    def simulator(config: Sht4xConfig) -> Any:
        from device_agent_drivers.simulated.sht4x import SimulatedSht4x

        return SimulatedSht4x(config.address)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        high, low = answer_of(bus, place, READ_SERIAL, 6)
        if high is None or low is None:
            raise WrongChip(f"what answers at {place:#04x} is no serial number of an SHT4x")
        return f"SHT4x, serial number {high:04x}{low:04x} with its checksums"

    def open(self) -> None:
        self.bus.transfer(self.config.address, SOFT_RESET)  # also ends a heater pulse under way
        self.sleep(RESET_S)
        self._identify(READ_SERIAL, 6, COMMAND_S)

    def trigger(self) -> None:
        self.bus.transfer(self.config.address, MEASURE[self.config.repeatability])

    @staticmethod
    def percent(raw: int) -> float:
        """The formula reaches from -6 to 119 %; what lies beyond 0 to 100 is cropped (section 4.6)."""
        return min(100.0, max(0.0, -6 + 125 * raw / FULL_SCALE))
