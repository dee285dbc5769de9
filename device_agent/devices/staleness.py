"""Flags that values get by time alone: `stale` for too old, `frozen` for unchanged for too long."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from device_agent.driver import Driver, DriverConfig, Listener
from device_agent.records import Flag, Point, Value

# Two equal readings in a row of a slow device do not make a chip that is frozen.
STILL_READINGS = 10


@dataclass(slots=True)
class _Unchanged:
    """How long a value has been the same."""

    value: Value
    since_s: float
    readings: int = 1


class Staleness:
    """Of one device's points. Times are seconds of the monotonic clock; nothing here waits."""

    def __init__(
        self, points: Mapping[str, Point], driver: type[Driver[Any, Any]], config: DriverConfig
    ) -> None:
        self.stale: set[str] = set()
        self.frozen: set[str] = set()
        self._stale_s = _stale_limits(points, driver, config)
        self._still_s = _still_limits(points, config)
        self._last_s: dict[str, float] = {}
        self._still: dict[str, _Unchanged] = {}

    def begin(self, now_s: float) -> None:
        """The device was opened: everything counts from here."""
        self.stale.clear()
        self.frozen.clear()
        self._still.clear()
        self._last_s = dict.fromkeys(self._stale_s, now_s)

    def measured(
        self, values: Mapping[str, Value], flags: dict[str, Flag], now_s: float, fresh: Collection[str]
    ) -> bool:
        """The device gave the `fresh` ones of these values now; puts the flags of time into `flags`.

        True when a point has a value again that was stale.
        """
        before = len(self.stale)
        for name in fresh:
            if name in self._last_s and flags.get(name) not in (Flag.STALE, Flag.NOT_READY):
                self._last_s[name] = now_s
                self.stale.discard(name)
            if name in self._still_s:
                self._note_value(name, values.get(name), self._still_s[name], now_s)
        if self.stale or self.frozen:
            self.flag(values, flags)
        return len(self.stale) < before

    def late(self, fresh: Collection[str], at_s: float, age_s: float) -> bool:
        """Whether one of the `fresh` points, given now and measured at `at_s`, is too old already.

        If so each is as old as that, whatever was given before.
        """
        late = any(age_s >= self._stale_s.get(name, math.inf) for name in fresh)
        if late:
            self._last_s |= dict.fromkeys(self._last_s.keys() & set(fresh), at_s)
        return late

    def _note_value(self, name: str, value: Value, limit_s: float, now_s: float) -> None:
        still = self._still.get(name)
        if still is None or still.value != value or value is None:
            self._still[name] = _Unchanged(value, now_s)
            self.frozen.discard(name)
            return
        still.readings += 1
        if still.readings >= STILL_READINGS and now_s - still.since_s >= limit_s:
            self.frozen.add(name)

    def flag(self, values: Mapping[str, Value], flags: dict[str, Flag]) -> None:
        """Put the flags of time into `flags`. A value that is null for another reason keeps its own flag."""
        for name in self.stale:
            if name in values and (values[name] is not None or flags.get(name) is Flag.NO_ANSWER):
                flags[name] = Flag.STALE
        for name in self.frozen:
            if values.get(name) is not None:
                flags.setdefault(name, Flag.FROZEN)

    def age(self, now_s: float) -> bool:
        """True when a point has become stale by now that was not before."""
        late = {name for name, at_s in self._last_s.items() if now_s - at_s >= self._stale_s[name]}
        new = late - self.stale
        self.stale |= new
        return bool(new)

    def due_s(self) -> float | None:
        """When the next point becomes stale, if the device says nothing until then; None for never."""
        waiting = self._last_s.keys() - self.stale
        return min((self._last_s[name] + self._stale_s[name] for name in waiting), default=None)

    def last_s(self) -> float | None:
        """When the device last gave a value (or was opened); None if no point can become stale."""
        return max(self._last_s.values(), default=None)

    @property
    def silent(self) -> bool:
        """Whether every point that can become stale is: there is nothing new to report."""
        return bool(self._last_s) and self.stale == self._last_s.keys()


def _stale_limits(
    points: Mapping[str, Point], driver: type[Driver[Any, Any]], config: DriverConfig
) -> dict[str, float]:
    """Only listeners become stale: what is polled fails instead."""
    if not issubclass(driver, Listener) or driver.bytes_side:
        return {}
    # Many devices never report what is written to them: those points are watched only if they are named.
    default = driver.default_stale_after_s
    defaults = {name: None if point.write else default for name, point in points.items()}
    return _limits(config.stale_after_s, defaults, {name for name, p in points.items() if not p.write})


def _still_limits(points: Mapping[str, Point], config: DriverConfig) -> dict[str, float]:
    defaults = {name: point.still_s for name, point in points.items()}
    measured = {n for n, p in points.items() if p.type in ("number", "integer") and not p.write}
    return _limits(config.frozen_after_s, defaults, measured)


def _limits(
    configured: float | dict[str, float] | None, defaults: Mapping[str, float | None], general: set[str]
) -> dict[str, float]:
    """Seconds by point, without those that have no limit. One number is for all points in `general`."""
    limits = dict(defaults)
    if isinstance(configured, dict):
        limits |= {name: limit_s for name, limit_s in configured.items() if name in defaults}
    elif configured is not None:
        limits = dict.fromkeys(general, configured)
    return {name: limit_s for name, limit_s in limits.items() if limit_s}
