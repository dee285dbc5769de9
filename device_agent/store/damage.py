"""A store that is damaged: told from a disk that is full or gone, put aside, what is whole of it saved."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

# What SQLite says of a file that is no store of ours or is damaged. Full, locked, read-only and failing disks
# say something else, and a new file would not cure them.
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
# A damaged page hides its rows; the search goes on behind it, in growing steps, so many times.
SKIPS_MAX = 200


class Damaged(sqlite3.DatabaseError):
    """Found by our own checks."""


class WrongVersion(Damaged):
    """A store that another version of this program made."""


def is_damage(error: BaseException) -> bool:
    """Whether a new file would cure this."""
    if isinstance(error, Damaged | UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def readable(aside: Path, tables: Iterable[tuple[str, str]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What can still be read: (table, row) of each table, given with its columns, the first of them its key.

    A table without an integer key is read as far as it goes.
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
