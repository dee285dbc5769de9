"""When each actuator point left its safe value and came back: what limits must know after a restart.

Instants are of the monotonic clock, which begins anew at each boot. An instant of an earlier boot is taken as
the moment of this boot, the latest that it can have been: a wait is then never too short, whatever the wall
clock says.
"""

import sqlite3
from typing import Any, NamedTuple

from device_agent.store.row_checksums import column

COLUMNS = "device, point, boot, at_s, away"
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS turn(
    n INTEGER PRIMARY KEY, device TEXT NOT NULL, point TEXT NOT NULL, boot TEXT NOT NULL,
    at_s REAL NOT NULL, away INTEGER NOT NULL, {column(COLUMNS)});
"""
# Limits look back an hour; beyond it only the last transition of each point counts.
KEEP_S = 3600.0


class SafeTransition(NamedTuple):
    """A point left its safe value (`away`) or came back to it."""

    device: str
    point: str
    at_s: float
    away: bool


def note_sql(boot: str, one: SafeTransition) -> tuple[str, tuple[Any, ...]]:
    """The statement that adds it."""
    values = (one.device, one.point, boot, one.at_s, one.away)
    return "INSERT INTO turn(device, point, boot, at_s, away) VALUES(?, ?, ?, ?, ?)", values


def load(db: sqlite3.Connection, boot: str) -> list[SafeTransition]:
    """In the order in which they happened, in this boot's time."""
    rows = db.execute("SELECT device, point, boot, at_s, away FROM turn ORDER BY n")
    return [
        SafeTransition(device, point, at_s if its_boot == boot else 0.0, bool(away))
        for device, point, its_boot, at_s, away in rows
    ]


def trim(db: sqlite3.Connection, boot: str, now_s: float) -> None:
    """Remove what no limit needs any more."""
    with db:
        db.execute(
            "DELETE FROM turn WHERE CASE boot WHEN ? THEN at_s ELSE 0 END < ? "
            "AND n NOT IN (SELECT max(n) FROM turn GROUP BY device, point)",
            (boot, now_s - KEEP_S),
        )
