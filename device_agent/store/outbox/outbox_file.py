"""The outbox on disk: one SQLite file, used on the store thread only.

Rows of events have checksums (`event_rows`). A channel has one row for its numbers, reserved ahead, and for
the count and size of its events, so that a start with a million events reads a handful of rows.
"""

import json
import os
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import structlog

from device_agent.store.files import set_aside
from device_agent.store.outbox.crash_records import Record
from device_agent.store.outbox.event import Event, cost_bytes
from device_agent.store.outbox.event_rows import COLUMNS, DAMAGED, Row, damaged_events, events_of, rows_of
from device_agent.store.salvage import Damaged, is_damage, readable
from device_agent.store.store_thread import written_bytes

log = structlog.get_logger("outbox")

T = TypeVar("T")

VERSION = 3
BEFORE_PACKS = 2
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS channel(
    name TEXT PRIMARY KEY, next_seq INTEGER NOT NULL, next_number INTEGER NOT NULL,
    seq_reserved INTEGER NOT NULL, number_reserved INTEGER NOT NULL,
    events INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, seq INTEGER, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    device TEXT NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS event_of_channel ON event(channel, id);
CREATE TABLE IF NOT EXISTS cut(channel TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS loss(channel TEXT PRIMARY KEY, losses TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
# A file of before packs has rows of one event, which are read as they are, and larger pages until it is
# empty.
UPGRADE = """
BEGIN;
ALTER TABLE channel ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE channel SET (events, bytes) = (a.events, a.bytes) FROM amount a WHERE a.channel = name;
DROP TABLE amount;
PRAGMA user_version = 3;
COMMIT;
"""
PAGE_BYTES = 512
# Small pages and FULL: measured to write the least that is safe in a power cut. The log is bounded.
PRAGMAS = (
    f"page_size = {PAGE_BYTES}",
    "auto_vacuum = NONE",
    "journal_mode = WAL",
    "synchronous = FULL",
    "cache_size = -1024",
    "wal_autocheckpoint = 3000",
    "journal_size_limit = 2000000",
)
# An empty outbox with more free pages than this, or with larger ones, is made small.
FREE_PAGES_KEPT = 4000
SHRINK = f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {PAGE_BYTES}; VACUUM; PRAGMA journal_mode = WAL;"
# A channel with a million events is deleted in steps of so many rows.
FORGET_AT_ONCE = 5000
NO_LOSSES = "[]"
CHANNEL_COLUMNS = "name, next_seq, next_number, seq_reserved, number_reserved, events, bytes"


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
        # A flipped bit costs no more than its row.
        db.text_factory = lambda data: data.decode(errors="replace")
        for pragma in PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, BEFORE_PACKS, VERSION):
            raise Damaged(f"the outbox is of version {version}, this program's is {VERSION}")
        if version == BEFORE_PACKS:
            db.executescript(UPGRADE)
        db.executescript(SCHEMA)
        rows = [
            ChannelRow(*row)
            for row in db.execute(
                f"SELECT {CHANNEL_COLUMNS}, ifnull(losses, '[]')"
                " FROM channel LEFT JOIN loss ON channel = name"
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
            ("channel", CHANNEL_COLUMNS),
            ("channel", CHANNEL_COLUMNS.removesuffix(", events, bytes")),
            ("amount", "channel, events, bytes"),
            ("loss", "channel, losses"),
            ("event", COLUMNS),
        )
        for table, row in readable(aside, tables):
            if table == "channel":
                self.db.execute("INSERT OR IGNORE INTO channel VALUES(?, ?, ?, ?, ?, 0, 0)", row[:5])
                if row[5:]:
                    counted[row[0]] = row[5:]
            elif table == "loss":
                self.db.execute("INSERT OR IGNORE INTO loss VALUES(?, ?)", row)
            elif table == "amount":
                counted[row[0]] = row[1], row[2]
            else:
                some = [event for event in events_of(row) or [] if event.id not in known]
                saved[row[1]] = saved.get(row[1], 0) + len(some)
                self._insert(row[1], some)
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
            for channel, some in by_channel([*work.replacements, *work.inserts]).items():
                self._insert(channel, sorted(some, key=attrgetter("id")))
            for channel, ids in by_channel(work.deletes).items():
                self._change(channel, dict.fromkeys(ids))
            self._write_in_flight(work.in_flight)
            if work.clean:
                marks = [("clean",), *((f"doubt {name}",) for name in work.in_doubt)]
                db.execute("DELETE FROM mark")
                db.executemany("INSERT INTO mark VALUES(?, 'yes')", marks)
        return unfinished

    def _write_channel(self, row: ChannelRow) -> None:
        self.db.execute(
            "INSERT INTO channel VALUES(?, ?, ?, ?, ?, 0, 0) ON CONFLICT(name) DO UPDATE SET"
            " next_seq = excluded.next_seq, next_number = excluded.next_number,"
            " seq_reserved = excluded.seq_reserved, number_reserved = excluded.number_reserved",
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
        for table in ("cut", "loss"):
            self.db.execute(f"DELETE FROM {table} WHERE channel = ?", (name,))
        self.db.execute("DELETE FROM channel WHERE name = ?", (name,))
        return True

    def _insert(self, channel: str, some: Sequence[Event]) -> None:
        """Events in the order of their ids; one whose id is there takes the place of that."""
        newest = self.db.execute("SELECT max(id) FROM event WHERE channel = ?", (channel,)).fetchone()[0] or 0
        self._change(channel, {event.id: event for event in some if event.id <= newest})
        behind = [event for event in some if event.id > newest]
        self._insert_rows(rows_of(channel, behind))
        self._amount(channel, len(behind), cost_bytes(behind))

    def _insert_rows(self, rows: Iterable[Row]) -> None:
        self.db.executemany(f"INSERT OR REPLACE INTO event({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _change(self, channel: str, changes: Mapping[int, Event | None]) -> None:
        """Put events in the places of those with their ids, or between them; None deletes.

        Counts what was really there: a delete may come twice after a failure.
        """
        left = dict(changes)
        count = size = 0
        for key, before, ids in self._rows_with(channel, sorted(changes)):
            merged = {event.id: event for event in before} | {id_: left.pop(id_) for id_ in ids}
            after = [event for _, event in sorted(merged.items()) if event is not None]
            count, size = count + len(after) - len(before), size + cost_bytes(after) - cost_bytes(before)
            self.db.execute("DELETE FROM event WHERE id = ?", (key,))
            self._insert_rows(rows_of(channel, after))
        # A pack of those for which there was no place could lie over rows that are there.
        new = [event for event in left.values() if event is not None]
        self._insert_rows(row for event in new for row in rows_of(channel, [event]))
        self._amount(channel, count + len(new), size + cost_bytes(new))

    def _rows_with(
        self, channel: str, ids: Sequence[int]
    ) -> Iterator[tuple[int, list[Event], Sequence[int]]]:
        """The rows of a channel over which some of these ids (ascending) lie: key, events, and those ids."""
        at = 0
        while at < len(ids):
            sql = f"SELECT {COLUMNS} FROM event WHERE channel = ? AND id >= ? ORDER BY id LIMIT 1"
            row = self.db.execute(sql, (channel, ids[at])).fetchone()
            if row is None:
                return
            events = events_of(row) or damaged_events(row)
            begin, at = bisect_left(ids, events[0].id, at), bisect_right(ids, row[0], at)
            if begin < at:
                yield row[0], events, ids[begin:at]

    def _amount(self, channel: str, count: int, size_bytes: int) -> None:
        if count or size_bytes:
            self.db.execute(
                "UPDATE channel SET events = max(0, events + ?), bytes = max(0, bytes + ?) WHERE name = ?",
                (count, size_bytes, channel),
            )

    def shrink(self) -> None:
        """Return the pages of an empty file to the file system, where they are many or of an earlier size."""
        free, size_bytes = (
            self.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
        )
        if free > FREE_PAGES_KEPT or size_bytes != PAGE_BYTES:
            before = written_bytes()
            self.db.executescript(SHRINK)
            self.written_bytes += written_bytes() - before

    # -- reading ----------------------------------------

    def load(
        self, channel: str, span: tuple[int, int], limit_bytes: int, skip: Set[int]
    ) -> tuple[list[Event], list[Event]]:
        """The oldest events between two ids (exclusive), about `limit_bytes`: whole ones, damaged ones."""
        after_id, before_id = span
        sql = f"SELECT {COLUMNS} FROM event WHERE channel = ? AND id > ? ORDER BY id"
        events: list[Event] = []
        damaged: list[Event] = []
        size_bytes = 0
        for row in self.db.execute(sql, (channel, after_id)):
            some = events_of(row)
            if (row[0] if some is None else some[0].id) >= before_id or size_bytes >= limit_bytes:
                break
            if some is None and row[0] not in skip:
                lost = damaged_events(row)
                damaged += lost
                log.error("outbox_events_damaged", id=row[0], channel=channel, events=len(lost))
            for event in some or ():
                if after_id < event.id < before_id and event.id not in skip and size_bytes < limit_bytes:
                    events.append(event)
                    size_bytes += event.cost_bytes
        return events, damaged

    def by_id(self, channel: str, ids: Iterable[int]) -> dict[int, Event]:
        """These events of a channel, where they are (still) there, and whole."""
        wanted = set(ids)
        rows = self._rows_with(channel, sorted(wanted))
        return {
            event.id: event
            for _, events, _ in rows
            for event in events
            if event.id in wanted and event.kind != DAMAGED
        }


def by_channel(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """The second members of such pairs, by the first."""
    found: dict[str, list[T]] = {}
    for channel, one in pairs:
        found.setdefault(channel, []).append(one)
    return found
