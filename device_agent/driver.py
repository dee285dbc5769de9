"""The contract of a driver, for the bundled ones and for third parties.

A driver knows one kind of chip and nothing of time, network or threads. It is synchronous and runs on the
thread of its bus. Three base classes, freely combined: a `Sensor` is read, a `Listener` receives what comes
by itself, an `Actuator` is set. Name the class in the entry point group `device_agent.drivers`.
"""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from device_agent.bus.core import Handle, NoBus, Source
from device_agent.bus.gpio import Edge, GpioBus
from device_agent.bus.i2c import I2cBus
from device_agent.bus.mqtt import MqttBus, MqttMessage
from device_agent.bus.onewire import OneWireBus
from device_agent.bus.serial import SerialBus
from device_agent.bus.spi import SpiBus
from device_agent.errors import BadReading, ChipReset, DriverError, NoAnswer, WrongChip
from device_agent.records import (
    SEND_FILE,
    Action,
    Argument,
    Dated,
    File,
    Flag,
    Flagged,
    Point,
    Step,
    Unit,
    Value,
    Values,
)
from device_agent.schema import BaseModel, ConfigDict, Field
from device_agent.text.pattern import Pattern

__all__ = [
    "Action",
    "Actuator",
    "ActuatorConfig",
    "Argument",
    "BadReading",
    "ChipReset",
    "Dated",
    "Driver",
    "DriverConfig",
    "DriverError",
    "Edge",
    "File",
    "Flag",
    "Flagged",
    "GpioBus",
    "I2cBus",
    "Listener",
    "MqttBus",
    "MqttMessage",
    "NoAnswer",
    "NoBus",
    "OneWireBus",
    "Pattern",
    "Point",
    "Sensor",
    "SerialBus",
    "SpiBus",
    "Step",
    "Unit",
    "Value",
    "Values",
    "WrongChip",
]


Limit = Annotated[float, Field(ge=0, le=31_536_000)]
"""Seconds; 0 for no limit."""


class DriverConfig(BaseModel):
    """Options that every device has; a driver's model adds its own (do not declare `driver: str` here)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bus: str | None = Field(None, description="Name of the bus this device sits on.")
    formerly: list[str] = Field(
        [], max_length=8, description="Names that it had: what was recorded under them is in its history."
    )
    every_s: float | None = Field(
        None,
        ge=0.01,
        le=86_400,
        description="Period of readings, seconds; what a device says by itself goes no oftener to callers.",
    )
    on_change: bool = Field(False, description="Report only when a value changed by more than `dead_band`.")
    dead_band: float | dict[str, float] = Field(
        0.0, description="Changes up to this are not worth reporting, per point; off to on is a change of 1."
    )
    scale: dict[str, float] = Field({}, description="Calibration: the driver's value is multiplied by this.")
    offset: dict[str, float] = Field({}, description="Calibration: added after `scale`, in the point's unit.")
    calibration: dict[str, Annotated[list[tuple[float, float]], Field(min_length=2, max_length=64)]] = Field(
        {},
        description="Instead of `scale` and `offset`: [the driver's value, the true one] pairs in rising "
        "order; straight lines between them and beyond both ends.",
    )
    unit: dict[str, str] = Field(
        {}, description="What a point is measured in after its calibration, where that is another unit: UCUM."
    )
    description: dict[str, Annotated[str, Field(max_length=200)]] = Field(
        {}, description="What a point is, instead of the driver's own words."
    )
    stale_after_s: Limit | dict[str, Limit] | None = Field(
        None,
        description="A device that sends by itself: a point it has not sent for so long is flagged `stale`; "
        "0 for never.",
    )
    frozen_after_s: Limit | dict[str, Limit] | None = Field(
        None,
        description="A point whose measured value stays the same to the last digit for so long, and for 10 "
        "readings, is flagged `frozen`; 0 for never.",
    )


class Within(BaseModel):
    """Bounds of a number, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    minimum: float | None = Field(None, description="The lowest that it may read.")
    maximum: float | None = Field(None, description="The highest that it may read.")


class ActuatorConfig(DriverConfig):
    """Options of everything that moves. `safe` is required: a value for all points, or a table by point."""

    safe: Value | dict[str, Value] = Field(description="What each point is set to when in doubt.")
    hold: bool = Field(False, description="Keep the value when the session that drove it ends.")
    max_on_s: float | None = Field(None, gt=0, le=31_536_000, description="Longest time away from `safe`.")
    min_off_s: float | None = Field(None, gt=0, le=86_400, description="Shortest time at `safe` in between.")
    max_step: float | None = Field(None, gt=0, description="Largest change in one command.")
    max_rate_per_s: float | None = Field(None, gt=0, description="Largest change a second.")
    max_cycles_per_hour: int | None = Field(None, ge=1, le=3600, description="How often it may leave `safe`.")
    interlock: list[str] = Field(
        [], max_length=8, description="Groups of which one member may be on at once."
    )
    only_while: dict[str, dict[str, Value | Within]] = Field(
        {}, max_length=8, description="Points of other devices, and what they must read while it is on."
    )


