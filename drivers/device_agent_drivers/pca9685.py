"""NXP PCA9685: sixteen PWM outputs of 12 bits on I2C (data sheet PCA9685, revision 4)."""

from collections.abc import Mapping
from typing import Any, Literal

from device_agent.driver import (
    Actuator,
    ActuatorConfig,
    ChipReset,
    DriverError,
    I2cBus,
    Point,
    Sensor,
    Value,
    WrongChip,
)
from device_agent.schema import Field, model_validator

MODE1, MODE2, LED0, PRE_SCALE = 0x00, 0x01, 0x06, 0xFE

# Section 7.3.1, MODE1
RESTART, EXTCLK, AUTO_INCREMENT, SLEEP = 1 << 7, 1 << 6, 1 << 5, 1 << 4
# Section 7.3.2, MODE2
INVERTED, TOTEM_POLE = 1 << 4, 1 << 2

# Section 7.3.6 and 7.3.7: three groups and all, at power-on. From 0x70 on it switches multiplexers.
GROUPS, GROUP_ADDRESSES = 0x02, b"\xe2\xe4\xe8\xe0"
MULTIPLEXERS = 0x70
STEPS = 4096
FULL = 0x1000  # bit 4 of the high byte of ON or OFF; full-off goes before full-on
OSCILLATOR_HZ = 25_000_000
PRE_SCALE_MIN, PRE_SCALE_MAX = 3, 255
WAKE_UP_S = 0.0005

Channel = Literal[
    "ch0", "ch1", "ch2", "ch3", "ch4", "ch5", "ch6", "ch7",
    "ch8", "ch9", "ch10", "ch11", "ch12", "ch13", "ch14", "ch15",
]  # fmt: skip
ALL: list[Channel] = [
    "ch0", "ch1", "ch2", "ch3", "ch4", "ch5", "ch6", "ch7",
    "ch8", "ch9", "ch10", "ch11", "ch12", "ch13", "ch14", "ch15",
]  # fmt: skip


