"""The outbox on disk: one SQLite file, used on the store thread only.

An event is a row with a checksum. A channel has one row for its numbers, reserved ahead, and one for the
count and size of its events, so that a start with a million events reads a handful of rows.
"""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from device_agent.store.files import set_aside
from device_agent.store.outbox.crash_records import Record
from device_agent.store.outbox.event import DiskState, Event
from device_agent.store.salvage import Damaged, is_damage, readable
from device_agent.store.store_thread import written_bytes

log = structlog.get_logger("outbox")

VERSION = 2
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS channel(
    name TEXT PRIMARY KEY, next_seq INTEGER NOT NULL, next_number INTEGER NOT NULL,
    seq_reserved INTEGER NOT NULL, number_reserved INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, seq INTEGER, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    device TEXT NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS event_of_channel ON event(channel, id);
CREATE TABLE IF NOT EXISTS amount(
    channel TEXT PRIMARY KEY, events INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cut(channel TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS loss(channel TEXT PRIMARY KEY, losses TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
# 1 kB pages and FULL: measured to write the least that is safe in a power cut. The log is bounded, and pages
# that an outage added can be released afterwards.
PRAGMAS = (
    "page_size = 1024",
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = FULL",
    "cache_size = -1024",
    "journal_size_limit = 2000000",
)
PAGE_BYTES = 1024
# Free pages beyond this are released once the outbox is empty, a few thousand at a time.
FREE_PAGES_KEPT = 2000
FREE_PAGES_AT_ONCE = 4000
# SQLite takes this many values in one statement on every build.
DELETE_AT_ONCE = 500
# A channel with a million events is deleted in steps.
FORGET_AT_ONCE = 5000
NO_LOSSES = "[]"
COLUMNS = "id, channel, data, seq, at_ms, kind, device, crc"


@dataclass(slots=True)
class ChannelRow:
    """A channel as the disk knows it. `losses`: what is to be told, as JSON (`Loss.record`)."""

    name: str
    next_seq: int
    next_number: int
    seq_reserved: int
    number_reserved: int
    events: int = 0
    bytes: int = 0
    losses: str = NO_LOSSES


@dataclass(slots=True)
class OutboxContents:
    """What a start finds in the file. `in_flight`: messages not acknowledged, as crash records.

    `clean`: the last process ended in order. `in_doubt`: channels whose last numbers are not known, from an
    earlier start that did not open them.
    """

    rows: list[ChannelRow]
    in_flight: list[Record]
    clean: bool
    in_doubt: set[str]
    last_id: int


@dataclass(slots=True)
class Commit:
    """Everything that one transaction writes.

    `replacements` take the place of rows with the same ids. `in_flight` has the JSON of a crash record by
    channel; None removes it.
    """

    channels: list[ChannelRow]
    inserts: list[tuple[str, Event]]
    deletes: list[tuple[str, int]]
    forget: list[str]
    replacements: list[tuple[str, Event]] = field(default_factory=list)
    in_flight: dict[str, str | None] = field(default_factory=dict)
    clean: bool = False
    in_doubt: Set[str] = frozenset()


class OutboxFile:
    """Methods raise sqlite3.Error or OSError where the disk is full, read-only or broken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self.set_aside = ""
        self.written_bytes = 0
        """What this file has caused to be written to the disk since the start, as the kernel counts it."""

    @property
    def is_open(self) -> bool:
        return self._db is not None

    @property
    def db(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the outbox file is not open")
        return self._db

    # -- opening and closing ----------------------------------------

    def open(self) -> OutboxContents:
        """Find what the last process left. A damaged file is set aside, what is whole of it saved."""
        try:
            return self._open()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self.close()
            if not is_damage(error):
                raise
            return self.begin_anew(error)

    def begin_anew(self, why: BaseException, known: Iterable[int] = ()) -> OutboxContents:
        """Set the file aside and begin a new one with what is whole in it, except the events `known`."""
        self.close()
        aside = set_aside(self._path)
        self.set_aside = str(aside)
        log.error("outbox_set_aside", file=str(self._path), aside=self.set_aside, error=str(why))
        self._open()
        # Of another version too: the checksum of a row says whether it means what it meant.
        with self._transaction():
            saved = self._salvage(aside, set(known))
        log.warning("outbox_begun_anew", events_saved=saved)
        found = self._open()
        found.clean = False
        return found

    def _open(self) -> OutboxContents:
        self.close()
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        for pragma in PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise Damaged(f"the outbox is of version {version}, this program's is {VERSION}")
        db.executescript(SCHEMA)
        rows = [
            ChannelRow(*row)
            for row in db.execute(
                "SELECT c.name, c.next_seq, c.next_number, c.seq_reserved, c.number_reserved,"
                " ifnull(a.events, 0), ifnull(a.bytes, 0), ifnull(l.losses, '[]') FROM channel c"
                " LEFT JOIN amount a ON a.channel = c.name LEFT JOIN loss l ON l.channel = c.name"
            )
        ]
        in_flight = [json.loads(record) for (record,) in db.execute("SELECT record FROM cut")]
        marks = {name for (name,) in db.execute("SELECT name FROM mark")}
        last_id = db.execute("SELECT ifnull(max(id), 0) FROM event").fetchone()[0]
        if "clean" in marks:
            db.execute("DELETE FROM mark WHERE name = 'clean'")
        in_doubt = {name.removeprefix("doubt ") for name in marks if name.startswith("doubt ")}
        return OutboxContents(rows, in_flight, "clean" in marks, in_doubt, int(last_id))

    def _salvage(self, aside: Path, known: Set[int]) -> int:
        counted: dict[str, tuple[int, int]] = {}
        saved: dict[str, int] = {}
        tables = (
            ("channel", "name, next_seq, next_number, seq_reserved, number_reserved"),
            ("amount", "channel, events, bytes"),
            ("loss", "channel, losses"),
            ("event", COLUMNS),
        )
        for table, row in readable(aside, tables):
            if table == "channel":
                self.db.execute("INSERT OR IGNORE INTO channel VALUES(?, ?, ?, ?, ?)", row)
            elif table == "loss":
                self.db.execute("INSERT OR IGNORE INTO loss VALUES(?, ?)", row)
            elif table == "amount":
                counted[row[0]] = row[1], row[2]
            elif (event := _event(row)) is not None and row[0] not in known:
                saved[row[1]] = saved.get(row[1], 0) + 1
                self._insert([(row[1], event)])
        # What the amounts count and is not there becomes a gap when its place in the backlog comes.
        for channel, (count, size_bytes) in counted.items():
            missing = count - saved.get(channel, 0)
            if missing > 0:
                self._amount(channel, missing, missing * size_bytes // max(1, count))
        return sum(saved.values())

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    # -- writing ----------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Durable when it ends, or not done at all."""
        db, before = self.db, written_bytes()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        finally:
            self.written_bytes += written_bytes() - before

    def commit(self, work: Commit) -> list[str]:
        """One transaction, durable on return; the channels of `forget` that still have rows."""
        db = self.db
        with self._transaction():
            unfinished = [name for name in work.forget if not self._forget(name)]
            for row in work.channels:
                self._write_channel(row)
            self._delete([event.id for _, event in work.replacements])
            self._insert([*work.replacements, *work.inserts])
            self._delete([id_ for _, id_ in work.deletes])
            self._write_in_flight(work.in_flight)
            if work.clean:
                marks = [("clean",), *((f"doubt {name}",) for name in work.in_doubt)]
                db.execute("DELETE FROM mark")
                db.executemany("INSERT INTO mark VALUES(?, 'yes')", marks)
        return unfinished

    def _write_channel(self, row: ChannelRow) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO channel VALUES(?, ?, ?, ?, ?)",
            (row.name, row.next_seq, row.next_number, row.seq_reserved, row.number_reserved),
        )
        if row.losses == NO_LOSSES:
            self.db.execute(
                "DELETE FROM loss WHERE channel = ?", (row.name,)
            )  # writes nothing if none is there
        else:
            self.db.execute("INSERT OR REPLACE INTO loss VALUES(?, ?)", (row.name, row.losses))

    def _write_in_flight(self, records: Mapping[str, str | None]) -> None:
        for channel, record in records.items():
            if record is None:
                self.db.execute("DELETE FROM cut WHERE channel = ?", (channel,))
            else:
                self.db.execute("INSERT OR REPLACE INTO cut VALUES(?, ?)", (channel, record))

    def _forget(self, name: str) -> bool:
        """Delete up to `FORGET_AT_ONCE` events of a channel; True when nothing is left of it."""
        step = "SELECT id FROM event WHERE channel = ? LIMIT ?"
        gone = self.db.execute(f"DELETE FROM event WHERE id IN ({step})", (name, FORGET_AT_ONCE)).rowcount
        if gone == FORGET_AT_ONCE:
            return False
        for table in ("amount", "cut", "loss"):
            self.db.execute(f"DELETE FROM {table} WHERE channel = ?", (name,))
        self.db.execute("DELETE FROM channel WHERE name = ?", (name,))
        return True

    def _insert(self, events: Sequence[tuple[str, Event]]) -> None:
        self.db.executemany(
            f"INSERT OR REPLACE INTO event({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (e.id, channel, e.data, e.seq, e.at_ms, e.kind, e.device, _checksum(channel, e))
                for channel, e in events
            ],
        )
        self._account([(channel, event.cost_bytes) for channel, event in events], 1)

    def _delete(self, ids: Sequence[int]) -> None:
        """Counts what was really there: a delete may come twice after a failure."""
        for start in range(0, len(ids), DELETE_AT_ONCE):
            some = ids[start : start + DELETE_AT_ONCE]
            sql = (
                f"DELETE FROM event WHERE id IN ({','.join('?' * len(some))}) RETURNING channel, length(data)"
            )
            gone = self.db.execute(sql, some).fetchall()
            self._account([(channel, Event.cost_of(size_bytes)) for channel, size_bytes in gone], -1)

    def _account(self, costs: Sequence[tuple[str, int]], sign: int) -> None:
        sums: dict[str, tuple[int, int]] = {}
        for channel, cost_bytes in costs:
            count, size = sums.get(channel, (0, 0))
            sums[channel] = count + sign, size + sign * cost_bytes
        for channel, (count, size) in sums.items():
            self._amount(channel, count, size)

    def _amount(self, channel: str, count: int, size_bytes: int) -> None:
        self.db.execute(
            "INSERT INTO amount VALUES(?, ?, ?) ON CONFLICT(channel) DO UPDATE SET"
            " events = max(0, events + excluded.events), bytes = max(0, bytes + excluded.bytes)",
            (channel, count, size_bytes),
        )

    def release_pages(self) -> None:
        """Return a part of the free pages to the file system, where there are many."""
        if self.db.execute("PRAGMA freelist_count").fetchone()[0] > FREE_PAGES_KEPT:
            before = written_bytes()
            # `execute` would run one step of it, which is one page; a script runs all.
            self.db.executescript(f"PRAGMA incremental_vacuum({FREE_PAGES_AT_ONCE})")
            self.written_bytes += written_bytes() - before

    # -- reading ----------------------------------------

    def load(
        self, channel: str, span: tuple[int, int], limit_bytes: int, skip: Set[int]
    ) -> tuple[list[Event], list[Event]]:
        """The oldest events between two ids (exclusive), about `limit_bytes`: whole ones, damaged ones."""
        cursor = self.db.execute(
            f"SELECT {COLUMNS} FROM event WHERE channel = ? AND id > ? AND id < ? ORDER BY id",
            (channel, *span),
        )
        events: list[Event] = []
        damaged: list[Event] = []
        size_bytes = 0
        for row in cursor:
            if row[0] in skip:
                continue
            event = _event(row)
            if event is None:
                damaged.append(_damaged_event(row))
                continue
            events.append(event)
            size_bytes += event.cost_bytes
            if size_bytes >= limit_bytes:
                break
        cursor.close()
        return events, damaged

    def by_id(self, ids: Sequence[int]) -> dict[int, Event]:
        """These events, where they are (still) there, and whole."""
        found: dict[int, Event] = {}
        for start in range(0, len(ids), DELETE_AT_ONCE):
            some = ids[start : start + DELETE_AT_ONCE]
            sql = f"SELECT {COLUMNS} FROM event WHERE id IN ({','.join('?' * len(some))})"
            events: Iterable[Event | None] = map(_event, self.db.execute(sql, some))
            found |= {event.id: event for event in events if event is not None}
        return found


def _checksum(channel: str, event: Event) -> int:
    """Over all columns of a row."""
    rest = f"{event.id} {channel} {event.seq} {event.at_ms} {event.kind} {event.device}"
    return zlib.crc32(event.data, zlib.crc32(rest.encode()))


def _event(row: tuple[Any, ...]) -> Event | None:
    """None where a bit of the row has changed."""
    id_, channel, data, seq, at_ms, kind, device, crc = row
    if not isinstance(data, bytes):
        return None
    event = Event(id_, data, seq, at_ms, kind, device, 0.0, DiskState.STORED)
    return event if _checksum(str(channel), event) == crc else None


def _damaged_event(row: tuple[Any, ...]) -> Event:
    """A damaged row as an event: its key is right, the rest is as it was read."""
    id_, channel, data, seq, at_ms, *_ = row
    data = data if isinstance(data, bytes) else str(data).encode()
    log.error(
        "outbox_event_damaged", id=id_, channel=channel, seq=seq, data=data[:400].decode(errors="replace")
    )
    # Nobody knows which of it has changed: the number counts if both places have it.
    seq = seq if isinstance(seq, int) and b'"seq":%d,' % seq in data else None
    return Event(id_, data, seq, at_ms if isinstance(at_ms, int) else 0, "damaged", "", 0.0, DiskState.STORED)
