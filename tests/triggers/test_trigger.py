"""Conditions: thresholds with hysteresis, values, device states, and how long they must hold."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.config.trigger import When
from device_agent.records import DeviceState
from device_agent.triggers.trigger import TriggerState


def hot(for_s: float = 0) -> TriggerState:
    return TriggerState(When(device="c", point="t", above=35, below_again=33, for_s=for_s))


def follow(condition: TriggerState, values: list[Any]) -> list[bool]:
    said = []
    for second, value in enumerate(values):
        condition.value(value, float(second))
        said.append(condition.active)
    return said


def test_a_threshold_has_two_sides() -> None:
    assert follow(hot(), [35, 35.1, 34, 33.1, 33, 34, 36]) == [False, True, True, True, False, False, True]


def test_below_is_the_mirror_image() -> None:
    cold = TriggerState(When(device="c", point="t", below=5, above_again=7))
    assert follow(cold, [5, 4.9, 6.9, 7, 6]) == [False, True, True, False, False]


def test_it_must_hold_without_a_break() -> None:
    assert follow(hot(2), [36, 36, 34, 36, 36, 36]) == [False] * 5 + [True]
    assert follow(hot(2), [36, 36, None, 36, 36, 36]) == [False] * 5 + [True]


def test_time_alone_is_enough_for_what_is_only_told() -> None:
    open_door = TriggerState(When(device="door", point="active", equals=True, for_s=60))
    open_door.value(True, 0)
    open_door.tick(59)
    assert not open_door.active
    open_door.tick(60)
    assert open_door.active
    open_door.value(None, 61)
    assert open_door.active
    open_door.value(False, 62)
    assert not open_door.active


@pytest.mark.parametrize("value", [1, "true", None, math.nan])
def test_a_boolean_is_no_number(value: Any) -> None:
    assert follow(TriggerState(When(device="d", point="p", equals=True)), [value]) == [False]


def test_a_device_that_went_breaks_the_time_and_ends_nothing() -> None:
    condition = hot(10)
    condition.value(36, 0)
    condition.state(DeviceState.OFFLINE, 5)
    condition.tick(11)
    assert not condition.active
    lasting = hot()
    lasting.value(36, 0)
    lasting.state(DeviceState.FAULT, 1)
    assert lasting.active


def test_a_state() -> None:
    gone = TriggerState(When(device="c", status=("offline", "fault"), for_s=30))  # type: ignore[arg-type]
    gone.state(DeviceState.OFFLINE, 0)
    gone.state(DeviceState.FAULT, 20)
    gone.tick(30)
    assert gone.active
    gone.state(DeviceState.ONLINE, 40)
    assert not gone.active


READINGS = st.lists(st.one_of(st.none(), st.floats(allow_nan=False), st.integers(20, 50)), max_size=40)


@given(READINGS, st.integers(0, 5), st.booleans())
def test_it_begins_above_and_ends_below_and_never_in_between(
    values: list[float | None], for_s: int, active: bool
) -> None:
    condition = TriggerState(
        When(device="c", point="t", above=35, below_again=33, for_s=for_s), active=active
    )
    held = 0
    for second, value in enumerate(values):
        before = condition.active
        condition.value(value, float(second))
        held = held + 1 if value is not None and value > 35 else 0
        if condition.active and not before:
            assert held > for_s
        if before and not condition.active:
            assert value is not None
            assert value <= 33
        if value is None or 33 < value <= 35:
            assert condition.active == before
