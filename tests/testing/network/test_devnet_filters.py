"""The subscribe filter language."""

from __future__ import annotations

from typing import Any

import pytest

from device_agent.testing.network.filters import FilterError, compile_filter

META = {
    "instance": "AG-x-1",
    "broadcast": "true",
    "level": 5,
    "tags": ["a", "b"],
    "deep": {"er": "Value"},
    "on": True,
}
DATA = {"kind": "reading", "values": {"t": 21.5}, "list": [{"n": 1}]}


@pytest.mark.parametrize(
    "expression",
    [
        "meta.instance == 'AG-x-1' || meta.broadcast == \"true\"",
        "instance == 'AG-x-1'",
        "meta.instance == 'other' || meta.broadcast == \"true\"",
        "meta.instance != 'other'",
        "meta.level == 5 && meta.level != 6",
        "meta.level >= 5 && meta.level <= 5",
        "meta.level > 4 && meta.level < 6",
        "!(meta.level > 5)",
        "!meta.absent",
        "meta.on",
        "meta.on == true",
        "meta.tags CONTAINS 'a'",
        "meta.deep.er contains 'alu'",
        "meta.deep.er LIKE 'val*'",
        "meta.deep.er LIKE '*LU*'",
        "data.kind == 'reading'",
        "data.values.t > 21 && data.values.t < 22",
        "data.list[0].n == 1",
        "meta.tags[1] == 'b'",
        "meta.level == 1 || meta.level == 5 && data.kind == 'reading'",
        "(meta.level == 5 || meta.level == 1) && data.kind == 'reading'",
        "'AG-x-1' == meta.instance",
        "meta.deep.er == 'Va\\lue'",
        "meta.instance < 'B'",
    ],
)
def test_lets_through(expression: str) -> None:
    assert compile_filter(expression)(META, lambda: DATA)


@pytest.mark.parametrize(
    "expression",
    [
        "meta.instance == 'AG-x-2'",
        "meta.broadcast == true",
        "meta.absent == 'x'",
        "meta.absent != 'x'",
        "meta.level == '5'",
        "meta.level > 5",
        "!meta.on",
        "meta.tags CONTAINS 'c'",
        "meta.deep.er LIKE 'alu'",
        "data.kind == 'status'",
        "(meta.level == 5 || meta.level == 1) && data.kind == 'status'",
        "meta.deep == 'x'",
        "meta.instance > 5",
    ],
)
def test_holds_back(expression: str) -> None:
    assert not compile_filter(expression)(META, lambda: DATA)


@pytest.mark.parametrize(
    "expression", ["meta.a ==", "== 5", "(meta.a == 1", "meta.a == 1)", "meta.a = 1", "'x", ""]
)
def test_mistakes_are_told(expression: str) -> None:
    with pytest.raises(FilterError):
        compile_filter(expression)


def test_no_meta_matches_nothing_by_name() -> None:
    assert not compile_filter("meta.sender == 'me'")(None, lambda: DATA)
    assert not compile_filter("meta.sender != 'me'")(None, lambda: DATA)


def test_body_is_decoded_only_when_needed() -> None:
    def never() -> Any:
        raise AssertionError("the filter does not look at the body")

    assert compile_filter("meta.level == 5")(META, never)
