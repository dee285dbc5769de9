"""How many ids of commands are remembered, and whose make room."""

import sqlite3
from contextlib import closing

import pytest

from device_agent.store.journal import known_commands
from device_agent.store.journal.journal import SCHEMA
from device_agent.store.journal.known_commands import KEEP_S, ROW_BYTES, TRIM_SQL, KnownCommands


def ids_of(known: KnownCommands, caller: str) -> list[str]:
    return [id_ for name, id_ in known if name == caller]


def test_an_answer_is_kept_under_its_caller_and_id() -> None:
    known = KnownCommands()
    known.put(("alice", "1"), None)
    assert ("alice", "1") in known
    assert ("bob", "1") not in known
    assert known.answer(("alice", "1")) is None
    known.put(("alice", "1"), b"answer")
    assert known.answer(("alice", "1")) == b"answer"
    assert known.size_bytes == ROW_BYTES + 1 + 6


def test_of_one_caller_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_commands, "COMMANDS_MAX", 3)
    known = KnownCommands()
    for number in range(5):
        known.put(("alice", str(number)), b"")
    assert ids_of(known, "alice") == ["2", "3", "4"]


def test_a_flood_forgets_its_own_ids_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_commands, "TOTAL_MAX_BYTES", 50 * ROW_BYTES)
    known = KnownCommands()
    for number in range(10):
        known.put(("alice", str(number)), b"done")
    for number in range(1000):
        known.put(("mallory", f"{number:0200}"), b"x" * 100)
    assert ids_of(known, "alice") == [str(number) for number in range(10)]
    assert ids_of(known, "mallory")[-1] == f"{999:0200}"
    assert known.size_bytes <= 50 * ROW_BYTES


def test_what_is_under_way_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_commands, "TOTAL_MAX_BYTES", 3 * ROW_BYTES)
    known = KnownCommands()
    for number in range(10):
        known.put(("alice", str(number)), None)
    assert len(ids_of(known, "alice")) == 10
    known.put(("alice", "0"), b"done")
    assert ("alice", "0") not in known


def test_the_disk_keeps_what_the_memory_keeps() -> None:
    sql = TRIM_SQL.replace(str(known_commands.TOTAL_MAX_BYTES), str(50 * ROW_BYTES))
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        for caller, count, ack in (("alice", 10, b"done"), ("mallory", 1000, b"x" * 400)):
            for number in range(count):
                row = (caller, str(number), number, b"", ack)
                db.execute("INSERT INTO command(caller, id, at_ms, what, ack) VALUES(?, ?, ?, ?, ?)", row)
        db.execute(sql)
        left = db.execute("SELECT caller, count(*), max(at_ms) FROM command GROUP BY caller").fetchall()
        (size_bytes,) = db.execute(
            f"SELECT sum({ROW_BYTES} + length(id) + length(ack)) FROM command"
        ).fetchone()
    assert left[0] == ("alice", 10, 9)
    assert left[1][2] == 999, "of the flood the newest"
    assert size_bytes <= 50 * ROW_BYTES


def test_an_id_is_taken_for_a_day_from_its_answer() -> None:
    now_s = [1000.0]
    known, key = KnownCommands(lambda: now_s[0]), ("alice", "water-1")
    known.put(key, None)
    now_s[0] += KEEP_S - 1
    assert key in known
    known.put(key, b"answer")
    now_s[0] += KEEP_S - 1
    assert (key in known, known.answer(key)) == (True, b"answer")
    now_s[0] += 1
    assert key not in known
    known.put(key, None)
    assert (key in known, known.answer(key)) == (True, None)
