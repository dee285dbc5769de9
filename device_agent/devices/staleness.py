"""How far values may be trusted as time goes by: too old is `stale`, too still to be measured is `frozen`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_agent.driver import Driver, DriverConfig, Listener
from device_agent.records import Flag, Point, Value

# A slow beat must not make two equal readings in a row look like a chip that stands still.
STILL_READINGS = 10


@dataclass(slots=True)
class _Unchanged:
    """How long a value has been the same."""

    value: Value
    since_s: float
    readings: int = 1


class Staleness:
    """Of one device's points. Times are of the monotonic clock; nothing here waits."""

    def __init__(
        self, points: Mapping[str, Point], driver: type[Driver[Any, Any]], config: DriverConfig
    ) -> None:
        self.stale: set[str] = set()
        self.frozen: set[str] = set()
        self._stale_s = _stale_limits(points, driver, config)
        self._still_s = _still_limits(points, config)
        self._heard_s: dict[str, float] = {}
        self._still: dict[str, _Unchanged] = {}

    def begin(self, now_s: float) -> None:
        """The device was opened: silence and stillness count from here."""
        self.stale.clear()
        self.frozen.clear()
        self._still.clear()
        self._heard_s = dict.fromkeys(self._stale_s, now_s)

    def measured(self, values: Mapping[str, Value], flags: dict[str, Flag], now_s: float) -> bool:
        """The device gave these values now; what has stood still for too long gets its flag.

        True when a point is heard again that was stale.
        """
        before = len(self.stale)
        for name in self._heard_s:
            if flags.get(name) not in (Flag.STALE, Flag.NOT_READY):
                self._heard_s[name] = now_s
                self.stale.discard(name)
        for name, limit_s in self._still_s.items():
            self._look(name, values.get(name), limit_s, now_s)
        if self.stale or self.frozen:
            self.flag(values, flags)
        return len(self.stale) < before

    def _look(self, name: str, value: Value, limit_s: float, now_s: float) -> None:
        still = self._still.get(name)
        if still is None or still.value != value or value is None:
            self._still[name] = _Unchanged(value, now_s)
            self.frozen.discard(name)
            return
        still.readings += 1
        if still.readings >= STILL_READINGS and now_s - still.since_s >= limit_s:
            self.frozen.add(name)

    def flag(self, values: Mapping[str, Value], flags: dict[str, Flag]) -> None:
        """Put the flags of time to values that are told again. What is null for a reason keeps its own."""
        for name in self.stale:
            if name in values and (values[name] is not None or flags.get(name) is Flag.NO_ANSWER):
                flags[name] = Flag.STALE
        for name in self.frozen:
            if values.get(name) is not None:
                flags.setdefault(name, Flag.FROZEN)

    def age(self, now_s: float) -> bool:
        """True when a point has become stale by now that was not before."""
        late = {name for name, at_s in self._heard_s.items() if now_s - at_s >= self._stale_s[name]}
        new = late - self.stale
        self.stale |= new
        return bool(new)

    def due_s(self) -> float | None:
        """When the next point becomes stale, if nothing is heard until then."""
        waiting = self._heard_s.keys() - self.stale
        return min((self._heard_s[name] + self._stale_s[name] for name in waiting), default=None)

    def heard_s(self) -> float | None:
        """When the device was last heard (or opened), where that is watched."""
        return max(self._heard_s.values(), default=None)

    @property
    def silent(self) -> bool:
        """Whether everything that is watched is stale: there is nothing new to tell."""
        return bool(self._heard_s) and self.stale == self._heard_s.keys()


def _stale_limits(
    points: Mapping[str, Point], driver: type[Driver[Any, Any]], config: DriverConfig
) -> dict[str, float]:
    if not issubclass(driver, Listener) or driver.bytes_side:
        return {}
    given, default = config.stale_after_s, driver.default_stale_after_s
    found = {}
    for name, point in points.items():
        # What is written here is never heard from many far ends: only what was named is watched.
        general = None if point.write else default if given is None or isinstance(given, dict) else given
        limit_s = given.get(name, general) if isinstance(given, dict) else general
        if limit_s:
            found[name] = limit_s
    return found


def _still_limits(points: Mapping[str, Point], config: DriverConfig) -> dict[str, float]:
    given = config.frozen_after_s
    found = {}
    for name, point in points.items():
        measured = point.type in ("number", "integer") and not point.write
        general = point.still_s if given is None or isinstance(given, dict) else given if measured else None
        limit_s = given.get(name, general) if isinstance(given, dict) else general
        if limit_s:
            found[name] = limit_s
    return found
