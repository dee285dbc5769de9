"""From what a driver returns to a Reading: calibrated, checked against its range, with time and flags."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from device_agent.clock import Clock
from device_agent.config.calibration import calibrated, calibrated_points
from device_agent.devices.staleness import Staleness
from device_agent.driver import Driver, DriverConfig
from device_agent.records import Dated, Flag, Flagged, Point, Reading, Value, Values, is_number, rounded

# What small devices' clocks may be ahead of ours.
AHEAD_S = 60.0

Wall = tuple[int, bool]
"""Epoch milliseconds, and whether the clock was set by then (else the events say `clock: unset`)."""


class ReadingBuilder:
    """Makes the readings of one device, on the event loop. `points` are as callers see them: calibrated."""

    def __init__(
        self, device: str, driver: type[Driver[Any, Any]], config: DriverConfig, clock: Clock
    ) -> None:
        points = calibrated_points(driver.points_of(config), config)
        self.points: dict[str, Point] = {point.name: point for point in points}
        self.staleness = Staleness(self.points, driver, config)
        self._device = device
        self._calibration = config if config.scale or config.offset or config.calibration else None
        self._clock = clock

    def wall(self, monotonic_s: float) -> Wall:
        """The wall clock at that instant."""
        now_s, offset_ms = self._clock.monotonic_s(), self._clock.offset_ms()
        at_ms = round(now_s * 1000) - max(0, round((now_s - monotonic_s) * 1000))
        return at_ms + (offset_ms or 0), offset_ms is not None

    def measured(
        self, values: Values, at_s: float, wall: Wall | None = None, before: Values | None = None
    ) -> Reading:
        """Values that the device gave at `at_s` (monotonic); `wall` is the same instant, if it is known.

        `before` has the points that it gave earlier: they are repeated, and each keeps its own age. Where the
        device dated its values, that counts as far as it can be true.
        """
        clean, flags = checked(
            self.points.values(), values if before is None else {**before, **values}, self._calibration
        )
        age_s = self._age_s(values, at_s) if isinstance(values, Dated) else 0.0
        if age_s is None:
            flags |= {name: Flag.UNDATED for name in values if clean.get(name) is not None}
        elif age_s > 0:
            at_s -= age_s
            wall = self.wall(at_s)
            if self.staleness.late(values, at_s, age_s):
                flags |= {name: Flag.STALE for name in clean if name not in values}
                return Reading(self._device, wall[0], clean, flags, at_s, past=True)
        speaks_again = self.staleness.measured(clean, flags, at_s, values.keys())
        at_ms, clock_set = wall or self.wall(at_s)
        silence: Literal["", "ended"] = "ended" if speaks_again else ""
        return Reading(self._device, at_ms, clean, flags, at_s, clock_set, silence=silence)

    def _age_s(self, values: Dated, came_s: float) -> float | None:
        """How old they were when they came; 0 while nobody knows the time, None for what cannot be true."""
        offset_ms = self._clock.offset_ms()
        if offset_ms is None:
            return 0.0
        age_s = -math.inf if values.at_ms is None else came_s - (values.at_ms - offset_ms) / 1000
        return max(0.0, age_s) if -AHEAD_S <= age_s <= values.max_age_s else None

    def present(self, values: Values | None) -> Reading:
        """The last values again, dated now; once they are all stale, dated when the device last reported."""
        now_s = self._clock.monotonic_s()
        clean, flags = checked(self.points.values(), values or {}, self._calibration)
        self.staleness.flag(clean, flags)
        last_s = self.staleness.last_s()
        at_s = last_s if self.staleness.silent and values is not None and last_s is not None else now_s
        at_ms, clock_set = self.wall(at_s)
        return Reading(self._device, at_ms, clean, flags, at_s, clock_set)

    def commanded(self, values: Mapping[str, Value], latest: Reading | None) -> Reading:
        """What a command has set, beside the latest values of the other points."""
        known: dict[str, Value | Flagged] = {}
        if latest is not None:
            doubts = latest.flags
            known = {n: Flagged(v, doubts[n]) if n in doubts else v for n, v in latest.values.items()}
        known.update({name: value for name, value in values.items() if name in self.points})
        now_s = self._clock.monotonic_s()
        clean, flags = checked(self.points.values(), known, None)
        at_ms, clock_set = self.wall(now_s)
        return Reading(self._device, at_ms, clean, flags, now_s, clock_set, at_once=True)


_MISSING = Flagged(None, Flag.NO_ANSWER)


def checked(
    points: Iterable[Point], values: Values, calibration: DriverConfig | None
) -> tuple[dict[str, Value], dict[str, Flag]]:
    """All points with values, and the flags of those in doubt. `calibration` is None for what was set."""
    clean: dict[str, Value] = {}
    flags: dict[str, Flag] = {}
    for point in points:
        name = point.name
        raw = values.get(name, _MISSING)
        value, flag = (raw.value, raw.flag) if isinstance(raw, Flagged) else (raw, None)
        if is_number(value):
            value, doubt = _measured(point, value, calibration)
            flag = flag or doubt
        elif not _can_be_sent(value):
            value, flag = None, flag or Flag.NO_ANSWER
        clean[name] = value
        if flag is not None:
            flags[name] = flag
    return clean, flags


def _measured(
    point: Point, value: float, calibration: DriverConfig | None
) -> tuple[float | None, Flag | None]:
    try:
        if calibration is not None:
            value = calibrated(point.name, value, calibration)
        finite = math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return None, Flag.OVERFLOW
    low, high = point.low, point.high
    if not finite or (low is not None and value < low) or (high is not None and value > high):
        return None, Flag.OUT_OF_RANGE
    return (rounded(value) if isinstance(value, float) else value), None


def _can_be_sent(value: Value) -> bool:
    """Whether it is of a type that an event can carry, and text that can be encoded."""
    if not isinstance(value, str):
        return value is None or isinstance(value, bool)
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
