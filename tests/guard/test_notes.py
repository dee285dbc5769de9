"""What one guard notes for the next: whole, or nothing."""

from pathlib import Path

import pytest

from device_agent.guard.notes import Notes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.sock.notes"


def test_what_was_noted_is_read(path: Path) -> None:
    assert Notes(str(path)).read() is None
    Notes(str(path)).write((1, 2), [])
    assert Notes(str(path)).read() == ((1, 2), [])
    Notes(str(path)).clear()
    assert Notes(str(path)).read() is None


@pytest.mark.parametrize(
    "junk", [b"", b"\0" * 4, b"\0" * 4096, b"[" * 100_000, bytes(range(256)) * 64, b"{}"]
)
def test_anything_else_is_none(path: Path, junk: bytes) -> None:
    """`marshal` takes a bracket for a list of as many as the next four bytes say."""
    path.write_bytes(junk)
    assert Notes(str(path)).read() is None


def test_a_changed_bit_makes_it_none(path: Path) -> None:
    Notes(str(path)).write((1, 2), [])
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert Notes(str(path)).read() is None
