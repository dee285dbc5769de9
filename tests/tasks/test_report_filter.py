"""Which readings an events stream passes on."""

from typing import Any

import pytest

from device_agent.records import Flag, Reading, Value
from device_agent.tasks.report_filter import ReportFilter


def reading(at_s: float, on: bool, *, at_once: bool = False) -> Reading:
    return Reading("valve", round(at_s * 1000), {"on": on}, monotonic_s=at_s, at_once=at_once)


def flagged(flags: dict[str, Flag] | None = None, **more: Any) -> Reading:
    return Reading("scale", 0, {"weight": 1.0}, flags or {}, **more)


def test_what_comes_before_its_turn_waits_for_the_next() -> None:
    rule = ReportFilter(every_s=10.0)
    assert rule.passes(reading(0.0, False))
    assert not rule.passes(reading(5.0, False))
    assert rule.passes(reading(9.5, False)), "a poll that is a little early is the turn's"


def test_the_interval_counts_from_the_last_reading_that_passed() -> None:
    rule = ReportFilter(every_s=10.0)
    assert rule.passes(reading(0.0, False))
    assert not rule.passes(reading(8.9, False)), "just outside the tolerated tenth"
    assert rule.passes(reading(12.0, False))
    assert not rule.passes(reading(20.0, False))
    assert rule.passes(reading(21.0, False))


def test_without_an_interval_each_reading_passes() -> None:
    rule = ReportFilter()
    assert all(rule.passes(reading(at_s, False)) for at_s in (0.0, 0.0, 0.001))


def test_what_a_command_changed_does_not_wait() -> None:
    rule = ReportFilter(every_s=10.0)
    assert rule.passes(reading(0.0, False))
    assert rule.passes(reading(1.0, True, at_once=True))


def test_a_command_that_changed_nothing_is_no_change() -> None:
    rule = ReportFilter(every_s=10.0, on_change=True)
    assert rule.passes(reading(0.0, True))
    assert not rule.passes(reading(1.0, True, at_once=True))
    assert rule.passes(reading(2.0, False, at_once=True))


def test_a_device_that_falls_silent_is_reported_at_once() -> None:
    rule = ReportFilter(every_s=10.0, on_change=True)
    assert rule.passes(flagged())
    assert rule.passes(flagged({"weight": Flag.STALE}, monotonic_s=1.0, silence="began"))
    assert rule.passes(flagged(monotonic_s=2.0, silence="ended"))


def test_flags_that_change_pass_where_only_changes_do() -> None:
    rule = ReportFilter(on_change=True)
    assert rule.passes(flagged())
    assert not rule.passes(flagged())
    assert rule.passes(flagged({"weight": Flag.FROZEN}))
    assert not rule.passes(flagged({"weight": Flag.FROZEN}))
    assert rule.passes(flagged())


@pytest.mark.parametrize(
    ("dead_band", "before", "now", "passes"),
    [
        (0.5, 20.0, 20.5, False),
        (0.5, 20.0, 20.51, True),
        (0.5, 20, 19, True),
        ({"value": 2.0}, 20.0, 22.0, False),
        ({"another": 2.0}, 20.0, 20.1, True),
        (5.0, False, True, True),
        ({"another": 2.0}, False, True, True),
        ({"value": 1.0}, True, False, False),
        (5.0, "low", "high", True),
        (5.0, None, 1.0, True),
    ],
)
def test_a_change_is_more_than_the_dead_band(dead_band: Any, before: Value, now: Value, passes: bool) -> None:
    rule = ReportFilter(on_change=True, dead_band=dead_band)
    assert rule.passes(Reading("probe", 0, {"value": before}))
    assert rule.passes(Reading("probe", 1, {"value": now})) is passes


def test_slow_drift_is_measured_from_the_last_reading_that_passed() -> None:
    rule = ReportFilter(on_change=True, dead_band=1.0)
    passed = [value for value in range(10) if rule.passes(Reading("probe", 0, {"value": value * 0.4}))]
    assert passed == [0, 3, 6, 9]


def test_a_reading_sent_by_other_means_counts() -> None:
    rule = ReportFilter(every_s=10.0)
    rule.remember(reading(0.0, False))
    assert not rule.passes(reading(1.0, False))
