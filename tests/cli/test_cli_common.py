"""What all commands share: arguments, exit codes, tables, questions."""

import argparse
import io
import sys
from pathlib import Path

import pytest

from device_agent.cli.common import (
    DEFAULT_CONFIG,
    Exit,
    Unavailable,
    UsageError,
    config_path,
    confirm,
    exit_code,
    instant_ms,
    named_values,
    parse_value,
    print_table,
    run_command,
    span_s,
    styled,
    write_out,
)
from device_agent.errors import AgentError, BusDenied, ConfigError, Rejected


def test_spans_and_instants() -> None:
    assert [span_s(text) for text in ("90", "1.5m", "2h", "7d")] == [90, 90, 7200, 604_800]
    assert instant_ms("2026-05-01T06:00:00+00:00") == 1_777_615_200_000
    assert instant_ms("1777615200000") == 1_777_615_200_000
    assert instant_ms("1h") < instant_ms("1m")


@pytest.mark.parametrize("text", ["", "0", "-1", "5x", "1e3", "m", "nan"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no time span"):
        span_s(text)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "9" * 16, "99999-01-01"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no instant"):
        instant_ms(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21.5", 21.5),
        ("3", 3),
        ("ON", True),
        ("off", False),
        ("true", True),
        ("null", None),
        ("open", "open"),
        ("[1]", "[1]"),
        ('{"a":1}', '{"a":1}'),
        ('"7"', "7"),
    ],
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_named_values() -> None:
    assert named_values(["speed=2", "text=a=b", "empty="]) == {"speed": 2, "text": "a=b", "empty": ""}
    for wrong in ("speed", "=2"):
        with pytest.raises(Rejected, match="is not NAME=VALUE") as raised:
            named_values([wrong])
        assert raised.value.code == "invalid_value"


def test_the_configuration_is_named_by_option_variable_or_default() -> None:
    variable = {"DEVICE_AGENT_CONFIG": "/b"}
    assert config_path(argparse.Namespace(config="/a"), variable) == Path("/a")
    assert config_path(argparse.Namespace(config=None), variable) == Path("/b")
    assert config_path(argparse.Namespace(), {}) == DEFAULT_CONFIG


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.CONFIG),
        (Unavailable("x"), Exit.UNREACHABLE),
        (BusDenied("x"), Exit.DENIED),
        (Rejected("not_allowed", "x"), Exit.DENIED),
        (Rejected("invalid_value", "x"), Exit.FAILED),
        (AgentError("x"), Exit.FAILED),
    ],
)
def test_exit_codes(error: AgentError, code: Exit, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise error

    assert exit_code(error) == code
    assert run_command(fail) == code
    assert capsys.readouterr().err == "error: x\n"


def test_an_unexpected_error_is_one_sentence_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise ZeroDivisionError("by zero")

    assert run_command(fail) == Exit.FAILED
    said = capsys.readouterr().err
    assert said.startswith("error: unexpected ZeroDivisionError at test_cli_common.py:")
    assert said.count("\n") == 1


def test_a_table_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "value"], [["a", "1"], ["longer", ""]])
    assert capsys.readouterr().out == "name    value\na       1\nlonger\n"


def test_no_colour_where_there_is_no_terminal() -> None:
    assert styled("text", "red", "bold", stream=io.StringIO()) == "text"


def test_without_a_terminal_a_question_needs_its_answer_beforehand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    confirm("Sure?", yes=True)
    with pytest.raises(UsageError, match="add --yes"):
        confirm("Sure?", yes=False)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    write_out(tmp_path / "out.csv", b"1")
    assert (tmp_path / "out.csv").read_bytes() == b"1"
    with pytest.raises(AgentError, match="name another file with --out"):
        write_out(tmp_path / "none" / "out.csv", b"1")
