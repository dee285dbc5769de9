"""What goes out and what comes in: templates, answers, and the one form that may move something."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.config.trigger import AllowedCommand
from device_agent.delegation.answer import ANSWER_MAX_BYTES, choice, form, presentable
from device_agent.triggers.present import shown

COMMANDS = {"open_vent": AllowedCommand(device="vent", values={"on": True}, for_s=600)}


@pytest.mark.parametrize(
    "answer",
    [
        '{"command": "open_vent"}',
        'I open it.\n{"command": "open_vent"}\n',
        'I open it.\n\n```json\n{"command": "open_vent"}\n```\n',
        'I open it.\n```\n{ "command" : "open_vent" }\n```',
        'First {"command": "none"}, no:\n{"command": "open_vent"}',
        "x" * 50_000 + '\n{"command": "open_vent"}',
    ],
)
def test_the_form_that_is_understood(answer: str) -> None:
    assert choice(answer, COMMANDS) == ("open_vent", "")


def test_none_is_a_clear_answer() -> None:
    assert choice('Wait.\n{"command": "none"}', COMMANDS) == ("", "")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Open the vent.",
        "open_vent",
        'I suggest {"command": "open_vent"}',
        '{"command": "open_vent"} at once',
        '{"command": "open_vent"}\nBut think first.',
        '{"command": "open_vent", "for_s": 3600}',
        '{"command": "open_vent", "command": "none"}',
        '{"command": ["open_vent"]}',
        '{"command": {"name": "open_vent"}}',
        '{"command": null}',
        '{"Command": "open_vent"}',
        '["open_vent"]',
        '{"command": "OPEN_VENT"}',
        '{"command": "open_vent "}',
        "{'command': 'open_vent'}",
        '{"command": "burn_down"}',
        '```json\n{"command": "open_vent"}\n{"command": "open_vent"\n```',
        "{" * 10_000,
        '\n{"command":' * 3_000,
    ],
)
def test_anything_else_is_only_text(answer: str) -> None:
    found = choice(answer, COMMANDS)
    assert found.command == ""
    assert found.unclear


@given(st.text(max_size=2000))
def test_whatever_comes_it_is_the_list_or_nothing(text: str) -> None:
    for answer in (text, f'{text}\n{{"command": "open_vent"}}', f'{{"command": "open_vent"}}{text}'):
        assert choice(answer, COMMANDS).command in ("", "open_vent")


def test_the_form_names_each_command() -> None:
    text = form(COMMANDS)
    assert "- open_vent: sets on = true of vent for 600 s" in text
    assert '{"command": "…"}' in text


@given(st.text(max_size=5000) | st.text(alphabet='\x1b\x07\u202e\U0001f600"\\\n\ud800', max_size=20_000))
def test_an_answer_fits_an_event_and_no_terminal_obeys_it(text: str) -> None:
    plain, cut = presentable(text)
    assert len(json.dumps(plain, ensure_ascii=False).encode()) <= ANSWER_MAX_BYTES
    assert all(c == "\n" or c.isprintable() for c in plain)
    if not cut:
        assert len(text) <= ANSWER_MAX_BYTES + text.count("\r\n")


def test_a_long_answer_is_cut_and_says_so() -> None:
    assert presentable("ä" * 20_000)[1] is True
    assert presentable("short")[1] is False


def test_values_in_a_sentence() -> None:
    told = [shown(value) for value in (36.123456789, True, None, 3, "on\x1b[31m\nfire")]
    assert told == ["36.1235", "true", "unknown", "3", "on [31m fire"]
