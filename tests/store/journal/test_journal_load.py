"""However much one caller has the Journal write, others wait for a few commits, and the file stays small."""

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from device_agent.messages.acks import Ack
from device_agent.store.journal import hash_chain, known_commands
from device_agent.store.journal import journal as journal_module
from device_agent.store.journal.journal import DAY_MS, Journal
from device_agent.store.journal.safe_transitions import SafeTransition
from device_agent.store.store_thread import StoreThread

NOW_MS = 1_800_000_000_000


@pytest.fixture
async def thread() -> AsyncIterator[StoreThread]:
    thread = StoreThread()
    yield thread
    await thread.close()


async def opened(folder: Path, thread: StoreThread, name: str = "journal.db") -> tuple[Journal, list[str]]:
    """A Journal, and its commits from now on."""
    journal = Journal(folder / name, thread, lambda: NOW_MS)
    await journal.open()
    commits: list[str] = []
    assert journal._db is not None
    journal._db.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    return journal, commits


async def test_what_waits_for_the_disk_is_one_commit(tmp_path: Path, thread: StoreThread) -> None:
    journal, commits = await opened(tmp_path, thread)
    slow_disk = threading.Event()
    thread.later(lambda: slow_disk.wait(30))
    for number in range(2000):
        journal.finish_command("bob", Ack(f"c{number}"), NOW_MS)
        journal.actuation(NOW_MS, "session bob", "valve", "on=True", "rejected", "too_soon")
        journal.note_session("t", {"announced": []})
    assert await journal.first_answer("alice", "mine") is None
    slow_disk.set()
    await journal.begin_command("alice", "mine", "valve", NOW_MS)
    assert len(commits) == 1
    await journal.flushed()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        assert db.execute("SELECT count(*) FROM command").fetchone()[0] == 2001
        assert db.execute("SELECT count(*) FROM actuation").fetchone()[0] == 2000
    await journal.close()


async def test_a_command_is_two_commits_one_before_and_one_after_it(
    tmp_path: Path, thread: StoreThread
) -> None:
    journal, commits = await opened(tmp_path, thread)
    assert await journal.first_answer("alice", "mine") is None
    await journal.begin_command("alice", "mine", "valve", NOW_MS)
    assert len(commits) == 1
    busy = threading.Event()
    thread.later(lambda: busy.wait(30))
    journal.note_transitions("boot", [SafeTransition("valve", "on", 5.0, away=True)])
    journal.finish_command("alice", Ack("mine"), NOW_MS)
    journal.actuation(NOW_MS, "session alice", "valve", "on=True", "done")
    busy.set()
    await journal.flushed()
    assert len(commits) == 2
    assert len(await journal.transitions("boot", 6.0)) == len(await journal.actuations()) == 1
    await journal.close()


async def test_a_chain_that_cannot_be_written_keeps_no_command_from_being_recorded(
    tmp_path: Path, thread: StoreThread
) -> None:
    journal, _ = await opened(tmp_path, thread)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db, db:
        db.execute("DROP TABLE chain")
    assert await journal.first_answer("alice", "mine") is None
    journal.actuation(NOW_MS, "session alice", "valve", "on=True", "done")
    await journal.begin_command("alice", "mine", "valve", NOW_MS)
    assert journal.figures()["disk_failures"] == 1
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db, db:
        assert db.execute("SELECT caller, id FROM command").fetchall() == [("alice", "mine")]
        db.executescript(hash_chain.SCHEMA)
    await journal.close()
    # What waited is written as soon as it can be
    assert hash_chain.newest(tmp_path / "journal.db", 9)[0]["what"] == "on=True"


async def test_the_disk_forgets_what_memory_forgets(
    tmp_path: Path, thread: StoreThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_commands, "COMMANDS_MAX", 50)
    now_ms = [NOW_MS]
    journal = Journal(tmp_path / "journal.db", thread, lambda: now_ms[0])
    await journal.open()

    async def use(some: range) -> list[int]:
        for number in some:
            assert await journal.first_answer("bob", str(number)) is None
            journal.finish_command("bob", Ack(str(number)), now_ms[0])
        await journal.flushed()
        with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
            return [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("command", "used")]

    assert await use(range(200)) == [50, 150]
    now_ms[0] += DAY_MS + 1
    # Two whose day is over go for each that comes
    assert await use(range(200, 260)) == [50, 150 + 60 - 2 * 60]
    assert await use(range(260, 400)) == [50, 150]
    await journal.close()
    again = Journal(tmp_path / "journal.db", thread, lambda: now_ms[0])
    await again.open()
    assert [again.knows_command("bob", str(n)) for n in (199, 200, 349, 350, 399)] == [False] + [True] * 4
    await again.close()


async def test_a_full_journal_makes_a_command_no_more_work(
    tmp_path: Path, thread: StoreThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of SQLite's machine: no look through all rows, for which the next command would wait."""
    steps: list[int] = []
    for kept in (20, 2000):
        monkeypatch.setattr(known_commands, "COMMANDS_MAX", kept)
        journal, _ = await opened(tmp_path, thread, f"{kept}.db")
        for number in range(3 * kept):
            journal.finish_command("bob", Ack(f"before {number}"), NOW_MS)
        await journal.flushed()
        taken: list[None] = []
        assert journal._db is not None
        journal._db.set_progress_handler(lambda taken=taken: taken.append(None), 10)
        for number in range(3000):
            journal.finish_command("bob", Ack(f"now {number}"), NOW_MS)
        await journal.flushed()
        steps.append(len(taken))
        await journal.close()
    assert steps[1] < 1.5 * steps[0]


async def test_the_file_is_bounded_in_bytes(
    tmp_path: Path, thread: StoreThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_chain, "FILE_MAX_BYTES", 1_000_000)
    monkeypatch.setattr(hash_chain, "TRIM_ROWS", 100)
    monkeypatch.setattr(known_commands, "TOTAL_MAX_BYTES", 200_000)
    trim = [sql.replace("4000000", "200000") for sql in known_commands.TRIM_SQL]
    monkeypatch.setattr(journal_module, "TRIM_SQL", trim)
    path = tmp_path / "journal.db"
    for _ in range(2):
        journal = Journal(path, thread, lambda: NOW_MS)
        await journal.open()
        for number in range(3000):
            journal.finish_command("bob", Ack(f"{number:0200}"), NOW_MS)
            journal.actuation(NOW_MS, "session bob", "valve", "x" * 500, "done", "y" * 500)
            if number % 50 == 0:
                await journal.flushed()
        await journal.close()
    assert path.stat().st_size < 2_000_000
    verdict = hash_chain.verify(path)
    assert verdict["ok"]
    assert verdict["last"] == 6000
    assert len(list(journal._commands)) < 1000
    again = Journal(path, thread, lambda: NOW_MS)
    await again.open()
    assert again.knows_command("bob", f"{0:0200}"), "an id is known after its answer is gone"
    told = await again.first_answer("bob", f"{0:0200}")
    assert told is not None
    assert told.state == "unknown"
    assert not again.knows_command("alice", f"{0:0200}")
    await again.close()
