"""A checksum in each row of a SQLite table: a bit that a worn card turned makes no other row of it.

SQLite checks the form of a page, never its content. The column `crc` is computed by SQLite whenever a row is
written, from the columns that are named here; a row that does not fit is left out, and the log says so.
"""

import sqlite3
import zlib
from collections.abc import Mapping

import structlog

log = structlog.get_logger("store")


def checksum(*values: object) -> int:
    """Of the values of one row."""
    return zlib.crc32(repr(values).encode())


def column(columns: str) -> str:
    """The declaration of the checksum over these columns."""
    return f"crc INTEGER AS (checksum({columns})) STORED"


def prepare(db: sqlite3.Connection, schema: str, tables: Mapping[str, str]) -> None:
    """Create the tables of `schema` and delete the rows that are damaged.

    `tables` has the checked columns by table; a table of an earlier version, without checksums, gets them.
    Raises sqlite3.Error, also for damage by which rows cannot be told apart any more.
    """
    db.create_function("checksum", -1, checksum, deterministic=True)
    for table in tables:
        names = [row[1] for row in db.execute(f"PRAGMA table_xinfo({table})")]
        if names and "crc" not in names:
            db.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
    db.executescript(schema)
    for table, columns in tables.items():
        if db.execute(f"PRAGMA table_xinfo({table}_before)").fetchone():
            kept = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table}_before)"))
            with db:
                db.execute(f"INSERT OR IGNORE INTO {table}({kept}) SELECT {kept} FROM {table}_before")
                db.execute(f"DROP TABLE {table}_before")
        damaged = f"FROM {table} WHERE crc IS NOT checksum({columns})"
        (count,) = db.execute(f"SELECT count(*) {damaged}").fetchone()
        if count:
            log.error("rows_damaged", table=table, rows=count, why="their checksums do not fit: left out")
            with db:
                db.execute(f"REINDEX {table}")  # without which SQLite does not find what to delete
                db.execute(f"DELETE {damaged}")
