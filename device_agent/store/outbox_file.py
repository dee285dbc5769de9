"""The outbox on disk: one SQLite file, used on the store thread alone.

An event is a row with a checksum. A channel's row holds its numbers, reserved ahead, and what its events
amount to, so that a start with a million events reads a handful of rows.
"""

import os
import sqlite3
import time
import zlib
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from device_agent.store.event import Event, Kept

log = structlog.get_logger("outbox")

SCHEMA = """
CREATE TABLE IF NOT EXISTS channel(
    name TEXT PRIMARY KEY, next_seq INTEGER NOT NULL, next_number INTEGER NOT NULL,
    seq_reserved INTEGER NOT NULL, number_reserved INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, seq INTEGER, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    device TEXT NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS event_of_channel ON event(channel, id);
CREATE TABLE IF NOT EXISTS amount(
    channel TEXT PRIMARY KEY, events INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
# SQLite takes this many values in one statement on every build.
DELETE_AT_ONCE = 500
COLUMNS = "id, data, seq, at_ms, kind, device, crc"


@dataclass(slots=True)
class ChannelRow:
    """A channel as the disk knows it."""

    name: str
    next_seq: int
    next_number: int
    seq_reserved: int
    number_reserved: int
    events: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Commit:
    """Everything that one transaction writes."""

    channels: list[ChannelRow]
    inserts: list[tuple[str, Event]]
    deletes: list[tuple[str, Event]]
    forget: list[str]
    cuts: list[str] = field(default_factory=list)
    clean: bool = False

    @property
    def empty(self) -> bool:
        return not (self.channels or self.inserts or self.deletes or self.forget or self.clean)


class OutboxFile:
    """Raises sqlite3.Error where the disk is full, read-only or broken; the caller goes on from memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self.set_aside = ""
        self.written_bytes = 0
        self.commits = 0
        self.damaged_rows = 0

    @property
    def db(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the outbox file is not open")
        return self._db

    # -- life ----------------------------------------

    def open(self) -> tuple[list[ChannelRow], list[str] | None]:
        """The channels, and the messages that were under way when the last process ended in order (None if it
        did not). A damaged file is set aside."""
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if self._db is not None:
                self._db.close()
            aside = f"{self._path}.damaged-{int(time.time())}"
            log.error("outbox_set_aside", file=str(self._path), aside=aside, error=str(error))
            for suffix in ("", "-wal", "-shm"):
                part = Path(f"{self._path}{suffix}")
                if part.exists():
                    part.replace(f"{aside}{suffix}")
            self.set_aside = aside
            return self._open()

    def _open(self) -> tuple[list[ChannelRow], list[str] | None]:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        # 1 kB pages and FULL: measured to write the least a power cut allows.
        for pragma in ("page_size = 1024", "journal_mode = WAL", "synchronous = FULL", "cache_size = -1024"):
            db.execute(f"PRAGMA {pragma}")
        db.executescript(SCHEMA)
        rows = db.execute(
            "SELECT c.name, c.next_seq, c.next_number, c.seq_reserved, c.number_reserved,"
            " ifnull(a.events, 0), ifnull(a.bytes, 0) FROM channel c LEFT JOIN amount a ON a.channel = c.name"
        ).fetchall()
        marks = dict(db.execute("SELECT name, value FROM mark").fetchall())
        db.execute("DELETE FROM mark")
        orderly = "clean" in marks or not rows
        cuts = [value for name, value in marks.items() if name != "clean"]
        return [ChannelRow(*row) for row in rows], cuts if orderly else None

    def last_id(self) -> int:
        """The greatest event id in use."""
        return int(self.db.execute("SELECT ifnull(max(id), 0) FROM event").fetchone()[0])

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    # -- writing ----------------------------------------

    def commit(self, work: Commit) -> None:
        """One transaction, on the disk when it returns."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            for name in work.forget:
                self._forget(name)
            for row in work.channels:
                db.execute(
                    "INSERT OR REPLACE INTO channel VALUES(?, ?, ?, ?, ?)",
                    (row.name, row.next_seq, row.next_number, row.seq_reserved, row.number_reserved),
                )
            self._insert(work.inserts)
            self._delete(work.deletes)
            for cut in work.cuts:
                db.execute("INSERT OR REPLACE INTO mark VALUES('cut ' || ?, ?)", (hash(cut), cut))
            if work.clean:
                db.execute("INSERT OR REPLACE INTO mark VALUES('clean', 'yes')")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.commits += 1

    def _forget(self, name: str) -> None:
        for table, column in (("event", "channel"), ("amount", "channel"), ("channel", "name")):
            self.db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))

    def _insert(self, events: Sequence[tuple[str, Event]]) -> None:
        self.db.executemany(
            "INSERT OR REPLACE INTO event VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (e.id, channel, e.seq, e.at_ms, e.kind, e.device, e.data, zlib.crc32(e.data))
                for channel, e in events
            ],
        )
        self._account(events, 1)
        self.written_bytes += sum(len(e.data) for _, e in events)

    def _delete(self, events: Sequence[tuple[str, Event]]) -> None:
        ids = [event.id for _, event in events]
        for start in range(0, len(ids), DELETE_AT_ONCE):
            some = ids[start : start + DELETE_AT_ONCE]
            self.db.execute(f"DELETE FROM event WHERE id IN ({','.join('?' * len(some))})", some)
        self._account(events, -1)

    def _account(self, events: Sequence[tuple[str, Event]], sign: int) -> None:
        sums: dict[str, tuple[int, int]] = {}
        for channel, event in events:
            count, size = sums.get(channel, (0, 0))
            sums[channel] = count + sign, size + sign * event.cost_bytes
        for channel, (count, size) in sums.items():
            self._amount(channel, count, size)

    def _amount(self, channel: str, count: int, size_bytes: int) -> None:
        self.db.execute(
            "INSERT INTO amount VALUES(?, ?, ?) ON CONFLICT(channel) DO UPDATE SET"
            " events = max(0, events + excluded.events), bytes = max(0, bytes + excluded.bytes)",
            (channel, count, size_bytes),
        )

    # -- reading ----------------------------------------

    def load(self, channel: str, span: tuple[int, int], limit_bytes: int, skip: Set[int]) -> list[Event]:
        """The oldest events between two ids (exclusive), about `limit_bytes` of them, undamaged."""
        cursor = self.db.execute(
            f"SELECT {COLUMNS} FROM event WHERE channel = ? AND id > ? AND id < ? ORDER BY id",
            (channel, *span),
        )
        events: list[Event] = []
        size_bytes = 0
        for id_, data, seq, at_ms, kind, device, crc in cursor:
            if id_ in skip:
                continue
            if not isinstance(data, bytes) or zlib.crc32(data) != crc:
                self.damaged_rows += 1
                continue
            event = Event(id_, data, seq, at_ms, kind, device, 0.0, Kept.ON_DISK)
            events.append(event)
            size_bytes += event.cost_bytes
            if size_bytes >= limit_bytes:
                break
        cursor.close()
        return events

    def by_id(self, ids: Sequence[int]) -> dict[int, Event]:
        """These events, where they are (still) there."""
        found: dict[int, Event] = {}
        for start in range(0, len(ids), DELETE_AT_ONCE):
            some = ids[start : start + DELETE_AT_ONCE]
            rows = self.db.execute(
                f"SELECT {COLUMNS} FROM event WHERE id IN ({','.join('?' * len(some))})", some
            )
            for id_, data, seq, at_ms, kind, device, crc in rows:
                if zlib.crc32(data) == crc:
                    found[id_] = Event(id_, data, seq, at_ms, kind, device, 0.0, Kept.ON_DISK)
        return found

    # -- making room ----------------------------------------

    def replace(self, channel: str, old: Sequence[Event], new: Sequence[Event]) -> None:
        """Fewer events in the place of many, in one transaction."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            self._delete([(channel, event) for event in old])
            self._insert([(channel, event) for event in new])
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
