"""A driver's values as the configuration says: scale and offset, or a table of pairs; unit, description."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from device_agent.driver import DriverConfig
from device_agent.records import Point


def calibrated_points(points: Iterable[Point], config: DriverConfig) -> tuple[Point, ...]:
    """The points as callers see them, with the bounds of the chip's values calibrated as well."""
    calibrated_names = {*config.scale, *config.offset, *config.calibration}
    return tuple(
        _named(_moved(point, config) if point.name in calibrated_names else point, config) for point in points
    )


def units_of(config: DriverConfig) -> Mapping[str, str]:
    """The units that the configuration gives by point; a driver may have another option of that name."""
    return config.unit if isinstance(config.unit, Mapping) else {}


def _named(point: Point, config: DriverConfig) -> Point:
    """With unit and description as configured. The driver's words do not fit another unit."""
    unit = units_of(config).get(point.name, point.unit)
    known = config.description if isinstance(config.description, Mapping) else {}
    default = point.description if unit == point.unit else ""
    return replace(point, unit=unit, description=known.get(point.name, default))


def _moved(point: Point, config: DriverConfig) -> Point:
    """A point with its bounds calibrated; a falling calibration swaps them."""
    ends = [None if end is None else calibrated(point.name, end, config) for end in (point.low, point.high)]
    low, high = ends[::-1] if _falls(point.name, config) else ends
    inner = [true for _, true in config.calibration.get(point.name, ())]
    # A table need not rise all along: what it can yield lies between its own values too.
    return replace(
        point,
        type=point.type if point.write else "number",
        low=None if low is None else min(low, *inner, math.inf),
        high=None if high is None else max(high, *inner, -math.inf),
    )


def _falls(name: str, config: DriverConfig) -> bool:
    pairs = config.calibration.get(name)
    return pairs[-1][1] < pairs[0][1] if pairs else config.scale.get(name, 1.0) < 0


def calibrated(name: str, value: float, config: DriverConfig) -> float:
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
