"""What a driver returned, made fit to be told: calibrated, finite, in range; else null with a flag."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from device_agent.driver import DriverConfig
from device_agent.records import Flag, Flagged, Point, Value, Values

# Six decimals keep what any converter resolves and drop the binary dust of floating point.
DECIMALS = 6
_MISSING = Flagged(None, Flag.NO_ANSWER)


def believable(
    points: Iterable[Point], values: Values, calibration: DriverConfig | None
) -> tuple[dict[str, Value], dict[str, Flag]]:
    """All points with values, and the flags of those in doubt. `calibration` is None for what was set."""
    clean: dict[str, Value] = {}
    flags: dict[str, Flag] = {}
    for point in points:
        name = point.name
        given = values.get(name, _MISSING)
        flag: Flag | None = None
        if isinstance(given, Flagged):
            value, flag = given.value, given.flag
        else:
            value = given
        # Booleans are integers to Python, and a bool is neither calibrated nor out of range.
        if isinstance(value, (int, float)) and value is not True and value is not False:
            if calibration is not None and (
                calibration.scale or calibration.offset or calibration.calibration
            ):
                value = _calibrated(name, value, calibration)
            value, doubt = _checked(point, value)
            flag = flag or doubt
        clean[name] = value
        if flag is not None:
            flags[name] = flag
    return clean, flags


def calibrated_points(points: Iterable[Point], config: DriverConfig) -> tuple[Point, ...]:
    """The points as callers see them: what bounds the chip's value bounds the calibrated one elsewhere."""
    return tuple(
        _moved(point, config) if point.name in {*config.scale, *config.offset, *config.calibration} else point
        for point in points
    )


def _moved(point: Point, config: DriverConfig) -> Point:
    """A point with its bounds calibrated; one that is falling there swaps them."""
    ends = [None if end is None else _calibrated(point.name, end, config) for end in (point.low, point.high)]
    low, high = ends[::-1] if _falls(point.name, config) else ends
    inner = [true for _, true in config.calibration.get(point.name, ())]
    # A table need not rise all along: what it can yield lies between its own values too.
    return replace(
        point,
        low=None if low is None else min(low, *inner, math.inf),
        high=None if high is None else max(high, *inner, -math.inf),
    )


def _falls(name: str, config: DriverConfig) -> bool:
    pairs = config.calibration.get(name)
    return pairs[-1][1] < pairs[0][1] if pairs else config.scale.get(name, 1.0) < 0


def _calibrated(name: str, value: float, config: DriverConfig) -> float:
    if pairs := config.calibration.get(name):
        return interpolated(pairs, value)
    scale, offset = config.scale.get(name), config.offset.get(name)
    if scale is None and offset is None:
        return value
    return value * (1.0 if scale is None else scale) + (offset or 0.0)


def interpolated(pairs: Sequence[tuple[float, float]], value: float) -> float:
    """On the straight lines through these pairs, whose first members rise; the outer lines go on."""
    after = min(max(1, bisect_right(pairs, value, key=lambda pair: pair[0])), len(pairs) - 1)
    (x0, y0), (x1, y1) = pairs[after - 1], pairs[after]
    return y0 + (value - x0) * (y1 - y0) / (x1 - x0)


def _checked(point: Point, value: float) -> tuple[float | None, Flag | None]:
    if (
        not math.isfinite(value)
        or (point.low is not None and value < point.low)
        or (point.high is not None and value > point.high)
    ):
        return None, Flag.OUT_OF_RANGE
    return (round(value, DECIMALS) if isinstance(value, float) else value), None


def same_value(read: Value, wanted: Value) -> bool:
    """Equal, or equal within what a converter's steps can hold."""
    numbers = (int, float)
    if isinstance(read, numbers) and isinstance(wanted, numbers) and not isinstance(read, bool):
        return abs(read - wanted) <= 1e-3 * max(1.0, abs(wanted))
    return read == wanted
