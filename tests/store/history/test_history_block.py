"""Blocks of history: nothing is lost in the bytes, means and extremes are right, damage is noticed."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.records import Flag, Reading
from device_agent.store.history.history_block import (
    HistoryBlock,
    aggregate,
    block_of,
    clip,
    decode,
    encode,
    rows_of,
)

numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-2000, 2000, places=2).map(float),
    st.text(max_size=8),
)


@st.composite
def readings(draw: st.DrawFn) -> list[Reading]:
    at_ms = sorted(draw(st.lists(st.integers(0, 10**13), min_size=1, max_size=30)))
    points = draw(st.lists(st.sampled_from("abcd"), unique=True))
    return [Reading("d", at, {point: draw(numbers) for point in points}) for at in at_ms]


@settings(suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(readings())
def test_what_was_measured_comes_back(taken: list[Reading]) -> None:
    again = decode("d", 0, encode(block_of(taken)))
    assert [row.at_ms for row in rows_of(again)] == [reading.at_ms for reading in taken]
    for row, reading in zip(rows_of(again), taken, strict=True):
        for point, value in reading.values.items():
            if isinstance(value, bool) or value is None or isinstance(value, str):
                assert row.values[point] is value or row.values[point] == value
            else:
                assert row.values[point] == value or row.values[point] == float(value)


def test_a_block_is_small() -> None:
    """The claim in the module's docstring, with room for another zlib."""
    taken = [
        Reading(
            "d", 1000 * n, {"a": round(21 + math.sin(n * 7), 2), "b": 1013.25, "c": round(45 + n % 7 / 10, 1)}
        )
        for n in range(60)
    ]
    assert len(encode(block_of(taken))) / 60 < 6


def test_flags_stay_with_their_row() -> None:
    taken = [
        Reading("d", n, {"a": None if n == 3 else n}, {"a": Flag.NO_ANSWER} if n == 3 else {})
        for n in range(6)
    ]
    part = clip(decode("d", 0, encode(block_of(taken))), 2, 4)
    assert part is not None
    assert [(row.at_ms, row.flags) for row in rows_of(part)] == [(2, {}), (3, {"a": "no_answer"}), (4, {})]
    assert clip(part, 5, 9) is None


@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(-1e6, 1e6)), min_size=1, max_size=80))
def test_folding_twice_is_folding_once(pairs: list[tuple[int, float]]) -> None:
    taken = [Reading("d", at, {"a": value}) for at, value in sorted(pairs)]
    once = aggregate("d", 9000, [block_of(taken)])
    fine = aggregate("d", 1000, [block_of(taken)])
    assert once is not None
    assert fine is not None
    twice = aggregate("d", 9000, [fine])
    assert twice is not None
    assert (once.at, once.counts, once.low, once.high) == (twice.at, twice.counts, twice.low, twice.high)
    assert once.values[0] == pytest.approx(twice.values[0], abs=1e-5)
    for row in rows_of(once):
        mine = [v for at, v in pairs if row.at_ms <= at < row.at_ms + 9000]
        assert (row.count, row.low["a"], row.high["a"]) == (len(mine), min(mine), max(mine))
        assert row.values["a"] == pytest.approx(sum(mine) / len(mine), abs=1e-5)


def test_a_boolean_becomes_its_share_and_a_text_its_last() -> None:
    values = [(True, "a"), (False, "b"), (False, None), (None, "d")]
    block = aggregate(
        "d", 60_000, [block_of([Reading("d", n, {"on": v, "say": s}) for n, (v, s) in enumerate(values)])]
    )
    assert block is not None
    (row,) = rows_of(decode("d", 60_000, encode(block)))
    assert row.values == {"on": pytest.approx(1 / 3, abs=1e-6), "say": "d"}
    assert (row.low, row.high, row.count) == ({"on": False}, {"on": True}, 4)


def test_points_that_come_and_go_are_folded_by_name() -> None:
    blocks = [block_of([Reading("d", 1, {"a": 1.0})]), block_of([Reading("d", 2, {"b": 4.0, "a": 3.0})])]
    block = aggregate("d", 1000, blocks)
    assert block is not None
    assert next(iter(rows_of(block))).values == {"a": 2.0, "b": 4.0}
    assert aggregate("d", 1000, []) is None


def test_damage_is_a_value_error() -> None:
    data = encode(block_of([Reading("d", 1, {"a": 1.5})]))
    for damaged in (
        b"",
        data[:-3],
        data[:6] + bytes([data[6] ^ 1]) + data[7:],
        encode(HistoryBlock("d", 0, (), [], []))[2:],
    ):
        with pytest.raises(ValueError, match="cannot be read"):
            decode("d", 0, damaged)
