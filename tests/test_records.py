"""Data types: what counts as a number, and when two values are the same."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import Fault, Interlocked, Rejected
from device_agent.records import Action, is_number, same_value


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, True), (0, True), (1.5, True), (math.nan, True), (True, False), ("1", False), (None, False)],
)
def test_a_bool_is_no_number(value: object, number: bool) -> None:
    assert is_number(value) is number


@pytest.mark.parametrize(
    ("read", "wanted", "same"),
    [
        (0.2999, 0.3, True),
        (100.05, 100, True),
        (100.2, 100, False),
        (0.0009, 0.0, True),
        (0.0011, 0.0, False),
        (True, True, True),
        (True, False, False),
        (True, 1, True),
        ("open", "open", True),
        (None, 0, False),
        (math.nan, 1.0, False),
    ],
)
def test_values_are_the_same_within_a_converters_step(read: object, wanted: object, same: bool) -> None:
    assert same_value(read, wanted) is same  # type: ignore[arg-type]


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_small_differences_count_by_the_wanted_value(read: float, wanted: float) -> None:
    assert same_value(read, wanted) == (abs(read - wanted) <= 1e-3 * max(1.0, abs(wanted)))


def test_an_action_that_only_makes_a_file_is_read_only() -> None:
    assert Action("snapshot", moves=False, gives="image/jpeg").read_only
    assert not Action("calibrate", moves=False).read_only
    assert not Action("print", gives="text/plain").read_only


def test_a_fault_is_the_same_after_the_journal() -> None:
    fault = Rejected("too_soon", "wait 3 s").fault
    assert Fault.from_members(fault.members()) == fault
    assert Fault.from_members({}) == Fault("internal", "no reason given")
    assert Interlocked("valve is open", "valve").fault.code == "interlocked"
