"""Ticks of a chart's axes, at round numbers and round times."""

import math
from datetime import datetime, timedelta

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400
TIME_STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(minutes * MINUTE_S for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * HOUR_S for hours in (1, 2, 3, 6, 12)),
    *(days * DAY_S for days in (1, 2, 7, 14, 30, 90, 365)),
)


def round_step_s(span_s: float, rows: int) -> int:
    """The shortest round time step that divides a span into at most so many rows."""
    return next((step for step in TIME_STEPS_S if span_s / step <= rows), TIME_STEPS_S[-1])


def value_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` multiples of 1, 2 or 5 that cover the values; the first and last are the axis's ends."""
    if high <= low:
        pad = abs(low) * 0.01 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if raw <= power * factor * 1.000001)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def time_ticks(from_ms: int, to_ms: int, count: int = 8) -> list[tuple[int, str]]:
    """Round local times (epoch ms) with their labels; the first of a day has the date."""
    step_s = round_step_s((to_ms - from_ms) / 1000, count)
    start = datetime.fromtimestamp(from_ms / 1000)
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    ticks: list[tuple[int, str]] = []
    day = None
    number = math.ceil((start - midnight).total_seconds() / step_s)
    while len(ticks) <= 4 * count:
        # Local wall clock time, so that a day with a change of summer time has its ticks at round hours too.
        at = midnight + timedelta(seconds=number * step_s)
        at_ms = round(at.timestamp() * 1000)
        if at_ms > to_ms:
            break
        new_day = at.date() != day
        ticks.append((at_ms, _label(at, step_s, new_day=new_day)))
        day, number = at.date(), number + 1
    return ticks


def _label(at: datetime, step_s: int, *, new_day: bool) -> str:
    date = f"{at.day} {at:%b}"
    if step_s >= 28 * DAY_S:
        return f"{at:%b %Y}"
    if step_s >= DAY_S:
        return date
    time = f"{at:%H:%M:%S}" if step_s < MINUTE_S else f"{at:%H:%M}"
    return f"{time}\n{date}" if new_day else time


def number_text(value: float, step: float) -> str:
    """A value with as many decimals as its axis needs."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.3g}"
