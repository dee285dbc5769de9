"""Which readings of a device an open stream passes on: how often, and from which change on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_agent.records import Flag, Reading, Value, is_number

# A reading that comes a little before it is due (a poll's jitter) counts as due.
EARLY_SHARE = 0.1


@dataclass(slots=True)
class ReportFilter:
    """Filters the readings of one device for one stream.

    `every_s`: seconds between readings, None for each of them. `on_change`: only those that differ from the
    one before by more than `dead_band`, one for all points or one by point. Readings that a command caused
    (`at_once`), and those that tell of a device falling silent, do not wait for `every_s`.
    """

    every_s: float | None = None
    on_change: bool = False
    dead_band: float | dict[str, float] = 0.0
    last_s: float | None = None
    last: Mapping[str, Value] | None = None
    last_flags: Mapping[str, Flag] = field(default_factory=dict)

    def passes(self, reading: Reading) -> bool:
        """Whether this reading is due; remembers it if so."""
        if not self._is_due(reading) or (self.on_change and not self._has_changed(reading)):
            return False
        self.remember(reading)
        return True

    def remember(self, reading: Reading) -> None:
        """This reading went out."""
        self.last_s, self.last, self.last_flags = reading.monotonic_s, reading.values, reading.flags

    def _is_due(self, reading: Reading) -> bool:
        if self.last_s is None or self.every_s is None or reading.at_once or reading.silence:
            return True
        return reading.monotonic_s - self.last_s >= self.every_s * (1 - EARLY_SHARE)

    def _has_changed(self, reading: Reading) -> bool:
        if self.last is None or reading.silence:
            return True
        return reading.flags != self.last_flags or any(
            self._differs(name, self.last.get(name), value) for name, value in reading.values.items()
        )

    def _differs(self, name: str, before: Value | None, now: Value) -> bool:
        if isinstance(self.dead_band, dict):
            band = self.dead_band.get(name, 0.0)
        else:
            band = self.dead_band if is_number(now) else 0.0
        if isinstance(before, int | float) and isinstance(now, int | float):
            return abs(now - before) > band  # off and on differ by 1
        return before != now
