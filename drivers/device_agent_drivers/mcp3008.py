"""Microchip MCP3008: eight-channel 10-bit converter on SPI (data sheet DS21295)."""

from typing import Any, Literal

from device_agent.driver import (
    BadReading,
    DriverConfig,
    Flag,
    Flagged,
    NoAnswer,
    Point,
    Sensor,
    SpiBus,
    Unit,
    Value,
)
from device_agent.schema import Field, field_validator

STEPS = 1024
START = 0b1
SINGLE = 0b1000
# Table 1-0: 3.6 MHz at a supply of 5 V, 1.35 MHz at 2.7 V. The reference never lies above the supply.
SPEED_5_V_HZ, SPEED_2_7_V_HZ = 3_600_000, 1_350_000

SINGLES = tuple(f"ch{number}" for number in range(8))
# Table 5-2: the code of a pair, the positive input first.
PAIRS = ("ch0_ch1", "ch1_ch0", "ch2_ch3", "ch3_ch2", "ch4_ch5", "ch5_ch4", "ch6_ch7", "ch7_ch6")


class Mcp3008Config(DriverConfig):
    driver: Literal["mcp3008"] = "mcp3008"
    channels: list[str] = Field(
        list(SINGLES),
        min_length=1,
        max_length=16,
        description='Inputs against ground ("ch0") or a neighbour ("ch0_ch1", the positive one first).',
    )
    vref_v: float = Field(3.3, ge=0.25, le=5.5, description="Voltage at VREF, the full scale.")

    @field_validator("channels")
    @classmethod
    def _are_channels(cls, channels: list[str]) -> list[str]:
        if unknown := [name for name in channels if name not in (*SINGLES, *PAIRS)]:
            raise ValueError(
                f"{', '.join(unknown)} is no channel: take ch0 to ch7, or a pair of {', '.join(PAIRS)}"
            )
        if len(set(channels)) < len(channels):
            raise ValueError("names a channel twice")
        return channels


class Mcp3008(Sensor[Mcp3008Config, SpiBus]):
    """Each channel is sampled and converted within its own transfer of three bytes (figure 6-1)."""

    @classmethod
    def points_of(cls, config: Mcp3008Config) -> tuple[Point, ...]:
        return tuple(
            Point(name, Unit.VOLT, low=0, high=config.vref_v, description=_described(name))
            for name in config.channels
        )

    @classmethod
    def claims(cls, config: Mcp3008Config) -> tuple[str, ...]:
        return ("the chip select",)

    @staticmethod
    def simulator(config: Mcp3008Config) -> Any:
        from device_agent_drivers.simulated.mcp3008 import SimulatedMcp3008

        return SimulatedMcp3008(config)

    def open(self) -> None:
        self._raw(self.config.channels[0])

    def read(self) -> dict[str, Value | Flagged]:
        return {name: volts(self._raw(name), self.config.vref_v) for name in self.config.channels}

    def _raw(self, channel: str) -> int:
        """0 to 1023. Raises NoAnswer where nobody drives the line, BadReading for a torn frame."""
        code = PAIRS.index(channel) if channel in PAIRS else SINGLE | SINGLES.index(channel)
        speed_hz = SPEED_5_V_HZ if self.config.vref_v >= 5 else SPEED_2_7_V_HZ
        answer = self.bus.transfer(bytes((START, code << 4, 0)), max_speed_hz=speed_hz)
        if answer == b"\xff\xff\xff":
            raise NoAnswer("MCP3008: the input reads all ones; check DOUT, the chip select and the supply")
        if answer[1] & 0b100:
            raise BadReading(
                f"MCP3008: no null bit before the result ({answer.hex(' ')}); check mode and speed"
            )
        return (answer[1] & 0b11) << 8 | answer[2]


def volts(raw: int, vref_v: float) -> Value | Flagged:
    """Section 4.2: one step is VREF / 1024; at both ends the input may lie beyond."""
    value = raw * vref_v / STEPS
    return value if 0 < raw < STEPS - 1 else Flagged(value, Flag.CLIPPED)


def _described(channel: str) -> str:
    plus, _, minus = channel.partition("_")
    return f"Voltage of {plus.upper()} against {minus.upper() or 'ground'}{', 0 and above' if minus else ''}."
