"""The outbox file: transactions, counts, damaged rows, and what a start finds."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.store.outbox import outbox_file
from device_agent.store.outbox.event import Event, cost_bytes
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
        file.commit(Commit([], [("s", event(2)), ("s", bad)], deletes=[("s", 1)], forget=[]))
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
    assert file.by_id([3])[3].data == changed.data
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
    store(file, 1, 2)
    file.db.execute(f"UPDATE event SET {change} WHERE id = 1")
    whole, damaged = file.load("s", EVERYTHING, 10**9, set())
    assert ([found.id for found in whole], [found.id for found in damaged]) == ([2], [1])
    assert damaged[0].kind == "damaged"
    assert file.by_id([1, 2]).keys() == {2}


def test_many_ids_are_read_in_steps(file: OutboxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "DELETE_AT_ONCE", 3)
    store(file, *range(1, 11))
    assert file.by_id(range(1, 13)).keys() == set(range(1, 11))
    file.commit(Commit([], [], deletes=[("s", n) for n in range(1, 10)], forget=[]))
    assert ids_of(file) == [10]


def test_a_channel_is_forgotten_in_steps(file: OutboxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "FORGET_AT_ONCE", 4)
    store(file, *range(1, 7))
    forget = Commit([], [], [], forget=["s"])
    assert file.commit(forget) == ["s"]
    assert len(ids_of(file)) == 2
    assert file.commit(forget) == []
    assert file.open().rows == []


def test_of_a_file_of_another_version_what_still_means_the_same_is_kept(
    file: OutboxFile, tmp_path: Path
) -> None:
    store(file, 1, 2)
    file.db.execute("PRAGMA user_version = 99")
    file.db.execute("UPDATE event SET data = 'other' WHERE id = 2")
    found = file.open()
    assert ids_of(file) == [1]
    assert (found.rows[0].events, found.clean) == (2, False), "the other one becomes a gap"
    assert Path(file.set_aside).parent == tmp_path


def test_a_new_file_has_what_was_whole_and_counts_the_rest_as_missing(file: OutboxFile) -> None:
    store(file, 1, 2, 3)
    file.db.execute("UPDATE event SET seq = 77 WHERE id = 2")
    found = file.begin_anew(sqlite3.DatabaseError("damage"), known=[3])
    assert ids_of(file) == [1]
    assert found.rows[0].events == 3, "one whole event and two to be reported as a gap"


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
    assert sum(frames) / len(frames) <= 16, frames
