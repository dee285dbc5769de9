"""Damage is told apart from other failures of a disk, and what is whole is still read."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from device_agent.store.salvage import Damaged, is_damage, readable

TABLES = [("note", "id, text")]


def failure(path: Path, sql: str) -> sqlite3.Error:
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.Error) as caught:
        db.execute(sql).fetchall()
    return caught.value


def made(path: Path, rows: int) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA page_size = 1024")
        db.execute("CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        db.executemany("INSERT INTO note VALUES(?, ?)", [(n, f"row {n} " * 20) for n in range(1, rows + 1)])
    return path


def test_our_own_checks_find_damage() -> None:
    assert is_damage(Damaged("x"))
    assert is_damage(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"))


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"no database " * 1000)
    assert is_damage(failure(path, "SELECT * FROM note"))


def test_a_missing_table_is_damage(tmp_path: Path) -> None:
    assert is_damage(failure(tmp_path / "x.db", "SELECT * FROM note"))


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    path = made(tmp_path / "x.db", 10)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.Error) as caught:
            db.executemany("INSERT INTO note VALUES(?, ?)", [(n, "x" * 500) for n in range(100, 200)])
    assert not is_damage(caught.value)


def test_a_locked_and_a_missing_file_are_no_damage(tmp_path: Path) -> None:
    path = made(tmp_path / "x.db", 1)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with closing(sqlite3.connect(path, timeout=0)) as db, pytest.raises(sqlite3.Error) as locked:
            db.execute("SELECT * FROM note")
    assert not is_damage(locked.value)
    with pytest.raises(sqlite3.Error) as missing:
        sqlite3.connect(tmp_path / "nowhere" / "x.db")
    assert not is_damage(missing.value)
    assert not is_damage(OSError("gone"))


def test_a_whole_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = made(tmp_path / "x.db", 50)
    assert [row[0] for _, row in readable(path, TABLES)] == list(range(1, 51))


def test_a_damaged_page_hides_its_rows_only(tmp_path: Path) -> None:
    path = made(tmp_path / "x.db", 200)
    data = bytearray(path.read_bytes())
    middle = len(data) // 1024 // 2 * 1024
    data[middle : middle + 1024] = b"\xff" * 1024
    path.write_bytes(data)
    found = [row[0] for _, row in readable(path, TABLES)]
    assert found == sorted(set(found))
    assert 150 < len(found) < 200
    assert {1, 200} <= set(found)


def test_a_file_that_cannot_be_read_at_all_has_no_rows(tmp_path: Path) -> None:
    assert list(readable(tmp_path / "missing.db", TABLES)) == []
    path = tmp_path / "x.db"
    path.write_bytes(b"\x00" * 4096)
    assert list(readable(path, TABLES)) == []
