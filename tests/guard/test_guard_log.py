"""The guard's log lines, as text and as JSON that every reader takes."""

import json
import sys

import pytest

from device_agent.guard.log import Log


def line(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text[:-1]


@pytest.mark.parametrize(
    "value", ["a", 'say "no"', "back\\slash", 1, -2.5, True, False, None, "ünï", "tab\tand\nline", ""]
)
def test_any_value_is_one_line_of_json(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    Log("json")("error", "guard_made_safe", device=value)
    event = json.loads(line(capsys))
    assert (event["event"], event["level"]) == ("guard_made_safe", "error")
    printable = value if not isinstance(value, str) else value.replace("\t", " ").replace("\n", " ")
    assert event["device"] == printable


def test_text_has_the_level_the_event_and_its_members(capsys: pytest.CaptureFixture[str]) -> None:
    Log("text")("critical", "guard_takes_over", why="it died")
    text = line(capsys)
    assert "[critical] guard_takes_over" in text
    assert text.endswith("why='it died'")


def test_quiet_leaves_out_what_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    Log("quiet")("info", "guard_ended")
    assert capsys.readouterr().err == ""
    Log("quiet")("warning", "guard_lost_hold")
    assert "guard_lost_hold" in line(capsys)


def test_a_closed_standard_error_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    Log("text")("error", "guard_made_safe")
