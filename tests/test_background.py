"""Background tasks are started again, later each time; a wait ends with the first of several."""

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from device_agent import background
from device_agent.background import TURN_AFTER_S, BackgroundTasks, Backoff, Turns, first_of


async def test_a_failure_after_a_long_life_is_not_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven failures in three years must not leave an actuator unwatched for a minute."""
    monkeypatch.setattr(background, "RESTART_FIRST_S", 0.01)
    monkeypatch.setattr(background, "RESTART_MAX_S", 0.04)
    now_s = 0.0
    ages = iter([0.0, 0.0, 0.0, 0.1, 0.0])
    ended = asyncio.Event()

    async def work() -> None:
        nonlocal now_s
        age_s = next(ages, None)
        if age_s is None:
            ended.set()
            return
        now_s += age_s
        raise ValueError("a bug")

    tasks = BackgroundTasks("test", monotonic_s=lambda: now_s)
    with capture_logs() as logs:
        tasks.run_forever("watch", work)
        async with asyncio.timeout(30):
            await ended.wait()
    await tasks.close()
    assert [entry["again_in_s"] for entry in logs] == [0.01, 0.02, 0.04, 0.01, 0.02]


async def test_a_failure_is_counted_under_the_first_word_of_its_name_and_takes_nobody_along() -> None:
    tasks = BackgroundTasks("test")
    other = asyncio.Event()

    async def fails() -> None:
        raise ValueError("a bug")

    with capture_logs():
        await tasks.spawn("command 17", fails())
        waiting = tasks.spawn("other", other.wait())
    assert tasks.failures == {"command": 1}
    assert not waiting.done()
    other.set()
    await waiting
    assert len(tasks) == 0


async def test_close_cancels_what_runs_and_waits_for_it() -> None:
    tasks, cleaned = BackgroundTasks("test"), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    tasks.spawn("work", work())
    await asyncio.sleep(0)
    await tasks.close()
    assert cleaned.is_set()


async def test_the_first_of_several_waits_ends_the_others() -> None:
    never, cancelled = asyncio.Event(), asyncio.Event()

    async def quick() -> int:
        return 7

    async def slow() -> None:
        try:
            await never.wait()
        finally:
            cancelled.set()

    first, second = await first_of(quick(), slow())
    assert first is not None
    assert first.result() == 7
    assert second is None
    assert cancelled.is_set()


async def test_a_future_that_is_passed_in_stays_its_owners() -> None:
    mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert await first_of(mine, limit_s=0.001) == [None]
    assert not mine.cancelled()
    mine.set_exception(ValueError("a bug"))
    (ended,) = await first_of(mine, limit_s=60)
    assert ended is mine
    with pytest.raises(ValueError, match="a bug"):
        ended.result()


async def test_who_waits_is_cancelled_with_all_its_waits() -> None:
    cancelled = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.ensure_future(first_of(slow()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()


def test_back_off_doubles_up_to_its_end_and_begins_anew() -> None:
    backoff = Backoff(0.5, 3.0, jitter=0.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5
    assert backoff.next_s(0.75) == 0.75
    assert "2 failures" in repr(backoff)


def test_jitter_takes_its_share_at_most() -> None:
    backoff = Backoff(1.0, 1.0, jitter=0.5, rng=random.Random(1))
    waits = [backoff.next_s() for _ in range(1000)]
    assert 0.5 <= min(waits) < 0.52
    assert 0.98 < max(waits) <= 1.0
    full = Backoff(1.0, 1.0, jitter=1.0, rng=random.Random(1))
    assert min(full.next_s() for _ in range(1000)) < 0.02


def test_hundreds_of_failures_overflow_nothing() -> None:
    backoff = Backoff(0.5, 60.0, jitter=0.0)
    assert [backoff.next_s() for _ in range(3000)][-1] == 60.0


async def test_long_work_gives_turns_by_the_time_it_takes_and_not_by_its_pieces() -> None:
    """Turns after each piece would keep other threads from the interpreter."""
    now_s, others = 0.0, 0
    working = True

    async def count_turns() -> None:
        nonlocal others
        while working:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count_turns())
    turns = Turns(lambda: now_s)
    for _ in range(1000):
        now_s += TURN_AFTER_S / 10
        await turns.give()
    working = False
    await task
    assert 90 <= others <= 102
