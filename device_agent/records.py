"""Data types of the runtime: points, units, values, flags, actions, readings, statuses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from typing import Literal, NamedTuple, TypeGuard

Value = bool | int | float | str | None
"""What one point can hold. None means "could not be read"; a flag then says why."""


class Unit(StrEnum):
    """Units by name, in UCUM spelling (https://ucum.org); any other UCUM code is one too."""

    NONE = ""
    ONE = "1"
    PERCENT = "%"
    PARTS_PER_MILLION = "[ppm]"
    PARTS_PER_BILLION = "[ppb]"
    CELSIUS = "Cel"
    KELVIN = "K"
    HECTOPASCAL = "hPa"
    PASCAL = "Pa"
    KILOPASCAL = "kPa"
    BAR = "bar"
    LUX = "lx"
    VOLT = "V"
    MILLIVOLT = "mV"
    AMPERE = "A"
    MILLIAMPERE = "mA"
    WATT = "W"
    KILOWATT = "kW"
    VOLT_AMPERE = "V.A"
    VAR = "var"
    WATT_HOUR = "W.h"
    KILOWATT_HOUR = "kW.h"
    JOULE = "J"
    OHM = "Ohm"
    FARAD = "F"
    COULOMB = "C"
    TESLA = "T"
    MICROTESLA = "uT"
    HERTZ = "Hz"
    PER_MINUTE = "/min"
    SECOND = "s"
    MILLISECOND = "ms"
    MINUTE = "min"
    HOUR = "h"
    METRE = "m"
    MILLIMETRE = "mm"
    CENTIMETRE = "cm"
    KILOMETRE = "km"
    METRE_PER_SECOND = "m/s"
    KILOMETRE_PER_HOUR = "km/h"
    METRE_PER_SECOND_SQUARED = "m/s2"
    DEGREE = "deg"
    DEGREE_PER_SECOND = "deg/s"
    GRAM = "g"
    KILOGRAM = "kg"
    NEWTON = "N"
    LITRE = "L"
    MILLILITRE = "mL"
    CUBIC_METRE = "m3"
    LITRE_PER_MINUTE = "L/min"
    CUBIC_METRE_PER_HOUR = "m3/h"
    MICROGRAM_PER_CUBIC_METRE = "ug/m3"
    MILLIGRAM_PER_LITRE = "mg/L"
    GRAM_PER_CUBIC_METRE = "g/m3"
    MICROSIEMENS_PER_CM = "uS/cm"
    PH = "[pH]"
    DECIBEL = "dB"
    DECIBEL_MILLIWATT = "dB[mW]"
    BYTE = "By"
    MEGABYTE = "MBy"
    PER_DECILITRE = "/dL"


class Flag(StrEnum):
    """Why a value is missing or doubtful (docs/events.md#events)."""

    STALE = "stale"
    FROZEN = "frozen"
    OUT_OF_RANGE = "out_of_range"
    CLIPPED = "clipped"
    OVERFLOW = "overflow"
    CHECKSUM = "checksum"
    NO_ANSWER = "no_answer"
    REFUSED = "refused"
    NOT_READY = "not_ready"
    POWER_ON_VALUE = "power_on_value"
    INCOMPLETE = "incomplete"
    UNDATED = "undated"


class DeviceState(StrEnum):
    """A device's health as callers see it."""

    ONLINE = "online"
    OFFLINE = "offline"
    FAULT = "fault"


ValueType = Literal["number", "integer", "boolean", "string"]


@dataclass(frozen=True, slots=True)
class Point:
    """One thing a device senses or sets.

    `low` and `high` bound what the chip can measure (a value outside gets the flag `out_of_range`);
    `minimum` and `maximum` bound what may be written. `still_s` is how long a healthy chip's value can stay
    the same to the last digit (afterwards it is flagged `frozen`); None: for ever. It is for converters whose
    noise is well above their last digit. `resolution` is the step in which a value can be set, where known.
    """

    name: str
    unit: str = Unit.NONE
    type: ValueType = "number"
    low: float | None = None
    high: float | None = None
    write: bool = False
    minimum: float | None = None
    maximum: float | None = None
    description: str = ""
    still_s: float | None = None
    resolution: float | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """One member of an action's `args`."""

    name: str
    unit: str = Unit.NONE
    type: ValueType = "number"
    minimum: float | None = None
    maximum: float | None = None
    required: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """Something a device does that is more than setting a point. `moves`: it drives an actuator, so the
    lease, the limits and the right to drive apply. `gives` is the MIME type of the file that it makes: the
    caller gets it as an artifact, and where nothing moves the right to read is enough."""

    name: str
    arguments: tuple[Argument, ...] = ()
    moves: bool = True
    description: str = ""
    gives: str = ""

    @property
    def read_only(self) -> bool:
        """It only gets something, as a read does."""
        return bool(self.gives) and not self.moves


SEND_FILE = Action(
    "send_file", description="Send the request's input part `file` to the device, byte by byte."
)
"""What every device with a bytes side can do besides its own actions; the runtime carries it out."""


@dataclass(frozen=True, slots=True)
class Flagged:
    """A value with a flag. `value` is None where nothing usable was measured."""

    value: Value
    flag: Flag


Values = Mapping[str, Value | Flagged]
"""What a driver returns: point to value; the device adds names, time and units."""

AGE_UNKNOWN = frozenset((Flag.STALE, Flag.UNDATED))
"""Values with these say nothing of the present."""


class Dated(dict[str, Value | Flagged]):
    """Values, and when the device says that it measured them."""

    def __init__(self, values: Values, at_ms: float | None, max_age_s: float = 86_400.0) -> None:
        """`at_ms`: epoch milliseconds, None where the device should have said that and did not.

        What is in the future, or older than `max_age_s`, is taken for measured when it came, and `undated`.
        """
        super().__init__(values)
        self.at_ms = at_ms
        self.max_age_s = max_age_s


@dataclass(frozen=True, slots=True)
class Step:
    """Part of an action's plan: set these values, keep them for `for_s` (None: until the next command)."""

    values: Mapping[str, Value]
    for_s: float | None = None


@dataclass(frozen=True, slots=True)
class File:
    """What an action makes: a picture, a log."""

    name: str
    mime_type: str
    data: bytes


NO_FLAGS: Mapping[str, Flag] = {}


class Reading(NamedTuple):
    """The values of one device at one instant."""

    device: str
    at_ms: int
    values: Mapping[str, Value]
    flags: Mapping[str, Flag] = NO_FLAGS
    monotonic_s: float = 0.0
    clock_set: bool = True
    at_once: bool = False
    """A command caused it: it is sent now, whatever period a subscription has."""
    past: bool = False
    """It was too old when it came: news of what was, not of what is."""
    silence: Literal["", "began", "ended"] = ""
    """A point became stale (nothing was measured: the values are repeated with the flag), or is no longer."""


@dataclass(frozen=True, slots=True)
class Status:
    """A device came, went or failed: `reason` is one of docs/events.md#events."""

    device: str
    at_ms: int
    state: DeviceState
    reason: str = ""
    detail: str = ""


def time_zone(name: str) -> tzinfo | None:
    """A zone such as Europe/Berlin; None, as datetime has it, for `local`, the machine's own.

    Raises ValueError where there is none of this name.
    """
    if name == "local":
        return None
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"there is no time zone {name!r}: name one such as Europe/Berlin, or local"
        ) from error


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether this is a number; a bool is none, although Python counts it as an int."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether this is an int; a bool is none, although Python counts it as one."""
    return isinstance(value, int) and not isinstance(value, bool)


