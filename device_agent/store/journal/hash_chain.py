"""The actuations of the Journal, as a hash chain: each row's hash covers its content and the hash before it.

So a row that was changed, removed or inserted later is found. The ends of the chain are stored too: `anchor`
is the last row that was deleted for age, `head` the newest. Somebody who may write the file can forge the
whole chain; only a head that was copied elsewhere (the daemon logs it, `device-agent journal --verify`
prints it) reveals that (docs/safety.md).
"""

import hashlib
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack

SCHEMA = """
CREATE TABLE IF NOT EXISTS actuation(
    n INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, who TEXT NOT NULL, device TEXT NOT NULL,
    what TEXT NOT NULL, result TEXT NOT NULL, rule TEXT NOT NULL, hash BLOB);
CREATE TABLE IF NOT EXISTS chain(place TEXT PRIMARY KEY, n INTEGER NOT NULL, hash BLOB NOT NULL);
"""
COLUMNS = ("at_ms", "who", "device", "what", "result", "rule")
BEGIN = bytes(32)
ROWS_MAX = 100_000
# Of the whole file, whose other tables are small: beyond it the oldest rows go.
FILE_MAX_BYTES = 64_000_000
# Rows are deleted in blocks, so that a full Journal does not delete with every row.
TRIM_ROWS = 1000
# While the disk takes nothing, this many rows wait in memory.
WAITING_MAX = 2000

Row = tuple[int, str, str, str, str, str]


def link(before: bytes, n: int, row: Row) -> bytes:
    """SHA-256 over the hash of the row before and this row's number and content."""
    return hashlib.sha256(before + msgpack.packb([n, *row])).digest()


class HashChain:
    """The writing side. All methods belong to the Journal's thread."""

    def __init__(self) -> None:
        self._waiting: deque[Row] = deque()
        self._lost = 0

    def prepare(self, db: sqlite3.Connection) -> tuple[int, bytes]:
        """Create the tables and hash the rows of an older version.

        Returns the head: number and hash of the newest row.
        """
        db.executescript(SCHEMA)
        if "hash" not in [column[1] for column in db.execute("PRAGMA table_info(actuation)")]:
            self._hash_old_rows(db)
        return _end(db, "head")

    def _hash_old_rows(self, db: sqlite3.Connection) -> None:
        rows = db.execute(f"SELECT n, {', '.join(COLUMNS)} FROM actuation ORDER BY n").fetchall()
        with db:
            db.execute("BEGIN")
            db.execute("ALTER TABLE actuation ADD COLUMN hash BLOB")
            before = BEGIN
            for n, *row in rows:
                before = link(before, n, tuple(row))
                db.execute("UPDATE actuation SET hash = ? WHERE n = ?", (before, n))
            if rows:
                _note(db, "anchor", rows[0][0] - 1, BEGIN)
                _note(db, "head", rows[-1][0], before)

    @property
    def waits(self) -> bool:
        """Whether rows wait to be written."""
        return bool(self._waiting)

    def add(self, rows: Iterable[Row]) -> None:
        """Rows for the next `write`; of too many, while the disk takes nothing, the oldest go."""
        self._waiting.extend(rows)
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popleft()
            self._lost += 1

    def write(self, db: sqlite3.Connection) -> None:
        """Write what waits within the caller's transaction; it waits on until `written`."""
        if not self._waiting:
            return
        rows = list(self._waiting)
        if self._lost:
            rows.insert(0, (rows[0][0], "device-agent", "", f"{self._lost} rows lost", "failed", "disk"))
        n, before = _end(db, "head")
        # A row that somebody inserted behind the head must not stop the agent: `verify` finds it.
        n = max(n, db.execute("SELECT coalesce(max(n), 0) FROM actuation").fetchone()[0])
        for row in rows:
            n, before = n + 1, link(before, n + 1, row)
            marks = ", ".join("?" * (len(COLUMNS) + 2))
            db.execute(
                f"INSERT INTO actuation(n, {', '.join(COLUMNS)}, hash) VALUES({marks})", (n, *row, before)
            )
        _note(db, "head", n, before)
        self._trim(db, n)

    def written(self) -> None:
        """The transaction was committed."""
        self._waiting.clear()
        self._lost = 0

    def _trim(self, db: sqlite3.Connection, head: int) -> None:
        anchor = _end(db, "anchor")[0]
        last = head - ROWS_MAX
        if _used_bytes(db) > FILE_MAX_BYTES:
            last = max(last, min(anchor + TRIM_ROWS, head - 1))
        elif last - anchor < TRIM_ROWS:
            return
        found = db.execute(
            "SELECT n, hash FROM actuation WHERE n <= ? ORDER BY n DESC LIMIT 1", (last,)
        ).fetchone()
        if found is not None:
            _note(db, "anchor", found[0], found[1] or BEGIN)
            db.execute("DELETE FROM actuation WHERE n <= ?", (last,))


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size_bytes = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size_bytes)


