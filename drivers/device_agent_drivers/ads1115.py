"""TI ADS1115: four-channel 16-bit converter (data sheet SBAS444).

One conversion a channel and reading, in single-shot mode: the result register holds the last conversion,
whichever channel that was, so each is awaited at the busy bit.
"""

from typing import Any, Literal

from device_agent.driver import (
    BadReading,
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
)
from device_agent.schema import Field, field_validator, model_validator

CONVERSION, CONFIG = 0x00, 0x01

# Section 8.1.3, config register
IDLE = START = 1 << 15
SINGLE_SHOT = 1 << 8
# The comparator is off, so its polarity has no effect; set, it shows that the setting is ours.
OURS = 1 << 3
COMPARATOR_OFF = 0b11

Channel = Literal["a0", "a1", "a2", "a3", "a0_a1", "a0_a3", "a1_a3", "a2_a3"]
MUX: dict[str, int] = {
    "a0_a1": 0b000, "a0_a3": 0b001, "a1_a3": 0b010, "a2_a3": 0b011,
    "a0": 0b100, "a1": 0b101, "a2": 0b110, "a3": 0b111,
}  # fmt: skip
GAIN = {6.144: 0b000, 4.096: 0b001, 2.048: 0b010, 1.024: 0b011, 0.512: 0b100, 0.256: 0b101}
RATE = {8: 0, 16: 1, 32: 2, 64: 3, 128: 4, 250: 5, 475: 6, 860: 7}

RATE_ERROR = 1.1  # section 6.5: the rate is true to 10 %
WAKE_UP_S = 0.00005  # section 7.4.2.1: some 25 us from power-down
POLL_S = 0.002
POLLS_MAX = 20
# The slowest conversion, which another program or a reading that was given up may have begun.
IDLE_POLL_S, IDLE_POLLS_MAX = 0.01, 16
# Channels after the first are awaited on the bus's thread, where others wait too.
BUS_HELD_MAX_S = 0.5

CLIPPED_LOW, CLIPPED_HIGH = -0x8000, 0x7FFF
FULL_SCALE = 1 << 15
NOT_READY = Flagged(None, Flag.NOT_READY)


class Ads1115Config(DriverConfig):
    driver: Literal["ads1115"] = "ads1115"
    address: Literal[0x48, 0x49, 0x4A, 0x4B] = Field(0x48, description="0x48 with ADDR at ground.")
    channels: list[Channel] = Field(
        ["a0", "a1", "a2", "a3"],
        min_length=1,
        max_length=8,
        description='Inputs against ground ("a0") or against each other ("a0_a1").',
    )
    range_v: float = Field(
        4.096,
        description="Full scale, volts: 6.144, 4.096, 2.048, 1.024, 0.512 or 0.256.",
        json_schema_extra={"enum": list(GAIN)},
    )
    rate_sps: Literal[8, 16, 32, 64, 128, 250, 475, 860] = Field(128, description="Slower is quieter.")

    @field_validator("range_v")
    @classmethod
    def _is_a_gain(cls, range_v: float) -> float:
        if range_v not in GAIN:
            raise ValueError(f"must be one of {', '.join(map(str, GAIN))}")
        return range_v

    @model_validator(mode="after")
    def _fits_together(self) -> "Ads1115Config":
        if len(set(self.channels)) < len(self.channels):
            raise ValueError("`channels` names one twice")
        held_s = (len(self.channels) - 1) * conversion_s(self.rate_sps)
        if held_s > BUS_HELD_MAX_S:
            raise ValueError(
                f"{len(self.channels)} channels at `rate_sps` {self.rate_sps} would hold the bus for "
                f"{held_s:.1f} s a reading: take a higher rate or fewer channels"
            )
        return self


class Ads1115(Sensor[Ads1115Config, I2cBus]):
    """`trigger` starts the first channel; `read` fetches it and converts the others one by one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settle_s = conversion_s(self.config.rate_sps)

    @classmethod
    def points_of(cls, config: Ads1115Config) -> tuple[Point, ...]:
        return tuple(
            Point(name, Unit.VOLT, low=-config.range_v, high=config.range_v, description=_described(name))
            for name in config.channels
        )

    @staticmethod
    def simulator(config: Ads1115Config) -> Any:
        from device_agent_drivers.simulated.ads1115 import SimulatedAds1115

        return SimulatedAds1115(config)

    def open(self) -> None:
        # There is no id register: a chip that keeps such a setting is taken for the right chip.
        address, wanted = self.config.address, self._setting(self.config.channels[0])
        self.bus.write_u16(address, CONFIG, wanted)
        found = self.bus.read_u16(address, CONFIG)
        if found & ~IDLE != wanted:
            raise DriverError(
                f"no ADS1115 at {address:#04x}: its config register holds {found:#06x} after {wanted:#06x} "
                "was written; check the address and the wiring"
            )

    def trigger(self) -> None:
        self._start(self.config.channels[0])

    def read(self) -> dict[str, Value | Flagged]:
        first, *others = self.config.channels
        values: dict[str, Value | Flagged] = {first: self._result(first)}
        for channel in others:
            self._start(channel)
            self._wait()
            values[channel] = self._result(channel)
        return values

    def _setting(self, channel: str) -> int:
        gain, rate = GAIN[self.config.range_v], RATE[self.config.rate_sps]
        return MUX[channel] << 12 | gain << 9 | SINGLE_SHOT | rate << 5 | OURS | COMPARATOR_OFF

    def _start(self, channel: str) -> None:
        # A start during a conversion is ignored, and that one's result would pass for this channel's.
        for _ in range(IDLE_POLLS_MAX):
            if self.bus.read_u16(self.config.address, CONFIG) & IDLE:
                break
            self.sleep(IDLE_POLL_S)
        else:
            raise BadReading(f"ADS1115 at {self.config.address:#04x}: a conversion does not end")
        self.bus.write_u16(self.config.address, CONFIG, START | self._setting(channel))

    def _wait(self) -> None:
        left_s = self.settle_s
        while left_s > 0:
            step_s = min(left_s, 0.05)
            self.sleep(step_s)
            left_s -= step_s

    def _result(self, channel: str) -> Value | Flagged:
        address, wanted = self.config.address, self._setting(channel)
        for _ in range(POLLS_MAX):
            status = self.bus.read_u16(address, CONFIG)
            if status & ~IDLE != wanted:
                raise ChipReset(
                    f"ADS1115 at {address:#04x} lost its settings: config is {status:#06x}, not "
                    f"{wanted:#06x}; check its supply"
                )
            if status & IDLE:
                return volts(self.bus.read_s16(address, CONVERSION), self.config.range_v)
            self.sleep(POLL_S)
        return NOT_READY


def conversion_s(rate_sps: int) -> float:
    """The longest time that one conversion may take."""
    return RATE_ERROR / rate_sps + WAKE_UP_S


def volts(raw: int, range_v: float) -> Value | Flagged:
    """Table 3: full scale is 2^15; the end codes mean that the input lies at or beyond it."""
    value = raw * range_v / FULL_SCALE
    return Flagged(value, Flag.CLIPPED) if raw in (CLIPPED_LOW, CLIPPED_HIGH) else value


def _described(channel: str) -> str:
    plus, _, minus = channel.partition("_")
    return f"Voltage of {plus.upper()} against {minus.upper() or 'ground'}."
