"""A row whose bits were turned on the disk is left out; tables of an earlier version get checksums."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from device_agent.store.row_checksums import column, prepare

COLUMNS = {"thing": "name, data"}
SCHEMA = f"""CREATE TABLE IF NOT EXISTS thing(
    name TEXT PRIMARY KEY, data BLOB, other INTEGER, {column(COLUMNS["thing"])});"""
ROWS = [("one", b"first"), ("two", b"second")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "things.db"
    with closing(sqlite3.connect(file)) as db, db:
        prepare(db, SCHEMA, COLUMNS)
        db.executemany("INSERT INTO thing(name, data) VALUES(?, ?)", ROWS)
    return file


def whole(path: Path) -> list[tuple[str, bytes]]:
    with closing(sqlite3.connect(path)) as db:
        prepare(db, SCHEMA, COLUMNS)
        return db.execute("SELECT name, data FROM thing ORDER BY rowid").fetchall()


def test_rows_stay_and_may_change(path: Path) -> None:
    with capture_logs() as said:
        assert whole(path) == ROWS
    with closing(sqlite3.connect(path)) as db, db:
        prepare(db, SCHEMA, COLUMNS)
        db.execute("UPDATE thing SET data = x'00' WHERE name = 'one'")
    assert whole(path) == [("one", b"\0"), ROWS[1]]
    assert said == []


@pytest.mark.parametrize("text", [b"one", b"first"])
def test_a_damaged_row_is_left_out_and_said(path: Path, text: bytes) -> None:
    """The key lies in the table and in its index: each of the two alone, and both."""
    intact = path.read_bytes()
    at = intact.find(text)
    while at >= 0:
        data = bytearray(intact)
        data[at + 1] ^= 4
        path.write_bytes(data)
        with capture_logs() as said:
            found = whole(path)
        assert found in ([ROWS[1]], ROWS), "in the index alone it hides nothing"
        assert [entry["event"] for entry in said] == ["rows_damaged"] * (found != ROWS)
        at = intact.find(text, at + 1)


def test_a_table_of_an_earlier_version_gets_checksums(tmp_path: Path) -> None:
    file = tmp_path / "earlier.db"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE thing(name TEXT PRIMARY KEY, data BLOB, other INTEGER)")
        db.executemany("INSERT INTO thing(name, data) VALUES(?, ?)", ROWS)
    assert whole(file) == ROWS
    assert whole(file) == ROWS
