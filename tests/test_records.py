"""Data types: what counts as a number, and when two values are the same."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import Fault, Interlocked, Rejected
from device_agent.records import Action, Point, is_number, same_value


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, True), (0, True), (1.5, True), (math.nan, True), (True, False), ("1", False), (None, False)],
)
def test_a_bool_is_no_number(value: object, number: bool) -> None:
    assert is_number(value) is number


ANY = Point("p")
SHARE = Point("p", minimum=0, maximum=1, resolution=1 / 4096)
TENTHS = Point("p", minimum=0, maximum=60, resolution=0.1)
WHOLE = Point("p", resolution=1)


@pytest.mark.parametrize(
    ("point", "read", "wanted", "same"),
    [
        (ANY, 0.2999, 0.3, True),
        (ANY, 100.05, 100, True),
        (ANY, 100.2, 100, False),
        (ANY, 0.0009, 0.0, False),
        (ANY, 0.0, 0.0009, False),
        (ANY, 2.501e-8, 2.5e-8, True),
        (SHARE, 0.0009766, 0.001, True),
        (SHARE, 0.0, 0.001, False),
        (SHARE, 0.001, 0.0, False),
        (TENTHS, 21.5, 21.53, True),
        (TENTHS, 21.5, 21.55, True),
        (TENTHS, 21.5, 21.56, False),
        (TENTHS, 59.9, 60, False),
        (WHOLE, 99_999, 100_000, False),
        (WHOLE, 4_000_000_001.0, 4_000_000_000, True),
        (ANY, True, True, True),
        (ANY, True, False, False),
        (ANY, True, 1, True),
        (ANY, "open", "open", True),
        (ANY, None, 0, False),
        (ANY, math.nan, 1.0, False),
    ],
)
def test_values_are_the_same_within_half_a_step(
    point: Point, read: object, wanted: object, same: bool
) -> None:
    assert same_value(read, wanted, point) is same  # type: ignore[arg-type]


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1e-6, 1e3))
def test_one_step_beside_is_another_value(wanted: float, off: float, step: float) -> None:
    point = Point("p", resolution=step)
    assert same_value(wanted, wanted, point)
    assert same_value(wanted + off, wanted, point) == (
        abs(wanted + off - wanted) <= max(0.500001 * step, 1e-6 * abs(wanted))
    )


def test_an_action_that_only_makes_a_file_is_read_only() -> None:
    assert Action("snapshot", moves=False, gives="image/jpeg").read_only
    assert not Action("calibrate", moves=False).read_only
    assert not Action("print", gives="text/plain").read_only


def test_a_fault_is_the_same_after_the_journal() -> None:
    fault = Rejected("too_soon", "wait 3 s").fault
    assert Fault.from_members(fault.members()) == fault
    assert Fault.from_members({}) == Fault("internal", "no reason given")
    assert Interlocked("valve is open", "valve").fault.code == "interlocked"
