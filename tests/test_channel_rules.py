"""What passes an events stream: each device on its own beat, and what a command changed at once."""

from device_agent.records import Reading
from device_agent.tasks.subscription import ReportFilter


def reading(at_s: float, on: bool, *, at_once: bool = False) -> Reading:
    return Reading("valve", round(at_s * 1000), {"on": on}, monotonic_s=at_s, at_once=at_once)


def test_what_comes_before_its_turn_waits_for_the_next() -> None:
    rule = ReportFilter(every_s=10.0)
    assert rule.passes(reading(0.0, False))
    assert not rule.passes(reading(5.0, False))
    assert rule.passes(reading(9.5, False)), "a poll that is a little early is the turn's"


def test_what_a_command_changed_does_not_wait() -> None:
    rule = ReportFilter(every_s=10.0)
    assert rule.passes(reading(0.0, False))
    assert rule.passes(reading(1.0, True, at_once=True))


def test_a_command_that_changed_nothing_is_no_change() -> None:
    rule = ReportFilter(every_s=10.0, on_change=True)
    assert rule.passes(reading(0.0, True))
    assert not rule.passes(reading(1.0, True, at_once=True))
    assert rule.passes(reading(2.0, False, at_once=True))
