"""How many ids of commands are remembered, and whose make room."""

import sqlite3
from contextlib import closing

import pytest

from device_agent.store.journal import known_commands
from device_agent.store.journal.journal import SCHEMA
from device_agent.store.journal.known_commands import (
    HOUR_S,
    KEEP_S,
    ROW_BYTES,
    TRIM_SQL,
    KnownCommands,
    digest,
)
from device_agent.store.row_checksums import prepare


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


def test_of_one_caller_the_newest_keep_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_commands, "COMMANDS_MAX", 3)
    known = KnownCommands()
    for number in range(5):
        known.put(("alice", str(number)), b"")
    assert ids_of(known, "alice") == ["2", "3", "4"]
    assert all(("alice", str(number)) in known for number in range(5)), "the others without their answers"
    assert (known.answer(("alice", "0")), ("bob", "0") in known) == (b"", False)


def test_a_flood_loses_its_own_answers_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert known.answer(("alice", "0")) == b"", "answered, it makes room"
    assert ("alice", "0") in known


def test_the_disk_keeps_what_the_memory_keeps() -> None:
    most = str(50 * ROW_BYTES)
    with closing(sqlite3.connect(":memory:")) as db:
        prepare(db, SCHEMA, {})
        for caller, count, ack in (("alice", 10, b"done"), ("mallory", 1000, b"x" * 400)):
            for number in range(count):
                row = (caller, str(number), number, b"", ack)
                db.execute("INSERT INTO command(caller, id, at_ms, what, ack) VALUES(?, ?, ?, ?, ?)", row)
        db.create_function("digest", 1, digest)
        for sql in TRIM_SQL:
            db.execute(sql.replace(str(known_commands.TOTAL_MAX_BYTES), most))
        left = db.execute("SELECT caller, count(*), max(at_ms) FROM command GROUP BY caller").fetchall()
        (size_bytes,) = db.execute(
            f"SELECT sum({ROW_BYTES} + length(id) + length(ack)) FROM command"
        ).fetchone()
        used = db.execute("SELECT caller, digest, at_ms FROM used ORDER BY at_ms").fetchall()
    assert used[:2] == [("mallory", digest("0"), 0), ("mallory", digest("1"), 1)]
    assert len(used) == 1000 - left[1][1]
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


def test_whoever_has_used_up_his_ids_waits_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_commands, "IDS_MAX", 100)
    monkeypatch.setattr(known_commands, "COMMANDS_MAX", 10)
    now_s = [1000.0]
    known = KnownCommands(lambda: now_s[0])
    used = 0
    while not known.full_s("mallory"):
        known.put(("mallory", str(used)), b"done")
        used += 1
    assert used == 50, "as many as are left"
    assert KEEP_S - 1 < known.full_s("mallory") <= KEEP_S
    assert not known.full_s("alice")
    assert all(("mallory", str(number)) in known for number in range(used))
    now_s[0] += KEEP_S + 2 * HOUR_S
    assert not known.full_s("mallory"), "his day is over"
    assert not any(("mallory", str(number)) in known for number in range(used))


def test_what_an_earlier_process_knew_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    known = KnownCommands(lambda: now_s[0])
    known.put_used(sorted((("alice", digest(str(number))) for number in range(1000)), key=lambda row: row[1]))
    assert all(("alice", str(number)) in known for number in range(1000))
    assert ("alice", "1000") not in known
    now_s[0] += KEEP_S
    assert ("alice", "7") in known, "a day at least"
