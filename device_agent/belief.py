"""What a driver returned, made fit to be told: calibrated, finite, in range; else null with a flag."""

import math
from collections.abc import Iterable

from device_agent.driver import DriverConfig
from device_agent.records import Flag, Flagged, Point, Value, Values

# Six decimals keep what any converter resolves and drop the binary dust of floating point.
DECIMALS = 6


def believable(
    points: Iterable[Point], values: Values, calibration: DriverConfig | None
) -> tuple[dict[str, Value], dict[str, Flag]]:
    """All points with values, and the flags of those in doubt. `calibration` is None for what was set."""
    clean: dict[str, Value] = {}
    flags: dict[str, Flag] = {}
    for point in points:
        given = values.get(point.name, Flagged(None, Flag.NO_ANSWER))
        value, flag = (given.value, given.flag) if isinstance(given, Flagged) else (given, None)
        if calibration is not None:
            value = _calibrated(point.name, value, calibration)
        value, doubt = _checked(point, value)
        clean[point.name] = value
        if doubt := flag or doubt:
            flags[point.name] = doubt
    return clean, flags


def _calibrated(name: str, value: Value, config: DriverConfig) -> Value:
    scale, offset = config.scale.get(name), config.offset.get(name)
    if value is None or isinstance(value, (bool, str)) or (scale is None and offset is None):
        return value
    return value * (1.0 if scale is None else scale) + (offset or 0.0)


def _checked(point: Point, value: Value) -> tuple[Value, Flag | None]:
    if value is None or isinstance(value, (bool, str)):
        return value, None
    low = -math.inf if point.low is None else point.low
    high = math.inf if point.high is None else point.high
    if not math.isfinite(value) or not low <= value <= high:
        return None, Flag.OUT_OF_RANGE
    return (round(value, DECIMALS) if isinstance(value, float) else value), None