DECIMALS = 6
WRITTEN_MAX = 15
"""Signs of a number that somebody wrote; one with a binary remainder has more."""


def rounded(value: float) -> float:
    """Without the remainder of a float's binary form: to six decimals, or to six significant digits where
    those are finer. What is written with few digits has none: 2.5e-8 and 52.2187242783 stay what they are."""
    if not math.isfinite(value) or len(repr(value)) <= WRITTEN_MAX:
        return value
    return round(value, max(DECIMALS, DECIMALS - 1 - math.floor(math.log10(abs(value)))))


def same_value(read: Value, wanted: Value, point: Point) -> bool:
    """Whether a point that was set reads as it was set: numbers within half a step of its converter.

    Where the step is not known, within a thousandth of the value.
    """
    if not is_number(read) or not is_number(wanted):
        return read == wanted
    if point.resolution is None:
        return abs(read - wanted) <= 1e-3 * abs(wanted)
    return abs(read - wanted) <= max(0.500001 * point.resolution, 1e-6 * abs(wanted))


class ReadingSubscriber:
    """Receives what devices report; a subclass overrides what it needs.

    All are plain calls on the event loop: they return at once and do not raise.
    """

    def on_reading(self, reading: Reading) -> None:
        """A new reading that is not `past`, or (`silence="began"`) the last one, which has become stale."""

    def on_readings(self, readings: Sequence[Reading]) -> None:
        """What a device gave at once, in order and `past` ones too, after `on_reading` of all subscribers."""

    def on_status(self, status: Status) -> None:
        """A device is online, was lost, or is lost for another reason than before."""

    def on_bytes(self, device: str, data: bytes) -> None:
        """A chunk from a device that is a stream of bytes."""
