"""A disk that takes no notes: commands are at most once all the same, or are refused."""

import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from device_agent.errors import NotRecorded
from device_agent.messages.acks import Ack
from device_agent.store.journal import command_fallback
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread

NOW_MS = 1_800_000_000_000


class Machine:
    """Disk and memory outlive the processes, which all die suddenly; at the end they are let go."""

    def __init__(self, folder: Path) -> None:
        self.disk, self.memory = folder / "disk", folder / "memory"
        self.disk.mkdir()
        self.memory.mkdir()
        self.lives: list[tuple[Journal, StoreThread]] = []
        self.thread = StoreThread()

    async def start(self) -> Journal:
        self.thread = StoreThread()
        journal = Journal(self.disk / "journal.db", self.thread, lambda: NOW_MS, self.memory)
        self.lives.append((journal, self.thread))
        await journal.open()
        return journal

    async def disk_takes(self, journal: Journal, nothing: bool) -> None:
        """As a disk that is full or turned read-only."""
        sql = f"PRAGMA query_only = {int(nothing)}"
        await self.thread.run(lambda: journal._execute(sql))

    @property
    def log(self) -> Path:
        return self.memory / "journal.log"


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield machine
    for journal, thread in machine.lives:
        await journal.close()
        await thread.close()


async def begin(journal: Journal, id_: str) -> None:
    assert await journal.first_answer("alice", id_) is None, f"{id_} is new"
    await journal.begin_command("alice", id_, "valve", NOW_MS)


async def do(journal: Journal, id_: str) -> None:
    await begin(journal, id_)
    journal.finish_command("alice", Ack(id_), NOW_MS)


async def test_ids_outlive_a_full_disk_and_a_crash(machine: Machine) -> None:
    journal = await machine.start()
    await do(journal, "before")
    await begin(journal, "half")
    await journal.flushed()
    assert not machine.log.exists(), "used only while the disk refuses"
    await machine.disk_takes(journal, nothing=True)
    await do(journal, "full")
    journal.finish_command("alice", Ack("half"), NOW_MS)
    await begin(journal, "cut off")
    await journal.flushed()
    again = await machine.start()
    for id_ in ("before", "full", "half"):
        assert await again.first_answer("alice", id_) == Ack(id_), id_
    assert await again.unfinished_commands() == [("alice", "cut off", "valve")]
    told = await again.first_answer("alice", "cut off")
    assert told is not None
    assert told.state == "unknown"
    # The disk had room at that start: from there on it knows them itself.
    assert not machine.log.exists()
    with closing(sqlite3.connect(machine.disk / "journal.db")) as db:
        assert {row[0] for row in db.execute("SELECT id FROM command")} == {
            "before", "full", "half", "cut off",
        }  # fmt: skip


async def test_the_disk_is_told_when_it_takes_notes_again(machine: Machine) -> None:
    journal = await machine.start()
    await machine.disk_takes(journal, nothing=True)
    await do(journal, "full")
    await journal.flushed()
    assert machine.log.exists()
    await machine.disk_takes(journal, nothing=False)
    await do(journal, "after")
    await journal.flushed()
    assert not machine.log.exists()
    again = await machine.start()
    assert await again.first_answer("alice", "full") == Ack("full")
    assert await again.first_answer("alice", "after") == Ack("after")


async def test_a_journal_that_goes_on_in_a_copy_forgets_nothing_at_the_next_start(machine: Machine) -> None:
    first = await machine.start()
    await do(first, "before")
    await first.close()
    # SQLite cannot open the file with this in its way, whoever asks.
    stone = machine.disk / "journal.db-shm"
    stone.mkdir()
    journal = await machine.start()
    await do(journal, "in the copy")
    await begin(journal, "cut off")
    await journal.flushed()
    for _ in range(2):  # again in a copy, then in its place
        again = await machine.start()
        assert await again.first_answer("alice", "in the copy") == Ack("in the copy")
        assert [id_ for _, id_, _ in await again.unfinished_commands()] == ["cut off"]
        assert await again.first_answer("alice", "before") == Ack("before")
        # A copy stays: it alone has the actuations of its time, for a person to look at.
        assert len(list(machine.disk.parent.glob("device-agent-journal-*"))) == 2
        if stone.is_dir():
            assert machine.log.exists()
            stone.rmdir()
    assert not machine.log.exists()


async def test_where_no_note_can_be_taken_at_all_a_command_is_refused(machine: Machine) -> None:
    journal = await machine.start()
    await do(journal, "before")
    await machine.disk_takes(journal, nothing=True)
    machine.memory.rmdir()
    with pytest.raises(NotRecorded, match="nothing moved"):
        await begin(journal, "refused")
    machine.memory.mkdir()
    await do(journal, "taken")


async def test_a_start_that_cannot_read_what_was_done_carries_out_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await machine.start()
    await do(first, "before")
    await first.close()
    (machine.disk / "journal.db-shm").mkdir()
    machine.memory.rmdir()
    monkeypatch.setattr(tempfile, "tempdir", str(machine.memory))
    journal = await machine.start()
    machine.memory.mkdir()
    with pytest.raises(NotRecorded):
        await begin(journal, "before")


async def test_what_it_has_no_room_for_is_not_carried_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_fallback, "KEEP_BYTES", 20_000)
    journal = await machine.start()
    await machine.disk_takes(journal, nothing=True)
    done = 0
    with suppress(NotRecorded):
        while done < 500:
            await do(journal, f"c{done}")
            done += 1
    await journal.flushed()
    assert 50 < done < 200
    again = await machine.start()
    for number in range(done):
        assert await again.first_answer("alice", f"c{number}") == Ack(f"c{number}")


async def test_a_disk_that_lost_notes_says_so_to_the_next_process(machine: Machine) -> None:
    """The runtime directory, which has them, does not outlive a reboot."""
    journal = await machine.start()
    assert journal.is_complete_since(60)
    await do(journal, "before")
    assert (await machine.start()).is_complete_since(60)
    await machine.disk_takes(journal, nothing=True)
    await do(journal, "full")
    await journal.flushed()
    machine.log.unlink()
    again = await machine.start()
    assert not again.is_complete_since(60)
    assert again.is_complete_since(0)


async def test_notes_that_a_slow_disk_let_wait_too_long_are_lost(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.store.journal.journal.WAITING_MAX", 3)
    journal = await machine.start()
    hangs = threading.Event()
    machine.thread.later(lambda: hangs.wait(10))
    for number in range(5):
        assert await journal.first_answer("alice", str(number)) is None
        journal.finish_command("alice", Ack(str(number)), NOW_MS)
    hangs.set()
    await journal.flushed()
    assert not (await machine.start()).is_complete_since(60)


async def test_a_journal_that_was_set_aside_lost_its_notes(machine: Machine) -> None:
    await do(await machine.start(), "before")
    for life, thread in machine.lives:
        await life.close()
        await thread.close()
    machine.lives.clear()
    (machine.disk / "journal.db").write_bytes(b"no database" * 1000)
    assert not (await machine.start()).is_complete_since(60)
