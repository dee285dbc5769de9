"""Maxim DS3231: battery-backed clock with a thermometer (data sheet 19-5170). Also fits the DS3232.

The chip's own doubt is passed on: after its oscillator had stopped, it has no time until one is set.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from device_agent.driver import (
    Action,
    Argument,
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
from device_agent.records import is_number
from device_agent.schema import Field

# Figure 1: seconds, minutes, hours, day, date, month and century, year, all BCD; alarms; control, status,
# aging, temperature
TIME = 0x00
HOURS = 0x02
CONTROL = 0x0E
STATUS = 0x0F
ALL_SIZE = 0x13

EOSC = 1 << 7  # in control: the oscillator stops on battery
OSF = 1 << 7  # in status: the oscillator had stopped
BUSY = 1 << 2
ALARM_FLAGS = 0b11  # writing ones leaves them as they are
TWELVE_HOUR = 1 << 6
PM = 1 << 5
CENTURY = 1 << 7

# Bits that read as zero, by register: the chip has no id
ZERO_BITS = {0x00: 0x80, 0x01: 0x80, 0x02: 0x80, 0x03: 0xF8, 0x04: 0xC0, 0x05: 0x60, 0x12: 0x3F}

EARLIEST_S = 946_684_800  # 2000-01-01, year 00 without the century bit
LATEST_S = 7_258_118_399  # 2199-12-31, year 99 with it


class Ds3231Config(DriverConfig):
    driver: Literal["ds3231"] = "ds3231"
    address: Literal[0x68] = Field(0x68, description="The only one.")


class Ds3231(Sensor[Ds3231Config, I2cBus]):
    """`time` is UTC as long as whoever sets it sets UTC, as this driver and Linux do."""

    default_every_s = 60.0
    serves_as_clock = True
    points = (
        Point("time", Unit.SECOND, description="Epoch, whole seconds; null when not to be trusted."),
        Point("temperature", Unit.CELSIUS, low=-40, high=85, description="Of the chip, renewed every 64 s."),
        Point("lost_power", type="boolean", description="The clock had stopped since the time was set."),
    )
    actions = (
        Action(
            "set_time",
            (Argument("time", Unit.SECOND, minimum=EARLIEST_S, maximum=LATEST_S, description="Epoch."),),
            moves=False,
            description="Set the clock; its time is trusted from then on.",
        ),
    )

    @staticmethod
    def simulator(config: Ds3231Config) -> Any:
        from device_agent_drivers.simulated.ds3231 import SimulatedDs3231

        return SimulatedDs3231(config.address)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        found = cls._checked(bus, place)
        if epoch_of(found[:7]) is None:
            raise WrongChip(f"what the registers at {place:#04x} show is no time: this is no DS3231")
        return "DS3231, by its registers: a time, and zeros where there must be"

    @staticmethod
    def _checked(bus: I2cBus, address: int) -> bytes:
        """All registers. The chip has no id: bits that read as zero have to do."""
        found = bus.read(address, TIME, ALL_SIZE)
        wrong = [register for register, mask in ZERO_BITS.items() if found[register] & mask]
        if wrong or not any(found):
            register = wrong[0] if wrong else TIME
            raise WrongChip(
                f"no DS3231 at {address:#04x}: register {register:#04x} is {found[register]:#04x}; "
                "another chip answers, or the wiring is bad"
            )
        return found

    def open(self) -> None:
        address = self.config.address
        found = self._checked(self.bus, address)
        if found[CONTROL] & EOSC:
            self.bus.write_u8(address, CONTROL, found[CONTROL] & ~EOSC)

    def read(self) -> dict[str, Value | Flagged]:
        found = self.bus.read(self.config.address, TIME, ALL_SIZE)
        status = found[STATUS]
        time: Value | Flagged = epoch_of(found[:7])
        if status & OSF:
            time = Flagged(None, Flag.POWER_ON_VALUE)
        elif time is None:
            time = Flagged(None, Flag.OUT_OF_RANGE)
        raw = int.from_bytes(found[0x11:0x13], "big", signed=True)
        # A chip that has just got its power shows zero until its first conversion has ended
        temperature = Flagged(None, Flag.NOT_READY) if raw == 0 and status & BUSY else raw / 256
        return {"time": time, "temperature": temperature, "lost_power": bool(status & OSF)}

    def do(self, action: str, args: Mapping[str, Value]) -> None:
        if action != "set_time":
            super().do(action, args)
        seconds = args["time"]
        if not is_number(seconds):
            raise DriverError(f"set_time needs time as epoch seconds, not {seconds!r}")
        if not EARLIEST_S <= seconds <= LATEST_S:
            raise DriverError(f"the clock holds the years 2000 to 2199, not {seconds!r}")
        self._set_time(round(seconds))

    def _set_time(self, seconds: int) -> None:
        address = self.config.address
        # Alarms compare hours in the mode they were set in, so the mode stays
        twelve_hour = bool(self.bus.read_u8(address, HOURS) & TWELVE_HOUR)
        self.bus.write(address, TIME, registers_of(seconds, twelve_hour=twelve_hour))
        status = self.bus.read_u8(address, STATUS)
        self.bus.write_u8(address, STATUS, status & ~OSF | ALARM_FLAGS)
        found = self.read()
        now = found["time"]
        if not isinstance(now, int) or not 0 <= now - seconds <= 2:
            raise DriverError(
                f"DS3231 at {address:#04x} was set to {seconds} and shows {now}; check its crystal and supply"
            )


def epoch_of(registers: bytes) -> int | None:
    """Epoch seconds of the seven time registers; None for what is no time (noise may look like BCD)."""
    second, minute, hour, _, day, month, year = registers
    twelve_hour = bool(hour & TWELVE_HOUR)
    hours = _bcd(hour & (0x1F if twelve_hour else 0x3F))
    parts = (_bcd(year), _bcd(month & 0x1F), _bcd(day), hours, _bcd(minute), _bcd(second))
    if any(part is None for part in parts):
        return None
    years, months, days, hours, minutes, seconds = (part or 0 for part in parts)
    if twelve_hour:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if hour & PM else 0)
    century = 2100 if month & CENTURY else 2000
    try:
        moment = datetime(century + years, months, days, hours, minutes, seconds, tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp())


def registers_of(epoch_s: int, *, twelve_hour: bool = False) -> bytes:
    """The seven time registers; Monday is day 1."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=epoch_s)  # beyond 2038 everywhere
    hour = _to_bcd(moment.hour)
    if twelve_hour:
        hour = TWELVE_HOUR | (PM if moment.hour >= 12 else 0) | _to_bcd(moment.hour % 12 or 12)
    month = _to_bcd(moment.month) | (CENTURY if moment.year >= 2100 else 0)
    return bytes(
        (
            _to_bcd(moment.second),
            _to_bcd(moment.minute),
            hour,
            moment.isoweekday(),
            _to_bcd(moment.day),
            month,
            _to_bcd(moment.year % 100),
        )
    )


def _bcd(value: int) -> int | None:
    tens, units = value >> 4, value & 0xF
    return None if tens > 9 or units > 9 else tens * 10 + units


def _to_bcd(value: int) -> int:
    return value // 10 << 4 | value % 10
