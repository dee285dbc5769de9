"""What a driver returned, made fit to be told: calibrated, finite, in range; else null with a flag."""

import math
from collections.abc import Iterable

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
            if calibration is not None and (calibration.scale or calibration.offset):
                value = _calibrated(name, value, calibration)
            value, doubt = _checked(point, value)
            flag = flag or doubt
        clean[name] = value
        if flag is not None:
            flags[name] = flag
    return clean, flags


def _calibrated(name: str, value: float, config: DriverConfig) -> float:
    scale, offset = config.scale.get(name), config.offset.get(name)
    if scale is None and offset is None:
        return value
    return value * (1.0 if scale is None else scale) + (offset or 0.0)


def _checked(point: Point, value: float) -> tuple[float | None, Flag | None]:
    if (
        not math.isfinite(value)
        or (point.low is not None and value < point.low)
        or (point.high is not None and value > point.high)
    ):
        return None, Flag.OUT_OF_RANGE
    return (round(value, DECIMALS) if isinstance(value, float) else value), None
