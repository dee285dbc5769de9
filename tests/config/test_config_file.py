"""The file itself: missing, unreadable, too large, not TOML, and where exactly."""

from pathlib import Path

import pytest

from device_agent.config import load
from device_agent.errors import ConfigError


def failure(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.problems == (str(caught.value),)
    return str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    path = tmp_path / "none.toml"
    assert failure(path) == (
        f"there is no configuration at {path}: make one with device-agent init, or name it with --config"
    )


def test_a_folder_is_no_file(tmp_path):
    assert "cannot be read" in failure(tmp_path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[agent\n", "line 1, column 7"),
        ("[agent]\nname = \n", "line 2, column 8"),
        ('[agent]\nname = "a"\nname = "b"\n', "line 3, column 11"),
        ('[agent]\nname = "a', "line 2, column 10"),
    ],
)
def test_a_slip_of_toml_has_line_and_column(tmp_path, text, place):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    message = failure(path)
    assert message.startswith(f"{path} is not valid TOML: ")
    assert place in message


def test_other_encodings_have_a_line(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_bytes('[agent]\nname = "a"\ndescription = "Gewächshaus"\n'.encode("latin-1"))
    assert failure(path) == f"{path} is not UTF-8 text (line 3): save it as UTF-8"


@pytest.mark.parametrize(
    "data",
    [
        b"x = 1\n" * 200_000,
        b"a = " + b"[" * 100_000,
        b"a = " + b"[" * 20 + b"]" * 20,
        b"a." * 400 + b"a = 1",
        b"a = " + b"9" * 10_000,
        b"a = {" + b"b={" * 5_000,
    ],
    ids=["large", "brackets", "deep", "dotted", "digits", "braces"],
)
def test_hostile_files_are_refused_in_a_sentence(tmp_path, data):
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    assert len(failure(path)) < 500
