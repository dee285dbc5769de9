"""Sensirion SHT30, SHT31, SHT35: temperature and humidity (data sheet SHT3x-DIS, version 6).

Single measurements without clock stretching, which a Raspberry Pi's I2C does not survive.
"""

from typing import Any, Literal

from device_agent.driver import BadReading, ChipReset, I2cBus, WrongChip
from device_agent.schema import Field
from device_agent_drivers.sensirion import (
    COMMAND_S,
    FULL_SCALE,
    SensirionConfig,
    SensirionSensor,
    answer_of,
    words_of,
)

# Section 4, tables 9 to 19
MEASURE = {"high": b"\x24\x00", "medium": b"\x24\x0b", "low": b"\x24\x16"}
BREAK = b"\x30\x93"
SOFT_RESET = b"\x30\xa2"
READ_STATUS = b"\xf3\x2d"
CLEAR_STATUS = b"\x30\x41"
RESET_DETECTED = 1 << 4
# Reserved bits that read as 0; bits 5 to 9 are reserved, too, and may be anything (table 18).
RESERVED = 0b0101_0000_0000_1100

# Table 4, maxima at the lowest supply voltage
MEASURE_S = {"high": 0.0155, "medium": 0.0065, "low": 0.0045}
RESET_S = 0.0015


class Sht3xConfig(SensirionConfig):
    driver: Literal["sht3x"] = "sht3x"
    address: Literal[0x44, 0x45] = Field(0x44, description="0x44, or 0x45 with ADDR high.")
    repeatability: Literal["high", "medium", "low"] = Field("high", description="Noise against time.")


class Sht3x(SensirionSensor[Sht3xConfig]):
    """Waits 15.5 ms at most between `trigger` and `read`."""

    chip = "SHT3x"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settle_s = MEASURE_S[self.config.repeatability]

    @staticmethod
    def simulator(config: Sht3xConfig) -> Any:
        from device_agent_drivers.simulated.sht3x import SimulatedSht3x

        return SimulatedSht3x(config.address)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        (status,) = answer_of(bus, place, READ_STATUS, 3)
        if status is None or status & RESERVED:
            raise WrongChip(f"what answers at {place:#04x} is no status of an SHT3x")
        return f"SHT3x, status {status:#06x} with its checksum"

    def open(self) -> None:
        # The program before may have left it measuring by itself, deaf to all but this
        self._send(BREAK, COMMAND_S)
        self._send(SOFT_RESET, RESET_S)
        self._identify(READ_STATUS, 3, COMMAND_S)
        self._send(CLEAR_STATUS, COMMAND_S)

    def trigger(self) -> None:
        (status,) = words_of(self._ask(READ_STATUS, 3, COMMAND_S))
        if status is None:
            raise BadReading(f"SHT3x at {self.config.address:#04x}: wrong checksum of its status")
        if status & RESET_DETECTED:
            raise ChipReset(f"SHT3x at {self.config.address:#04x} was reset; check its supply")
        self.sleep(COMMAND_S)
        self.bus.transfer(self.config.address, MEASURE[self.config.repeatability])

    @staticmethod
    def percent(raw: int) -> float:
        return 100 * raw / FULL_SCALE

    def _send(self, command: bytes, wait_s: float) -> None:
        self.bus.transfer(self.config.address, command)
        self.sleep(wait_s)
