"""Patterns of the configuration, and texts on which they would take for ever."""

import asyncio
import re
import threading

import pytest

from device_agent.text.pattern import Pattern

SLOW = {
    "(a+)+b": "a" * 60,
    "(?P<v>([0-9]+[.,]?)+)x": "1" * 60,
    "(.*.*.*.*.*)x": "y" * 500,
    r"^W\( +[])(]x?(?P<v>([0-9]+[.]?)+)g$": "W( ]" + "1" * 60,
}


@pytest.mark.parametrize(("pattern", "text"), SLOW.items())
def test_a_match_that_takes_too_long_is_given_up(pattern: str, text: str) -> None:
    with pytest.raises(TimeoutError, match="50 ms"):
        Pattern(pattern).search(text)
    match = Pattern("(?P<v>y)").search("xyz")
    assert match is not None
    assert match["v"] == "y"
    assert Pattern("b").search("xyz") is None


@pytest.mark.parametrize("pattern", SLOW)
def test_a_slow_pattern_is_found(pattern: str) -> None:
    assert Pattern(pattern).slow_on() != ""


@pytest.mark.parametrize(
    "pattern", ["^W +(?P<weight>-?[0-9.]+)", r"T=(?P<value>[-0-9.]+)\s*$", ".*,(?P<a>.*)", "é"]
)
def test_a_usual_pattern_is_not_called_slow(pattern: str) -> None:
    assert Pattern(pattern).slow_on() == ""


def test_what_is_no_pattern_is_an_error() -> None:
    with pytest.raises(re.error):
        Pattern("(")


@pytest.mark.parametrize(("pattern", "text"), SLOW.items())
async def test_another_thread_has_the_limit_of_the_event_loop(pattern: str, text: str) -> None:
    """The engine holds the interpreter for as long as it matches, on whichever thread."""
    slow, plain = Pattern(pattern), Pattern("(?P<v>y)")
    with pytest.raises(TimeoutError, match="50 ms"):
        await asyncio.to_thread(slow.search, text)
    match = await asyncio.to_thread(plain.search, "xyz")
    assert match is not None
    assert match["v"] == "y"


def test_without_a_loop_another_thread_matches_by_itself() -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(Pattern("b").search("abc")))
    thread.start()
    thread.join()
    assert found[0] is not None
