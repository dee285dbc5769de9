"""The store thread: jobs run in order, their results and errors come back, none is dropped."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from device_agent.store.store_thread import StoreThread


@pytest.fixture
async def thread() -> AsyncIterator[StoreThread]:
    made = StoreThread()
    yield made
    await made.close()


async def test_jobs_run_in_order_on_one_thread_of_their_own(thread: StoreThread) -> None:
    order: list[int] = []
    names = set()

    def job(number: int) -> None:
        order.append(number)
        names.add(threading.current_thread().name)

    for number in range(50):
        thread.later(lambda number=number: job(number))
    await thread.run(lambda: job(50))
    assert order == list(range(51))
    assert names == {"store"}


async def test_results_and_errors_come_back(thread: StoreThread) -> None:
    assert await thread.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)


async def test_a_job_that_nobody_waits_for_may_fail(thread: StoreThread) -> None:
    thread.later(lambda: 1 // 0)
    assert await thread.run(lambda: "still at work") == "still at work"


async def test_after_the_time_limit_the_job_still_runs(thread: StoreThread) -> None:
    go = threading.Event()
    done: list[bool] = []
    with pytest.raises(TimeoutError):
        await thread.run(lambda: done.append(go.wait(10)), limit_s=0.01)
    assert not done
    go.set()
    await thread.run(lambda: None)
    assert done == [True]


async def test_a_cancelled_caller_leaves_the_job(thread: StoreThread) -> None:
    go = threading.Event()
    done: list[bool] = []
    waiting = asyncio.ensure_future(thread.run(lambda: done.append(go.wait(10))))
    await asyncio.sleep(0)
    waiting.cancel()
    go.set()
    await thread.run(lambda: None)
    assert waiting.cancelled()
    assert done == [True]


async def test_close_finishes_what_is_queued() -> None:
    thread = StoreThread()
    done: list[int] = []
    for number in range(10):
        thread.later(lambda number=number: done.append(number))
    await thread.close()
    assert done == list(range(10))
