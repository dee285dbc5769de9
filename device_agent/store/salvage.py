"""Damaged SQLite files: told apart from disks that are full or gone, and read as far as they can be."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

# SQLite's codes for a file that is damaged or not one of ours. Full, locked, read-only and failing disks have
# other codes, and a new file would not help there.
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_NOTADB,
    }
)
# A damaged page hides its rows; reading goes on behind it, in growing steps, at most so often.
SKIPS_MAX = 200


class Damaged(sqlite3.DatabaseError):
    """Damage that our own checks found."""


def is_damage(error: BaseException) -> bool:
    """Whether a new file would help."""
    if isinstance(error, Damaged | UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def readable(aside: Path, tables: Iterable[tuple[str, str]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The rows that can still be read, as (table, row).

    `tables` are pairs of a name and its columns, the key first. Behind a damaged page reading goes on only
    where the key is an integer.
    """
    try:
        db = sqlite3.connect(f"{aside.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    except sqlite3.Error:
        return
    with closing(db):
        for table, columns in tables:
            yield from ((table, row) for row in _rows(db, table, columns))


def _rows(db: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    key = columns.partition(",")[0]
    where: Callable[[Any], str] = lambda last: "" if last is None else f" WHERE {key} > {last}"  # noqa: E731
    last: Any = None
    step = 1
    for _ in range(SKIPS_MAX):
        try:
            for row in db.execute(f"SELECT {columns} FROM {table}{where(last)} ORDER BY {key}"):
                yield row
                last, step = row[0], 1
            return
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            if last is not None and not isinstance(last, int):
                return
            last, step = (last or 0) + step, step * 2
