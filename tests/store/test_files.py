"""Small files are whole or not there, and damaged ones are kept beside."""

import os
import stat
from pathlib import Path

import pytest

from device_agent.store.files import ASIDE_MAX, set_aside, write_atomically


def test_a_file_is_replaced_as_a_whole_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"old and longer")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_what_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match=r"state\.json"):
        write_atomically(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
    assert path.is_dir()


def test_what_is_damaged_is_kept_with_its_logs(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for suffix in ("", "-wal"):
        Path(f"{path}{suffix}").write_bytes(os.urandom(8))
    aside = set_aside(path)
    assert not path.exists()
    assert aside.name.startswith("outbox.db.damaged-")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [aside.name, f"{aside.name}-wal"]


def test_of_many_that_were_damaged_the_newest_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_ms = iter(range(1_800_000_000_000, 1_800_000_000_100))
    monkeypatch.setattr("time.time_ns", lambda: next(times_ms) * 1_000_000)
    other = tmp_path / "outbox.db.copied-1"
    other.touch()
    made = []
    for _ in range(ASIDE_MAX + 2):
        for suffix in ("", "-wal"):
            (tmp_path / f"outbox.db{suffix}").touch()
        made.append(set_aside(tmp_path / "outbox.db").name)
    kept = {f"{name}{suffix}" for name in made[-ASIDE_MAX:] for suffix in ("", "-wal")}
    assert {entry.name for entry in tmp_path.iterdir()} == kept | {other.name}
