"""Ages and waits across reboots and clock jumps, and the time of day."""

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.testing import SteppedClock
from device_agent.triggers.timestamps import Stamp, age_s, stamp, today, wait_s

LIMITS = (100, 3)


def test_the_owners_limits() -> None:
    clock = SteppedClock()
    asks: list[Stamp] = []
    assert wait_s(asks, *LIMITS, clock) == 0
    for _ in range(3):
        asks.append(stamp(clock))
        assert wait_s(asks, *LIMITS, clock) in (100, 86_400 - 200)
        clock.step(100)
    assert wait_s(asks, *LIMITS, clock) == 86_400 - 300
    clock.step(86_400 - 300)
    assert wait_s(asks, *LIMITS, clock) == 0


def test_ages_across_a_reboot() -> None:
    clock = SteppedClock(monotonic_s=50)
    hour_ago = Stamp("before", 9999, clock.now_ms() - 3_600_000)
    assert age_s(hour_ago, clock) == 3600
    assert age_s(Stamp("before", 9999, 0), clock) == 50
    assert age_s(Stamp("before", 9999, clock.now_ms() + 10**9), clock) == 50
    unset = SteppedClock(monotonic_s=50, now_ms=0)
    assert age_s(hour_ago, unset) == 50
    assert stamp(unset) == Stamp(unset.boot, 50, 0)


def test_a_wall_clock_that_jumps_changes_no_wait() -> None:
    clock = SteppedClock()
    asks = [stamp(clock)]
    clock.set_wall(clock.now_ms() + 10**10)
    assert wait_s(asks, *LIMITS, clock) == 100


def test_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    clock = SteppedClock(now_ms=EARLIEST_TRUE_MS)
    assert today("06:00", clock) == ("2026-01-01", False)
    clock.step(6 * 3600 - 1)
    assert today("06:00", clock)[1] is False
    clock.step(1)
    assert today("06:00", clock) == ("2026-01-01", True)
    clock.step(3599)
    assert today("06:00", clock)[1] is True
    clock.step(1)
    assert today("06:00", clock)[1] is False
    assert today("06:00", SteppedClock(now_ms=0)) == ("", False)