def _end(db: sqlite3.Connection, place: str) -> tuple[int, bytes]:
    found = db.execute("SELECT n, hash FROM chain WHERE place = ?", (place,)).fetchone()
    return (int(found[0]), bytes(found[1])) if found else (0, BEGIN)


def _note(db: sqlite3.Connection, place: str, n: int, hash_: bytes) -> None:
    db.execute("INSERT OR REPLACE INTO chain VALUES(?, ?, ?)", (place, n, hash_))


# -- the reading side ----------------------------------------


def verify(path: Path) -> dict[str, Any]:
    """Check the chain of a Journal file, which may be in use. Raises OSError, sqlite3.Error.

    `{"ok", "rows", "first", "last", "head": <hex>}`, and where it does not fit `fault: {n, why}` with the
    first such row.
    """
    with closing(_reading(path)) as db:
        db.execute("BEGIN")  # a snapshot: the daemon may be writing
        anchor, before = _end(db, "anchor")
        head, head_hash = _end(db, "head")
        fault: dict[str, Any] | None = None
        rows, n = 0, anchor
        for n, row, hash_ in _rows(db):
            if n != anchor + rows + 1:
                fault = {"n": anchor + rows + 1, "why": f"is missing; the next one is {n}"}
            elif hash_ != link(before, n, row):
                fault = {"n": n, "why": "does not fit the row before it: one of the two was changed"}
            if fault is not None:
                break
            before, rows = hash_, rows + 1
        if fault is None and n != head:
            fault = {"n": n + 1, "why": f"is missing; the newest one was {head}"}
        elif fault is None and before != head_hash:
            fault = {"n": n, "why": "is not the one that was written last"}
    result = {"ok": fault is None, "rows": rows, "first": anchor + 1, "last": head, "head": head_hash.hex()}
    return result if fault is None else {**result, "fault": fault}


def newest(path: Path, limit: int) -> list[dict[str, Any]]:
    """The newest rows of a Journal file, oldest first."""
    with closing(_reading(path)) as db:
        return select(db, limit)


def select(db: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    """The newest rows, oldest first; `hash` in hexadecimal."""
    names = ("n", *COLUMNS)
    found = db.execute(
        f"SELECT {', '.join(names)}, hash FROM actuation ORDER BY n DESC LIMIT ?", (limit,)
    ).fetchall()
    return [dict(zip(names, row[:-1], strict=True)) | {"hash": row[-1].hex()} for row in reversed(found)]


def _rows(db: sqlite3.Connection) -> Iterator[tuple[int, Row, bytes]]:
    for n, *row, hash_ in db.execute(f"SELECT n, {', '.join(COLUMNS)}, hash FROM actuation ORDER BY n"):
        yield n, tuple(row), bytes(hash_ or b"")


def _reading(path: Path) -> sqlite3.Connection:
    if not path.exists() or not path.stat().st_size:  # empty: a disk was full at the first start
        raise FileNotFoundError(f"there is no Journal at {path}")
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
