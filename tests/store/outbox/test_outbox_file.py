"""The outbox file: transactions, counts, damaged rows, and what a start finds."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.store.outbox import outbox_file
from device_agent.store.outbox.event import Event, cost_bytes
from device_agent.store.outbox.event_rows import COLUMNS, rows_of
from device_agent.store.outbox.outbox_file import PAGE_BYTES, ChannelRow, Commit, OutboxFile

EVERYTHING = (0, 2**60)
ROW = ChannelRow("s", next_seq=6, next_number=3, seq_reserved=20_000, number_reserved=20_000)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OutboxFile]:
    made = OutboxFile(tmp_path / "outbox.db")
    made.open()
    yield made
    made.close()


def event(id_: int) -> Event:
    return Event(id_, b'{"n":%d}' % id_, id_, 1000 + id_, "reading", "d", 0.0)


def store(file: OutboxFile, *ids: int, channel: str = "s") -> list[str]:
    inserts = [(channel, event(id_)) for id_ in ids]
    return file.commit(Commit([ROW] if channel == "s" else [], inserts, deletes=[], forget=[]))


def store_each(file: OutboxFile, *ids: int) -> None:
    """In a row of its own, as an earlier version stored them all."""
    for id_ in ids:
        store(file, id_)


def ids_of(file: OutboxFile, channel: str = "s") -> list[int]:
    return [found.id for found in file.load(channel, EVERYTHING, 10**9, set())[0]]


def test_a_start_finds_what_was_stored(file: OutboxFile) -> None:
    store(file, 1, 2)
    size = cost_bytes([event(1), event(2)])
    found = file.open()
    assert found.rows == [ChannelRow("s", 6, 3, 20_000, 20_000, events=2, bytes=size)]
    assert (found.last_id, found.clean, found.in_doubt, found.in_flight) == (2, False, set(), [])


def test_an_orderly_end_is_known_once(file: OutboxFile) -> None:
    file.commit(Commit([ROW], [], [], [], clean=True, in_doubt={"t"}))
    found = file.open()
    assert (found.clean, found.in_doubt) == (True, {"t"})
    again = file.open()
    assert (again.clean, again.in_doubt) == (False, {"t"}), "the doubt stays until it is settled"


def test_the_message_in_flight_is_stored_and_removed(file: OutboxFile) -> None:
    file.commit(Commit([], [], [], [], in_flight={"s": '["c","s",1]', "t": '["c","t",1]'}))
    file.commit(Commit([], [], [], [], in_flight={"s": None}))
    assert file.open().in_flight == [["c", "t", 1]]


def test_a_transaction_that_fails_leaves_all_as_it_was(file: OutboxFile) -> None:
    store(file, 1)
    bad = Event(3, b"{}", 3, 1000, None, "d", 0.0)  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        file.commit(Commit([], [("s", event(2)), ("t", bad)], deletes=[("s", 1)], forget=[]))
    assert ids_of(file) == [1]
    assert file.open().rows[0].events == 1


def test_a_delete_that_comes_twice_counts_once(file: OutboxFile) -> None:
    store(file, 1, 2)
    for _ in range(2):
        file.commit(Commit([], [], deletes=[("s", 1)], forget=[]))
    (row,) = file.open().rows
    assert (row.events, row.bytes) == (1, event(2).cost_bytes)


def test_fewer_events_take_the_place_of_many(file: OutboxFile) -> None:
    store(file, 1, 2, 3, 4)
    changed = Event(3, b'{"seq":3}', 3, 1003, "reading", "d", 0.0)
    file.commit(Commit([], [], deletes=[("s", 1), ("s", 2)], forget=[], replacements=[("s", changed)]))
    assert ids_of(file) == [3, 4]
    assert file.by_id("s", [3])[3].data == changed.data
    (row,) = file.open().rows
    assert (row.events, row.bytes) == (2, cost_bytes([changed, event(4)]))


def test_what_is_to_be_told_is_kept_and_outlives_damage(file: OutboxFile) -> None:
    row = replace(ROW, losses='[["overflow",3,1,2,1,3]]')
    file.commit(Commit([row], [], [], []))
    assert file.open().rows[0].losses == row.losses
    assert file.begin_anew(sqlite3.DatabaseError("damage")).rows[0].losses == row.losses
    file.commit(Commit([], [], [], forget=["s"]))
    file.commit(Commit([ROW], [], [], []))
    assert file.open().rows[0].losses == "[]"


def test_loading_keeps_to_span_size_and_channel(file: OutboxFile) -> None:
    store(file, *range(1, 10))
    store(file, 20, channel="other")
    whole, damaged = file.load("s", (2, 8), event(3).cost_bytes * 2, {4})
    assert [found.id for found in whole] == [3, 5]
    assert damaged == []


@pytest.mark.parametrize("change", ["data = x'7b7d'", "seq = 9", "channel = 's', at_ms = 1", "device = 'e'"])
def test_a_changed_row_is_found(file: OutboxFile, change: str) -> None:
    store_each(file, 1, 2)
    file.db.execute(f"UPDATE event SET {change} WHERE id = 1")
    whole, damaged = file.load("s", EVERYTHING, 10**9, set())
    assert ([found.id for found in whole], [found.id for found in damaged]) == ([2], [1])
    assert damaged[0].kind == "damaged"
    assert file.by_id("s", [1, 2]).keys() == {2}


def test_events_are_found_by_their_ids_wherever_they_are(file: OutboxFile) -> None:
    store(file, 1, 2, 3, 5, 6)
    store(file, 4, channel="other")
    store_each(file, 7, 8)
    store(file, 10, 11)
    assert file.by_id("s", [2, 3, 4, 8, 9, 11, 12]).keys() == {2, 3, 8, 11}
    file.commit(Commit([], [], deletes=[("s", n) for n in (1, 3, 4, 6, 7, 10, 11)], forget=[]))
    assert (ids_of(file), ids_of(file, "other")) == ([2, 5, 8], [4])
    assert file.open().rows[0].events == 3


def test_many_events_of_a_commit_are_few_rows_and_keep_their_order(file: OutboxFile) -> None:
    store(file, *range(200, 0, -1))
    store(file, *range(150, 260))
    assert ids_of(file) == list(range(1, 260)), "those that came twice are there once"
    assert file.db.execute("SELECT count(*) FROM event").fetchone()[0] < 12
    assert file.open().rows[0].events == 259


def test_what_comes_between_rows_is_read_in_its_place(file: OutboxFile) -> None:
    """A file that was begun anew gets events again that are older than those it was left."""
    store(file, 5, 6, 9)
    store(file, 3, 7, 12)
    assert ids_of(file) == [3, 5, 6, 7, 9, 12]


@pytest.mark.parametrize("change", ["data = substr(data, 1, 60)", "at_ms = 1", "kind = 'x'"])
def test_a_damaged_pack_says_what_it_had(file: OutboxFile, change: str) -> None:
    store(file, *range(1, 41))
    store(file, 41, 42)
    size = cost_bytes(file.load("s", (0, 41), 10**9, set())[0])
    file.db.execute(f"UPDATE event SET {change} WHERE id = 40")
    whole, damaged = file.load("s", EVERYTHING, 10**9, set())
    assert [found.id for found in whole] == [41, 42]
    assert [found.seq for found in damaged] == list(range(1, 41))
    assert (cost_bytes(damaged), damaged[0].at_ms, damaged[-1].at_ms) == (size, 1001, 1040)
    file.commit(Commit([], [], deletes=[("s", one.id) for one in damaged], forget=[]))
    assert file.open().rows[0].events == 2


def test_of_a_damaged_pack_only_what_is_beyond_doubt_is_said(file: OutboxFile) -> None:
    store(file, 1, 2, 4)
    file.db.execute("UPDATE event SET device = 'x'")
    assert [found.seq for found in file.load("s", EVERYTHING, 10**9, set())[1]] == [None] * 3
    file.db.execute("UPDATE event SET data = cast(data AS TEXT)")
    assert [found.seq for found in file.load("s", EVERYTHING, 10**9, set())[1]] == [None]


def test_a_channel_is_forgotten_in_steps(file: OutboxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "FORGET_AT_ONCE", 4)
    store_each(file, *range(1, 7))
    forget = Commit([], [], [], forget=["s"])
    assert file.commit(forget) == ["s"]
    assert len(ids_of(file)) == 2
    assert file.commit(forget) == []
    assert file.open().rows == []


def test_of_a_file_of_another_version_what_still_means_the_same_is_kept(
    file: OutboxFile, tmp_path: Path
) -> None:
    store_each(file, 1, 2)
    file.db.execute("PRAGMA user_version = 99")
    file.db.execute("UPDATE event SET data = 'other' WHERE id = 2")
    found = file.open()
    assert ids_of(file) == [1]
    assert (found.rows[0].events, found.clean) == (2, False), "the other one becomes a gap"
    assert Path(file.set_aside).parent == tmp_path


def test_a_new_file_has_what_was_whole_and_counts_the_rest_as_missing(file: OutboxFile) -> None:
    store_each(file, 1, 2, 3)
    file.db.execute("UPDATE event SET seq = 77 WHERE id = 2")
    found = file.begin_anew(sqlite3.DatabaseError("damage"), known=[3])
    assert ids_of(file) == [1]
    assert found.rows[0].events == 3, "one whole event and two to be reported as a gap"


BEFORE_PACKS = """
PRAGMA page_size = 1024; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
CREATE TABLE channel(
    name TEXT PRIMARY KEY, next_seq INTEGER NOT NULL, next_number INTEGER NOT NULL,
    seq_reserved INTEGER NOT NULL, number_reserved INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE event(
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, seq INTEGER, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    device TEXT NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX event_of_channel ON event(channel, id);
CREATE TABLE amount(
    channel TEXT PRIMARY KEY, events INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE mark(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO channel VALUES('s', 6, 3, 20000, 20000);
INSERT INTO mark VALUES('clean', 'yes');
PRAGMA user_version = 2;
"""


def before_packs(path: Path) -> int:
    """A file as the version before wrote it, with two events of this size."""
    some = [event(1), event(2)]
    with closing(sqlite3.connect(path)) as db:
        db.executescript(BEFORE_PACKS)
        rows = [row for one in some for row in rows_of("s", [one])]
        db.executemany(f"INSERT INTO event({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("INSERT INTO amount VALUES('s', 2, ?)", (cost_bytes(some),))
        db.commit()
    return cost_bytes(some)


def test_a_file_of_before_packs_goes_on_and_gets_small_pages_once_it_is_empty(tmp_path: Path) -> None:
    size = before_packs(tmp_path / "outbox.db")
    file = OutboxFile(tmp_path / "outbox.db")
    found = file.open()
    assert found.clean
    assert found.rows == [replace(ROW, events=2, bytes=size)]
    assert (ids_of(file), file.set_aside) == ([1, 2], "")
    store(file, 3, 4)
    file.commit(Commit([], [], deletes=[("s", n) for n in (1, 2, 3, 4)], forget=[]))
    file.shrink()
    (row,) = file.open().rows
    assert (row.events, row.bytes, row.next_seq) == (0, 0, ROW.next_seq)
    settings = [file.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "journal_mode")]
    assert settings == [PAGE_BYTES, "wal"]
    store(file, 5)
    assert ids_of(file) == [5]
    file.close()


def test_of_a_damaged_file_of_before_packs_what_is_whole_is_kept(tmp_path: Path) -> None:
    before_packs(tmp_path / "outbox.db")
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db:
        db.executescript("UPDATE event SET seq = 7 WHERE id = 2; PRAGMA user_version = 1;")
    file = OutboxFile(tmp_path / "outbox.db")
    (row,) = file.open().rows
    assert (row.events, row.next_seq, ids_of(file)) == (2, ROW.next_seq, [1]), "one of them becomes a gap"
    assert file.set_aside
    file.close()


def test_without_an_open_file_there_is_an_error(file: OutboxFile) -> None:
    file.close()
    assert not file.is_open
    with pytest.raises(sqlite3.OperationalError, match="not open"):
        file.load("s", EVERYTHING, 1, set())


def test_a_commit_of_twenty_events_writes_few_pages(file: OutboxFile, tmp_path: Path) -> None:
    """Each frame of the log is a page, and goes to the card twice: now, and when the log is taken over."""
    frames = []
    wal = tmp_path / "outbox.db-wal"
    for commit in range(20):
        before = wal.stat().st_size if wal.exists() else 0
        data = b'{"kind":"reading","at":1700000000000,"seq":1,"device":"meter","values":{"flow":10.5}}'
        some = [Event(commit * 20 + n + 1, data, n, 1000, "reading", "meter", 0.0) for n in range(20)]
        file.commit(Commit([ROW], [("stream.greenhouse_7.readings", one) for one in some], [], []))
        frames.append((wal.stat().st_size - before) / (PAGE_BYTES + 24))
    assert sum(frames) / len(frames) <= 8, frames
