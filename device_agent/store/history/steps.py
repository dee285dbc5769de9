"""Steps of time into which readings are gathered."""

from collections.abc import Iterable
from datetime import date, datetime

from device_agent.records import time_zone

DAY_MS = 86_400_000
FIRST_DAY = date(1970, 1, 1).toordinal()


class FixedSteps:
    """Steps of one length, from whole multiples of it since 1970 on."""

    def __init__(self, step_ms: int) -> None:
        self.step_ms = step_ms

    def numbers(self, at_ms: Iterable[int]) -> list[int]:
        """Which step each of these instants is in."""
        step_ms = self.step_ms
        return [at // step_ms for at in at_ms]

    def begin_ms(self, number: int) -> int:
        """The instant at which a step begins."""
        return number * self.step_ms


class LocalDays(FixedSteps):
    """Steps of so many days of a time zone: a day has 23 or 25 hours when its clocks are changed."""

    def __init__(self, zone: str, days: int) -> None:
        """Raises ValueError for a zone that there is not."""
        super().__init__(days * DAY_MS)
        self._zone = time_zone(zone)
        self._days = days
        self._number = self._begin_ms = self._end_ms = 0

    def numbers(self, at_ms: Iterable[int]) -> list[int]:
        return [self._number if self._begin_ms <= at < self._end_ms else self._find(at) for at in at_ms]

    def _find(self, at_ms: int) -> int:
        day = datetime.fromtimestamp(at_ms / 1000, self._zone).toordinal()
        self._number = (day - FIRST_DAY) // self._days
        self._begin_ms, self._end_ms = self.begin_ms(self._number), self.begin_ms(self._number + 1)
        return self._number

    def begin_ms(self, number: int) -> int:
        day = date.fromordinal(FIRST_DAY + number * self._days)
        return round(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp() * 1000)
