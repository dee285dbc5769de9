"""The guard's log lines, as text and as JSON that every reader takes."""

import json
import os

import pytest

from device_agent.guard.log import Log
from support.waiting import LIMIT_S


def line(style: str, level: str, event: str, **members: object) -> str:
    """What a log writes for one event."""
    reading, writing = os.pipe()
    log = Log(style, writing)
    log(level, event, **members)
    log.close(LIMIT_S)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    assert text.count("\n") == bool(text)
    return text[:-1]


@pytest.mark.parametrize(
    "value", ["a", 'say "no"', "back\\slash", 1, -2.5, True, False, None, "ünï", "tab\tand\nline", ""]
)
def test_any_value_is_one_line_of_json(value: object) -> None:
    event = json.loads(line("json", "error", "guard_made_safe", device=value))
    assert (event["event"], event["level"]) == ("guard_made_safe", "error")
    printable = value if not isinstance(value, str) else value.replace("\t", " ").replace("\n", " ")
    assert event["device"] == printable


def test_text_has_the_level_the_event_and_its_members() -> None:
    text = line("text", "critical", "guard_takes_over", why="it died")
    assert "[critical] guard_takes_over" in text
    assert text.endswith("why='it died'")


def test_quiet_leaves_out_what_is_well() -> None:
    assert line("quiet", "info", "guard_ended") == ""
    assert "guard_lost_hold" in line("quiet", "warning", "guard_lost_hold")