C = TypeVar("C", bound=DriverConfig)
B = TypeVar("B", bound=Handle)


class Driver(Generic[C, B]):
    """One chip at one place. The two type arguments name its configuration model and its kind of bus."""

    Config: ClassVar[type[DriverConfig]] = DriverConfig
    Bus: ClassVar[type[Handle]] = NoBus
    points: tuple[Point, ...] = ()
    actions: tuple[Action, ...] = ()
    simulator: ClassVar[Callable[..., Any] | None] = None
    """From the configuration to a simulated chip; see `device_agent.testing`."""
    example: ClassVar[str] = ""
    """Lines of TOML that complete a device, for `drivers describe`; options with defaults are left out."""
    default_every_s: ClassVar[float | None] = 10.0
    serves_as_clock: ClassVar[bool] = False
    """Whether its point `time` (epoch seconds) may be the runtime's clock, which `set_time` sets."""
    bytes_side: ClassVar[bool] = False
    """Whether the device is one stream of bytes: its Listener chunks go out as they are, `write_bytes` in;
    files that callers send go the same way (action `send_file`)."""
    on_demand: ClassVar[bool] = False
    """Whether a bytes side is listened to only while somebody takes its bytes, as with a camera."""
    call_limit_s: ClassVar[float] = 2.0
    """How long one call of a driver without a bus may take; on a bus the limit is the bus's."""
    obeys_any_write: ClassVar[bool] = False
    """Whether any byte written to the chip is a command, even the number of a register (PCF8574): `scan` then
    writes nothing at the addresses that it may have."""
    pulses: ClassVar[Literal["", "share", "position"]] = ""
    """What the pulses of its GPIO line mean, where it has any: a share of power, or a position."""
    settle_s: float = 0.0
    """Seconds between `trigger` and `read`, waited off the bus. At most 50 ms may be slept inside a call."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Driver):
                for argument in get_args(base):
                    if isinstance(argument, type) and issubclass(argument, DriverConfig):
                        cls.Config = argument
                    elif isinstance(argument, type) and issubclass(argument, Handle):
                        cls.Bus = argument

    def __init__(self, config: C, bus: B, sleep: Callable[[float], None] = time.sleep) -> None:
        """Touches no hardware. `sleep` is for waits up to 50 ms, so that tests need no real time."""
        self.config = config
        self.bus = bus
        self.sleep = sleep
        self.points = type(self).points_of(config)

    def notes(self) -> Mapping[str, int | str]:
        """Shown by `status` beside a device that is online: counters, and what its far end refuses.

        Called on any thread between two calls of the bus's; it touches no bus. Empty where all is well.
        """
        return {}

    def keep(self, kept: dict[str, float]) -> None:
        """Told once, before `open`: numbers that outlive the process, as it left them, for it to change.

        For counts that go on over restarts. `unclean` is in it after a crash or a power cut: the last changes
        may be missing, until the driver removes it. Used on the event loop alone, as `feed` is.
        """

    @classmethod
    def points_of(cls, config: Any) -> tuple[Point, ...]:
        """The points of a device so configured; overridden where the configuration decides."""
        return cls.points

    @classmethod
    def claims(cls, config: Any) -> tuple[str, ...]:
        """What the device owns alone on its bus, such as ("address 0x76",) or ("line 17",)."""
        address = getattr(config, "address", None)
        return () if address is None else (f"address {address:#04x}",)

    @classmethod
    def to_read(cls, config: Any) -> Any:
        """The options of the same device for one who only reads it: opening it then moves nothing.

        None where opening it sets it all the same.
        """
        return None if any(point.write for point in cls.points_of(config)) else config

    @classmethod
    def step_limit_s(cls, config: Any) -> float:
        """The longest time that one transaction may take by its configuration; 0 to take the bus's limit.

        A call of a driver that has no steps counts as one transaction.
        """
        return 0.0

    @classmethod
    def reading_s(cls, config: Any, bus: Any) -> float:
        """How long one reading keeps its bus at the least, by its options and `bus`, the bus's table.

        For `check`, which adds up what a bus has to do; 0 where that is short.
        """
        return 0.0

    @classmethod
    def identify(cls, bus: B, place: Any) -> str:
        """What is at a place (I2C: an address that answers; 1-Wire: a sensor's id); called by `scan`.

        Returns the chip and the evidence, such as "BME280, chip id 0x60"; "" where it cannot be identified.
        Raises WrongChip for another chip. Changes nothing: any other chip there gets the same bytes.
        """
        return ""

    @classmethod
    def takes_bytes(cls) -> bool:
        """Whether bytes can be sent to the device as well."""
        return cls.bytes_side and cls.write_bytes is not Driver.write_bytes

    @classmethod
    def all_actions(cls) -> tuple[Action, ...]:
        """All actions that callers may request: its own, and `send_file` of a bytes side."""
        return (*cls.actions, *((SEND_FILE,) if cls.takes_bytes() else ()))

    def open(self) -> None:
        """Identify and configure the chip. Also called after a fault: assume no state. Raises WrongChip."""

    def close(self) -> None:
        """Release what `open` took. May be called twice, and after a failed `open`."""

    def do(self, action: str, args: Mapping[str, Value]) -> Iterable[Step] | File | None:
        """Carry out an action here, or return the steps that the runtime shall carry out under its limits.

        One with `gives` returns its File.
        """
        raise DriverError(f"{type(self).__name__} has no action {action!r}")

    def write_bytes(self, data: bytes) -> None:
        """Send these bytes as they are. Raises BusTimeout when the far end does not take them."""
        raise DriverError(f"{type(self).__name__} has no bytes side")


class Sensor(Driver[C, B]):
    """Is read, at its period and on request."""

    def trigger(self) -> None:
        """Start a conversion that takes longer than 50 ms; `settle_s` later `read` fetches it."""

    def read(self) -> Values:
        """All configured points, now. Raises NoAnswer, BadReading, ChipReset or any BusError.

        Where the device can also be commanded, a call of I2C, SPI or 1-Wire may end it (by what is no
        `Exception`) for a command or a safe state, and it begins anew afterwards. `finally` runs as usual.
        """
        raise NotImplementedError

    def read_steps(self) -> Generator[None, None, Values]:
        """As `read`, for a driver whose reading takes many transactions: it yields between two of them.

        There, what cannot wait uses the bus: safe states and commands, of this device too.
        """
        yield from ()
        return self.read()


class Listener(Driver[C, B]):
    """Receives what comes by itself. `feed` runs on the event loop: it is pure, quick, and touches no bus."""

    default_every_s: ClassVar[float | None] = None
    default_stale_after_s: ClassVar[float | None] = None
    """Silence after which the last values are flagged `stale`; None where a healthy far end may be silent."""

    def listen(self) -> "Source":
        """What to listen to; the bus itself unless overridden. Called after `open`, on the bus's thread."""
        return self.bus.listen()

    def feed(self, chunk: Any) -> Iterable[Values]:
        """Takes a chunk (bytes, an Edge, an MqttMessage), yields the readings that became complete.

        A point that is left out was not in the message: the runtime repeats it as `present` has it when this
        reading is yielded, and its age goes on. What was said and cannot be used is None with a flag. Where
        the message tells when it was measured, yield `Dated` values. Nothing that a far end sends may raise.
        """
        raise NotImplementedError

    def present(self, monotonic_s: float) -> Values | None:
        """The present reading for a request in between; None where nothing is known yet."""
        return None


class Actuator(Driver[C, B]):
    """Is set. `open` sets the safe value in the same step as the direction."""

    @classmethod
    def safe_of(cls, config: Any) -> dict[str, Value]:
        """The safe value of each writable point so configured."""
        safe = getattr(config, "safe", None)
        writable = [point.name for point in cls.points_of(config) if point.write]
        return {name: safe.get(name) if isinstance(safe, dict) else safe for name in writable}

    @classmethod
    def confirms(cls, config: Any) -> bool:
        """Whether what `write` did has happened; False where it is only sent, and nobody answers that."""
        return True

    def write(self, values: Mapping[str, Value]) -> Values:
        """Set these points (already checked for type and range), all in one step where the chip can.

        Returns what was read back from the hardware; a point that cannot be read back is left out.
        """
        raise NotImplementedError

    def write_steps(self, values: Mapping[str, Value]) -> Generator[None, None, Values]:
        """As `write`, yielding between two transactions: there it may be made safe, which ends the write."""
        yield from ()
        return self.write(values)

    def safe(self) -> None:
        """Set every point to its safe value."""
        self.write(type(self).safe_of(self.config))
