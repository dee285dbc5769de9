"""The one door to a bus's thread, and what is known when a limit has passed."""

import asyncio
import threading
import time

import pytest

from device_agent.bus.core import Bus, Handle
from device_agent.errors import BusBusy, BusFaulted, BusTimeout

LIMIT_S = 10.0


async def opened() -> Bus:
    bus = Bus("i2c1", Handle())
    await bus.open()
    return bus


async def ended(bus: Bus) -> None:
    await bus.close()
    bus.stop()


async def test_an_answer_exactly_at_the_limit_counts() -> None:
    """The loop is held up by something else, and finds the answer and the end of the limit together."""
    bus = await opened()
    done = threading.Event()

    def job() -> str:
        done.set()
        return "answer"

    asked = asyncio.create_task(bus.run(job, 0.05))
    await asyncio.sleep(0)
    assert done.wait(LIMIT_S)
    time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still, as on a busy machine
    assert await asked == "answer"
    assert not bus.stuck
    await ended(bus)


async def test_a_drivers_own_time_limit_is_the_drivers() -> None:
    bus = await opened()

    def job() -> None:
        raise TimeoutError("the chip says so")

    with pytest.raises(TimeoutError, match="the chip says so"):
        await bus.run(job, LIMIT_S)
    assert not bus.stuck
    await ended(bus)


async def test_a_hanging_call_faults_the_bus_and_others_are_refused_at_once() -> None:
    bus = await opened()
    let_go = threading.Event()
    with pytest.raises(BusTimeout):
        await bus.run(lambda: let_go.wait(LIMIT_S), 0.05)
    assert bus.stuck
    with pytest.raises(BusFaulted):
        await bus.run(lambda: None, LIMIT_S)
    let_go.set()
    deadline_s = time.monotonic() + LIMIT_S
    while bus.stuck and time.monotonic() < deadline_s:  # noqa: ASYNC110 - a bus tells only its keeper
        await asyncio.sleep(0.01)
    assert await bus.run(lambda: "again", LIMIT_S) == "again"
    await ended(bus)


async def test_a_job_that_came_too_late_never_begins() -> None:
    bus = await opened()
    let_go, begun = threading.Event(), threading.Event()
    first = asyncio.create_task(bus.run(lambda: let_go.wait(LIMIT_S), LIMIT_S))
    await asyncio.sleep(0)
    with pytest.raises(BusBusy):
        await bus.run(begun.set, 0.05)
    let_go.set()
    assert await first
    assert await bus.run(lambda: "behind it", LIMIT_S) == "behind it"
    assert not begun.is_set()
    await ended(bus)


async def test_a_hanging_call_is_noticed_without_a_waiting_caller() -> None:
    """Its session was cancelled. Else the bus would be busy for ever, and no step be taken about it."""
    bus = await opened()
    begun, gate = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        gate.wait(LIMIT_S)

    asked = asyncio.create_task(bus.run(job, 0.1))
    await asyncio.sleep(0)
    assert begun.wait(LIMIT_S)
    asked.cancel()
    await asyncio.wait([asked])
    assert not bus.stuck, "not before its limit"
    try:
        async with asyncio.timeout(LIMIT_S):
            await bus.until_stuck(True)
        with pytest.raises(BusFaulted):
            await bus.run(lambda: None, 1.0)
    finally:
        gate.set()
    async with asyncio.timeout(LIMIT_S):
        await bus.until_stuck(False)
    assert await bus.run(lambda: "well", 1.0) == "well"
    await ended(bus)


async def test_a_call_that_ends_in_time_is_no_fault_without_a_waiting_caller() -> None:
    bus = await opened()
    begun, gate = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        gate.wait(LIMIT_S)

    asked = asyncio.create_task(bus.run(job, 0.1))
    await asyncio.sleep(0)
    assert begun.wait(LIMIT_S)
    asked.cancel()
    gate.set()
    assert await bus.run(lambda: "well", 5.0) == "well"
    await asyncio.sleep(0.2)
    assert bus.faults == 0
    await ended(bus)
