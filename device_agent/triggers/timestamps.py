"""Instants that stay valid across a reboot, their ages, and the waits that follow from them.

Within one boot the monotonic clock counts. Across a reboot the wall clock does, if it was set at both
instants; otherwise an instant is taken as the time of this boot, the latest that it can have been.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from device_agent.clock import Clock

DAY_S = 86_400.0
# A board that was off at the time of day still acts when it starts within this.
LATE_S = 3600.0


class Stamp(NamedTuple):
    """An instant. `wall_ms` is 0 where the wall clock was not set."""

    boot: str
    at_s: float
    wall_ms: int


def stamp(clock: Clock) -> Stamp:
    return Stamp(clock.boot, clock.monotonic_s(), clock.now_ms() if clock.is_set() else 0)


def age_s(then: Stamp, clock: Clock) -> float:
    """Seconds since then; never less than the time since boot for an instant before it."""
    now_s = clock.monotonic_s()
    if then.boot == clock.boot:
        return max(0.0, now_s - then.at_s)
    if then.wall_ms and clock.is_set():
        return max(now_s, (clock.now_ms() - then.wall_ms) / 1000)
    return now_s


def wait_s(times: Sequence[Stamp], min_interval_s: float, max_per_day: int, clock: Clock) -> float:
    """How long the owner's limits forbid the next time; 0 if they do not."""
    if not times:
        return 0.0
    waits = [min_interval_s - age_s(times[-1], clock)]
    if len(times) >= max_per_day:
        waits.append(DAY_S - age_s(times[-max_per_day], clock))
    return max(0.0, *waits)


def today(at: str, clock: Clock) -> tuple[str, bool]:
    """The local date, and whether the time of day `at` was reached within the last hour.

    ("", False) while the clock is not set.
    """
    if not clock.is_set():
        return "", False
    now = datetime.fromtimestamp(clock.now_ms() / 1000)
    hour, minute = map(int, at.split(":"))
    since_s = (now - now.replace(hour=hour, minute=minute, second=0, microsecond=0)).total_seconds()
    return now.date().isoformat(), 0 <= since_s < LATE_S
