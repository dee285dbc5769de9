"""A DS3231 by its data sheet: it runs, also on battery; without one a power cut sets the stop flag."""

from datetime import UTC, datetime, timedelta

from device_agent.testing.chips import RegisterChip

TIME_REGISTERS, HOURS, CONTROL, STATUS, TEMPERATURE = range(7), 0x02, 0x0E, 0x0F, 0x11
OSF, EN32KHZ, BUSY, ALARMS = 0x80, 0x08, 0x04, 0x03
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = 946_684_800.0


class SimulatedDs3231(RegisterChip):
    """Quantities: time (epoch, s), temperature (Cel), battery (bool)."""

    def __init__(self, address: int = 0x68) -> None:
        self.running = True
        """False: the registers stand still, as with the oscillator off."""
        self._began_s: float | None = None
        super().__init__(
            {CONTROL: b"\x1c\x08\x00", TEMPERATURE: b"\0\0"},
            {"time": 1_767_225_600.0, "temperature": 21.5, "battery": True},
            read_only=(TEMPERATURE, TEMPERATURE + 1),
        )
        self.address = address

    def changed(self, quantity: str) -> None:
        if quantity == "time":
            self._began_s = None

    def reset(self) -> None:
        if self.written and self._quantities["battery"]:
            return
        super().reset()
        if not self._quantities["battery"]:
            self[STATUS] = OSF | EN32KHZ
            self._quantities["time"] = FIRST_DAY
            self._began_s = None

    def transfer(self, write: bytes, read_size: int) -> bytes:
        if self._began_s is None:
            self._began_s = self.now_s()
        if self.running:
            self._show()
        quarters = round(float(self._quantities["temperature"]) * 4)
        self.put(TEMPERATURE, (quarters * 64).to_bytes(2, "big", signed=True))
        answer = super().transfer(write, read_size)
        if len(write) > 1 and write[0] in TIME_REGISTERS:
            self._take_time()
        return answer

    def on_write(self, register: int, value: int) -> int:
        if register == STATUS:
            kept = self[STATUS]
            return kept & (OSF | ALARMS) & value | value & EN32KHZ | kept & BUSY
        return value

    def _show(self) -> None:
        assert self._began_s is not None
        elapsed_s = self.now_s() - self._began_s
        now = EPOCH + timedelta(seconds=int(float(self._quantities["time"]) + elapsed_s))
        hour = _bcd(f"{now.hour:02}")
        if self[HOURS] & 0x40:
            hour = _bcd(f"{now.hour % 12 or 12:02}") | (0x60 if now.hour >= 12 else 0x40)
        century = 0x80 if now.year >= 2100 else 0
        self.put(
            0,
            bytes(
                (
                    _bcd(f"{now.second:02}"),
                    _bcd(f"{now.minute:02}"),
                    hour,
                    now.isoweekday(),
                    _bcd(f"{now.day:02}"),
                    _bcd(f"{now.month:02}") | century,
                    _bcd(f"{now.year % 100:02}"),
                )
            ),
        )

    def _take_time(self) -> None:
        """Run on from what the host has written; what is no time stands still."""
        second, minute, hour, _, day, month, year = self.get(0, 7)
        twelve_hour = hour & 0x40
        try:
            hours = _digits(hour & (0x1F if twelve_hour else 0x3F))
            if twelve_hour:
                hours = hours % 12 + (12 if hour & 0x20 else 0)
            now = datetime(
                _digits(year) + (2100 if month & 0x80 else 2000),
                _digits(month & 0x1F),
                _digits(day),
                hours,
                _digits(minute),
                _digits(second),
                tzinfo=UTC,
            )
        except ValueError:
            self.running = False
            return
        self._quantities["time"] = now.timestamp()
        self._began_s = self.now_s()
        self.running = True


def _digits(value: int) -> int:
    return int(f"{value:02x}")


def _bcd(digits: str) -> int:
    return int(digits, 16)