class Pca9685Config(ActuatorConfig):
    driver: Literal["pca9685"] = "pca9685"
    address: int = Field(0x40, ge=0x40, le=0x7F, description="0x40 to 0x7f, by the pins A0 to A5.")
    channels: list[Channel] = Field(ALL, min_length=1, max_length=16, description="The outputs in use.")
    frequency_hz: float = Field(200, gt=0, le=12_000, description="Of all outputs: 24 to 1526 Hz.")
    inverted: bool = Field(False, description="For outputs with a transistor that turns the signal round.")
    open_drain: bool = Field(False, description="Instead of driving both levels.")
    oscillator_hz: float = Field(
        OSCILLATOR_HZ, ge=1e6, le=50e6, description="The chip's own clock, if measured; 25 MHz +- 5 %."
    )
    external_clock: bool = Field(
        False, description="A clock of `oscillator_hz` is wired to EXTCLK. Holds until power-off."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Pca9685Config":
        if len(set(self.channels)) < len(self.channels):
            raise ValueError("`channels` names one twice")
        if not PRE_SCALE_MIN <= pre_scale_of(self.frequency_hz, self.oscillator_hz) <= PRE_SCALE_MAX:
            low, high = (self.oscillator_hz / STEPS / (scale + 1) for scale in (PRE_SCALE_MAX, PRE_SCALE_MIN))
            raise ValueError(f"`frequency_hz` must be {low:.0f} to {high:.0f} with this clock")
        return self


class Pca9685(Sensor[Pca9685Config, I2cBus], Actuator[Pca9685Config, I2cBus]):
    """Asleep while it is set up, so that nothing of the program before moves on; then all are at `safe`."""

    example = """
channels = ["ch0", "ch1"]
safe = 0
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self._pre_scale = pre_scale_of(config.frequency_hz, config.oscillator_hz)
        self._mode1 = AUTO_INCREMENT | (EXTCLK if config.external_clock else 0)
        self._mode2 = (INVERTED if config.inverted else 0) | (0 if config.open_drain else TOTEM_POLE)

    @classmethod
    def points_of(cls, config: Pca9685Config) -> tuple[Point, ...]:
        return tuple(
            Point(
                name,
                write=True,
                minimum=0,
                maximum=1,
                resolution=1 / 4096,
                description=f"Share of the time that {name} is on.",
            )
            for name in config.channels
        )

    @staticmethod
    def simulator(config: Pca9685Config) -> Any:
        from device_agent_drivers.simulated.pca9685 import SimulatedPca9685

        return SimulatedPca9685(config.address, config.channels)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        """By the addresses of its groups, which hardly anybody changes."""
        if place >= MULTIPLEXERS:
            return ""
        found = bytes(bus.read_u8(place, GROUPS + number) for number in range(4))
        if found != GROUP_ADDRESSES:
            raise WrongChip(f"registers 2 to 5 at {place:#04x} are {found.hex(' ')}: this is no PCA9685")
        return f"PCA9685, group addresses {found.hex(' ')}"

    # -- life ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        address, bus = self.config.address, self.bus
        found = bus.read_u8(address, MODE1)
        if found & EXTCLK and not self.config.external_clock:
            raise DriverError(
                f"PCA9685 at {address:#04x} was switched to an external clock (MODE1 is {found:#04x}), which "
                "holds until its power goes: switch its supply off and on, or set `external_clock`"
            )
        # PRE_SCALE can be written only asleep; EXTCLK only together with SLEEP, when that was set before.
        bus.write_u8(address, MODE1, AUTO_INCREMENT | SLEEP)
        bus.write_u8(address, MODE1, self._mode1 | SLEEP)
        bus.write_u8(address, MODE2, self._mode2)
        bus.write_u8(address, PRE_SCALE, self._pre_scale)
        self._put(dict.fromkeys(ALL, 0.0) | _duties(type(self).safe_of(self.config)))
        bus.write_u8(address, MODE1, self._mode1)
        self.sleep(WAKE_UP_S)
        found = bus.read_u8(address, MODE1)
        if found & RESTART:
            bus.write_u8(address, MODE1, self._mode1 | RESTART)
        self._check_configured()

    def _check_configured(self) -> None:
        """A chip that lost its power sleeps, with all outputs off."""
        mode1, mode2 = self.bus.read(self.config.address, MODE1, 2)
        pre_scale = self.bus.read_u8(self.config.address, PRE_SCALE)
        wanted = (self._mode1, self._mode2, self._pre_scale)
        if (mode1 & ~RESTART, mode2, pre_scale) != wanted:
            raise ChipReset(
                f"PCA9685 at {self.config.address:#04x} does not hold its settings: MODE1, MODE2, PRE_SCALE "
                f"are {mode1:#04x}, {mode2:#04x}, {pre_scale:#04x}; check its supply and the address"
            )

    # -- outputs ------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Value]:
        self._check_configured()
        return self._got(self.config.channels)

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self._check_configured()
        self._put(_duties(values))
        return self._got(values)

    def _put(self, duties: Mapping[str, float]) -> None:
        """Adjacent channels in one transfer: they change together, at its end."""
        numbers = {int(name.removeprefix("ch")): duty for name, duty in duties.items()}
        run: list[int] = []
        for number in sorted(numbers):
            if run and number != run[-1] + 1:
                self._put_run(run, numbers)
                run = []
            run.append(number)
        self._put_run(run, numbers)

    def _put_run(self, run: list[int], numbers: Mapping[int, float]) -> None:
        if run:
            data = b"".join(encoded(numbers[number]) for number in run)
            self.bus.write(self.config.address, LED0 + 4 * run[0], data)

    def _got(self, names: Any) -> dict[str, Value]:
        data = self.bus.read(self.config.address, LED0, 4 * len(ALL))
        return {name: decoded(data[4 * number :][:4]) for name in names for number in [int(name[2:])]}


def _duties(values: Mapping[str, Value]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def pre_scale_of(frequency_hz: float, oscillator_hz: float) -> int:
    """Section 7.3.5."""
    return round(oscillator_hz / (STEPS * frequency_hz)) - 1


def encoded(duty: float) -> bytes:
    """ON and OFF of one channel, from a duty of 0 to 1; a whole period on or off has bits of its own."""
    steps = round(duty * STEPS)
    on, off = (0, FULL) if steps <= 0 else (FULL, 0) if steps >= STEPS else (0, steps)
    return on.to_bytes(2, "little") + off.to_bytes(2, "little")


def decoded(data: bytes) -> float:
    """The duty of one channel's four registers."""
    on, off = int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:4], "little")
    if off & FULL:
        return 0.0
    if on & FULL:
        return 1.0
    return ((off - on) % STEPS) / STEPS
