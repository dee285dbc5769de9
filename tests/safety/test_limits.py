"""The limits of one device at their edges, each alone; `test_limits_model.py` drives them all together."""

from typing import Any

import pytest

from device_agent.driver import ActuatorConfig
from device_agent.errors import Interlocked, Rejected
from device_agent.safety.limits import HOUR_S, Interlocks, Limits
from device_agent.store.journal.safe_transitions import SafeTransition

SAFE = {"on": False, "level": 0}


def limits(interlocks: Interlocks | None = None, device: str = "valve", **options: Any) -> Limits:
    """Of a valve that was opened at 0 s."""
    config = ActuatorConfig(safe=False, **options)
    return Limits(device, config, SAFE, interlocks or Interlocks(), 0.0)


def refusal(of: Limits, at_s: float, **values: Any) -> str:
    """Code and sentence; empty if it is allowed."""
    try:
        of.check(values, at_s)
    except Rejected as rejected:
        return f"{rejected.code}: {rejected.message}"
    return ""


def test_a_rest_after_it_came_back_to_safe() -> None:
    valve = limits(min_off_s=30)
    assert refusal(valve, 0.0, on=True) == "", "at its start nothing is known of a time before"
    valve.applied({"on": True}, 1.0)
    assert refusal(valve, 2.0, on=True) == "", "it does not leave its safe value once more"
    valve.applied({"on": False}, 10.0)
    assert refusal(valve, 39.9, on=True) == "too_soon: valve.on must rest min_off_s = 30; wait 0.1 s"
    assert refusal(valve, 39.9, on=False) == "", "the safe value is always allowed"
    assert refusal(valve, 40.0, on=True) == ""


def test_so_many_times_an_hour() -> None:
    valve = limits(max_cycles_per_hour=2)
    for at_s in (0.0, 600.0):
        valve.applied({"on": True}, at_s)
        valve.applied({"on": False}, at_s + 1)
    assert refusal(valve, 1200.0, on=True) == (
        "too_soon: valve.on may leave its safe value 2 times an hour (max_cycles_per_hour); wait 2400 s"
    )
    assert refusal(valve, 1200.0, level=5) == "", "points are counted one by one"
    assert refusal(valve, HOUR_S, on=True) == ""


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (10, ""),
        (11, "out_of_range: valve.level may change by max_step = 10 at once; 0 to 11 is 11"),
        (0, ""),
    ],
)
def test_a_step_at_once(level: int, expected: str) -> None:
    assert refusal(limits(max_step=10), 100.0, level=level) == expected


def test_a_rate_of_change() -> None:
    valve = limits(max_rate_per_s=2)
    valve.applied({"level": 10}, 100.0)
    assert refusal(valve, 104.0, level=20) == (
        "too_soon: valve.level may change by max_rate_per_s = 2; wait 1.0 s"
    )
    assert refusal(valve, 105.0, level=20) == ""
    valve.applied({"level": 10}, 104.9)
    assert refusal(valve, 105.0, level=20) == "", "the same value again is no change"
    assert refusal(valve, 100.0, level=0) == "", "the way to safe is never slowed down"


def test_a_limit_of_numbers_does_not_stop_a_switch() -> None:
    assert refusal(limits(max_step=0.5, max_rate_per_s=0.01), 0.0, on=True) == ""


def test_the_deadline_counts_from_the_first_point_that_left() -> None:
    valve = limits(max_on_s=600)
    assert valve.deadline_s() is None
    valve.applied({"on": True}, 10.0)
    valve.applied({"level": 5}, 20.0)
    assert valve.deadline_s() == 610.0
    valve.applied({"on": False}, 30.0)
    assert valve.deadline_s() == 620.0
    assert limits().deadline_s() is None


def test_transitions_are_told_once() -> None:
    valve = limits()
    assert valve.applied({"on": True, "other": 1}, 1.0) == [SafeTransition("valve", "on", 1.0, True)]
    assert valve.applied({"on": True}, 2.0) == []
    assert valve.applied({"on": False}, 3.0) == [SafeTransition("valve", "on", 3.0, False)]


def test_what_is_unknown_is_away_until_it_is_set_safe() -> None:
    valve = limits(min_off_s=30)
    valve.applied({"on": True}, 1.0)
    assert valve.mark_unknown(2.0) == [SafeTransition("valve", "level", 2.0, True)]
    assert valve.mark_unknown(3.0) == []
    assert valve.away
    valve.applied({"on": False}, 4.0)
    assert valve.away
    valve.applied({"level": 0}, 5.0)
    assert not valve.away
    assert refusal(valve, 6.0, level=1).startswith("too_soon")


def test_of_an_interlock_only_one_is_away() -> None:
    interlocks = Interlocks()
    up = limits(interlocks, "up", interlock=["motor"])
    down = limits(interlocks, "down", interlock=["motor", "power"])
    up.applied({"on": True}, 1.0)
    with pytest.raises(Interlocked) as refused:
        down.check({"on": True}, 2.0)
    assert refused.value.other == "up"
    assert refusal(down, 2.0, on=False) == ""
    up.applied({"on": False}, 3.0)
    assert refusal(down, 4.0, on=True) == ""


def test_a_claim_holds_the_interlock_until_it_is_settled() -> None:
    interlocks = Interlocks()
    up = limits(interlocks, "up", interlock=["motor"])
    down = limits(interlocks, "down", interlock=["motor"])
    up.claim({"on": False})
    assert refusal(down, 0.0, on=True) == "", "a safe value claims nothing"
    up.claim({"on": True})
    assert refusal(down, 0.0, on=True).startswith("interlocked: down.on is interlocked with up")
    up.settle()
    assert refusal(down, 0.0, on=True) == ""


def test_a_device_that_is_gone_holds_no_interlock() -> None:
    interlocks = Interlocks()
    limits(interlocks, "up", interlock=["motor"]).applied({"on": True}, 1.0)
    interlocks.forget("up")
    assert refusal(limits(interlocks, "down", interlock=["motor"]), 2.0, on=True) == ""


def test_a_new_configuration_keeps_what_happened() -> None:
    before = limits(min_off_s=30, max_cycles_per_hour=1)
    before.applied({"on": True}, 1.0)
    before.applied({"on": False}, 2.0)
    after = limits(min_off_s=60, max_cycles_per_hour=1)
    after.inherit(before)
    assert refusal(after, 61.0, on=True).endswith("wait 1.0 s")
    assert "max_cycles_per_hour" in refusal(after, 63.0, on=True)


def test_earlier_processes_are_recalled_in_order() -> None:
    valve = limits(min_off_s=30)
    valve.recall(
        [
            SafeTransition("valve", "on", 1.0, True),
            SafeTransition("valve", "on", 5.0, False),
            SafeTransition("valve", "gone", 6.0, True),
        ]
    )
    assert not valve.away
    assert refusal(valve, 34.0, on=True).endswith("wait 1.0 s")
