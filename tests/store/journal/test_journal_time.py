"""What the Journal remembers of commands and tasks when the clock is not set, or jumps."""

from pathlib import Path

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.messages.acks import Ack
from device_agent.network import StartTask
from device_agent.store.journal.journal import DAY_MS, NEWEST_KEPT, TASK_KEEP_MS, Journal
from device_agent.store.store_thread import StoreThread

TRUE_MS = EARLIEST_TRUE_MS + 90 * DAY_MS


class Lives:
    """One journal over several processes, at times that are chosen."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.thread = StoreThread()
        self.now_ms = TRUE_MS

    async def life(self) -> Journal:
        journal = Journal(self.path, self.thread, lambda: self.now_ms)
        await journal.open()
        return journal

    async def command(self, journal: Journal, id_: str) -> None:
        assert await journal.first_answer("alice", id_) is None
        await journal.begin_command("alice", id_, "valve", self.now_ms)
        journal.finish_command("alice", Ack(id_), self.now_ms)

    async def known(self, *ids: str) -> list[bool]:
        journal = await self.life()
        found = [await journal.first_answer("alice", id_) == Ack(id_) for id_ in ids]
        await journal.close()
        return found


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path)


async def test_a_command_from_before_the_time_was_known_is_remembered_for_a_day(lives: Lives) -> None:
    lives.now_ms = 60_000
    journal = await lives.life()
    await lives.command(journal, "early")
    await journal.close()
    lives.now_ms = TRUE_MS
    assert await lives.known("early") == [True]
    await lives.thread.close()


async def test_a_jump_of_years_forgets_no_recent_command_and_no_recent_task(lives: Lives) -> None:
    journal = await lives.life()
    await lives.command(journal, "now")
    journal.begin_task(StartTask("t1", "request", caller=None, org="o"), lives.now_ms)  # type: ignore[arg-type]
    journal.end_task("t1", lives.now_ms)
    await journal.flushed()
    await journal.close()
    for jump_ms in (4000 * DAY_MS, -80 * DAY_MS, 0):
        lives.now_ms = TRUE_MS + jump_ms
        assert await lives.known("now") == [True]
    again = await lives.life()
    assert again.knows_task("t1")
    await again.close()
    await lives.thread.close()


async def test_what_is_old_gives_way_by_the_clock(lives: Lives) -> None:
    journal = await lives.life()
    for n in range(NEWEST_KEPT + 50):
        journal.finish_command("alice", Ack(f"c{n}"), lives.now_ms)
    await journal.flushed()
    await journal.close()
    lives.now_ms += DAY_MS + 1
    assert await lives.known("c0", "c49", "c50") == [False, False, True]
    assert TASK_KEEP_MS > DAY_MS
    await lives.thread.close()


async def test_tokens_lie_where_nobody_else_reads(lives: Lives) -> None:
    journal = await lives.life()
    assert lives.path.stat().st_mode & 0o077 == 0
    await journal.close()
    await lives.thread.close()
