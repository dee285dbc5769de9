"""A bus's states, users and failures, as its supervisor and its devices see them."""

import asyncio
import threading
import time
from collections.abc import Generator
from functools import partial

import pytest

from device_agent.bus import core
from device_agent.bus.core import (
    FAILURES_MAX,
    JOBS_MAX,
    RESTARTS_MAX,
    Bus,
    BusState,
    Handle,
    Urgency,
    give_way,
)
from device_agent.errors import (
    BusBusy,
    BusError,
    BusFaulted,
    BusGone,
    BusTimeout,
    DriverError,
    NoAnswer,
    PlaceRefused,
)
from support.waiting import until_async

LIMIT_S = 10.0


class Unpluggable(Handle):
    there = True

    def open(self) -> None:
        if not self.there:
            raise BusGone("no adapter")


async def opened() -> Bus:
    bus = Bus("i2c1", Unpluggable())
    await bus.open()
    return bus


async def ended(bus: Bus) -> None:
    await bus.close()
    bus.stop()


async def test_an_opening_that_fails_leaves_its_reason() -> None:
    handle = Unpluggable()
    handle.there = False
    bus = Bus("i2c1", handle)
    with pytest.raises(BusGone):
        await bus.open()
    assert (bus.state, bus.last_error) == (BusState.CLOSED, "no adapter")
    assert repr(bus) == "<Bus i2c1 closed, 0 users, 0 jobs>"
    await ended(bus)


async def test_a_medium_that_is_gone_faults_the_bus_at_once() -> None:
    bus = await opened()
    bus.note_failure("a", BusGone("unplugged"))
    assert bus.state is BusState.FAULTED
    assert isinstance(bus.loss(), BusGone)
    with pytest.raises(BusGone, match="unplugged"):
        await bus.run(lambda: None, LIMIT_S)
    await ended(bus)


@pytest.mark.parametrize("error", [BusTimeout("no answer"), BusError("SDA is held low")])
async def test_failures_of_the_bus_itself_fault_it_when_they_come_in_a_row(error: BusError) -> None:
    bus = await opened()
    for _ in range(FAILURES_MAX - 1):
        bus.note_failure("a", error)
    bus.note_success()
    for _ in range(FAILURES_MAX - 1):
        bus.note_failure("a", error)
    assert bus.state is BusState.OPEN, "a success in between begins the count anew"
    bus.note_failure("a", error)
    assert bus.state is BusState.FAULTED
    assert isinstance(bus.loss(), BusFaulted)
    await ended(bus)


@pytest.mark.parametrize(
    "error",
    [
        NoAnswer("address 0x76"),
        PlaceRefused("there is no line 99"),
        BusBusy("occupied"),
        BusFaulted("stuck"),
        DriverError("no id"),
        ValueError("bug"),
    ],
)
async def test_what_is_not_the_bus_s_own_failure_never_faults_it(error: Exception) -> None:
    bus = await opened()
    for _ in range(2 * FAILURES_MAX):
        bus.note_failure("a", error)
    assert bus.state is BusState.OPEN
    await ended(bus)


async def test_one_user_s_failures_are_its_own_while_another_does_not_fail() -> None:
    """A unit that never answers, and an idle neighbour: it is asked, and only its failure is the bus's."""
    bus = await opened()
    with bus.in_use("meter"), bus.in_use("relay"):
        asked = asyncio.ensure_future(bus.until_doubted("relay"))
        await asyncio.sleep(0)
        for _ in range(2 * FAILURES_MAX):
            bus.note_failure("meter", BusTimeout("no answer"))
        assert bus.state is BusState.OPEN
        async with asyncio.timeout(LIMIT_S):
            await asked
        bus.note_failure("relay", BusTimeout("no answer"))
        assert bus.state is BusState.FAULTED
    await ended(bus)


async def test_a_success_ends_the_doubt_about_the_bus() -> None:
    bus = await opened()
    with bus.in_use("meter"), bus.in_use("relay"):
        for _ in range(FAILURES_MAX):
            bus.note_failure("meter", BusTimeout("no answer"))
        bus.note_success()
        asked = asyncio.ensure_future(bus.until_doubted("relay"))
        await asyncio.sleep(0)
        assert not asked.done()
        asked.cancel()
    await ended(bus)


async def test_the_first_success_after_opening_proves_the_bus() -> None:
    bus = await opened()
    waiting = asyncio.ensure_future(bus.until_proven())
    await asyncio.sleep(0)
    assert not bus.proven
    assert not waiting.done()
    bus.note_success()
    async with asyncio.timeout(LIMIT_S):
        await waiting
    await bus.close()
    await bus.open()
    assert not bus.proven, "nothing has worked since it was opened again"
    await ended(bus)


async def test_it_is_unused_when_the_last_user_has_ended_also_by_an_error() -> None:
    bus = await opened()
    with bus.in_use("a"):
        waiting = asyncio.ensure_future(bus.until_unused(LIMIT_S))
        with pytest.raises(DriverError), bus.in_use("a"):
            raise DriverError("no id")
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(LIMIT_S):
        await waiting
    await ended(bus)


async def test_a_user_that_never_ends_does_not_keep_the_others_out() -> None:
    bus = await opened()
    with bus.in_use("a"):
        await bus.until_unused(0.01)
        assert "1 users" in repr(bus)
    await ended(bus)


async def test_retries_are_counted_apart_from_those_that_helped() -> None:
    bus = await opened()
    for helped in (False, False, True):
        bus.note_retry(helped=helped)
    assert (bus.retries, bus.retries_helped) == (2, 1)
    await ended(bus)


async def test_what_is_more_urgent_goes_between_two_steps() -> None:
    """A reading of many steps, a neighbour's reading, a command and a safe state that come meanwhile."""
    bus = await opened()
    order: list[str] = []
    first = threading.Event()

    def reading() -> Generator[None, None, str]:
        for step in range(3):
            order.append(f"step {step}")
            if step == 0:
                assert first.wait(LIMIT_S)
            yield
        return "read"

    jobs = [asyncio.ensure_future(bus.run(reading, LIMIT_S))]
    await until_async(lambda: order == ["step 0"])
    for what, urgency in (
        ("other reading", Urgency.ROUTINE),
        ("command", Urgency.COMMAND),
        ("safe", Urgency.SAFE),
    ):
        jobs.append(asyncio.ensure_future(bus.run(partial(order.append, what), LIMIT_S, urgency=urgency)))
    await until_async(lambda: bus.waiting == 4)
    first.set()
    assert await asyncio.gather(*jobs) == ["read", None, None, None]
    assert order == ["step 0", "safe", "command", "step 1", "step 2", "other reading"]
    await ended(bus)


@pytest.mark.parametrize(
    ("user", "order"),
    [("relay", ["first", "safe", "second"]), ("gauge", ["first", "second", "safe"])],
    ids=["another user", "the same user"],
)
async def test_between_two_transactions_only_others_are_carried_out(user: str, order: list[str]) -> None:
    """A driver's call need not know of it; its own device waits for its end, unless it is a reading."""
    bus = await opened()
    done: list[str] = []
    going_on = threading.Event()

    def reading() -> None:
        for what in ("first", "second"):
            give_way()
            done.append(what)
            if what == "first":
                assert going_on.wait(LIMIT_S)

    jobs = [asyncio.ensure_future(bus.run(reading, LIMIT_S, user="gauge"))]
    await until_async(lambda: done == ["first"])
    safe = partial(done.append, "safe")
    jobs.append(asyncio.ensure_future(bus.run(safe, LIMIT_S, urgency=Urgency.SAFE, user=user)))
    await until_async(lambda: bus.waiting == 2)
    going_on.set()
    await asyncio.gather(*jobs)
    assert done == order
    await ended(bus)


class Gauge:
    """A reading of many transactions, with something to leave in order; it waits in the third."""

    TRANSACTIONS = 40

    def __init__(self) -> None:
        self.did: list[str] = []
        self.at_third = threading.Event()
        self.queued = threading.Event()

    def read(self) -> str:
        try:
            for number in range(self.TRANSACTIONS):
                self._transact("read")
                if number == 2 and not self.at_third.is_set():
                    self.at_third.set()
                    assert self.queued.wait(LIMIT_S)
        finally:
            self._transact("off")
        return "read"

    def _transact(self, what: str) -> None:
        give_way()
        self.did.append(what)


@pytest.mark.parametrize("urgency", [Urgency.SAFE, Urgency.COMMAND])
async def test_a_reading_begins_anew_for_what_is_more_urgent_and_its_own(urgency: Urgency) -> None:
    """At once, but for what its driver does to leave the chip in order."""
    bus, gauge = await opened(), Gauge()
    read = asyncio.ensure_future(bus.run(gauge.read, LIMIT_S, user="gauge", restarts=True))
    await until_async(gauge.at_third.is_set)
    act = partial(gauge.did.append, urgency.name)
    acting = asyncio.ensure_future(bus.run(act, LIMIT_S, urgency=urgency, user="gauge"))
    await until_async(lambda: bus.waiting == 2)
    gauge.queued.set()
    assert (await read, await acting) == ("read", None)
    assert gauge.did == [*["read"] * 3, "off", urgency.name, *["read"] * Gauge.TRANSACTIONS, "off"]
    await ended(bus)


async def test_commands_keep_no_reading_from_its_end_and_safe_states_do() -> None:
    bus = await opened()
    begun: list[str] = []
    jobs: list[asyncio.Future[None]] = []
    loop = asyncio.get_running_loop()

    def reading(urgency: Urgency) -> None:
        begun.append(urgency.name)
        waiting = threading.Event()

        async def add() -> None:
            act = bus.run(lambda: None, LIMIT_S, urgency=urgency, user="gauge")
            jobs.append(asyncio.ensure_future(act))
            await asyncio.sleep(0)
            waiting.set()

        if len(begun) <= 2 * RESTARTS_MAX:
            asyncio.run_coroutine_threadsafe(add(), loop)
            assert waiting.wait(LIMIT_S)
        give_way()

    for urgency, count in ((Urgency.COMMAND, RESTARTS_MAX + 1), (Urgency.SAFE, 2 * RESTARTS_MAX + 1)):
        begun.clear()
        await bus.run(partial(reading, urgency), LIMIT_S, user="gauge", restarts=True)
        await asyncio.gather(*jobs)
        assert len(begun) == count
    await ended(bus)


async def test_what_interrupts_does_not_count_against_the_limit_of_what_is_interrupted() -> None:
    bus = await opened()
    queued = threading.Event()

    def reading() -> str:
        assert queued.wait(LIMIT_S)
        give_way()
        return "read"

    read = asyncio.ensure_future(bus.run(reading, 1.0, queue_s=LIMIT_S, user="gauge"))
    safe = asyncio.ensure_future(
        bus.run(partial(time.sleep, 1.5), LIMIT_S, urgency=Urgency.SAFE, user="relay")
    )
    await until_async(lambda: bus.waiting == 2)
    queued.set()
    await asyncio.gather(read, safe)
    assert read.result() == "read"
    await ended(bus)


async def test_all_steps_together_have_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of a hundred slow points keeps its neighbours from the line for so long and no longer."""
    monkeypatch.setattr(core, "STEPS_LIMIT_S", 0.2)
    bus = await opened()

    def endless() -> Generator[None, None, None]:
        while True:
            time.sleep(0.01)
            yield

    first = asyncio.create_task(bus.run(endless, LIMIT_S))
    await asyncio.sleep(0)
    assert await bus.run(lambda: "next", LIMIT_S) == "next"
    with pytest.raises(BusTimeout, match="fewer points"):
        await first
    assert not bus.stuck
    await ended(bus)


async def test_who_keeps_nobody_waiting_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A meter that tells everything at 300 baud takes a minute, alone on its port."""
    monkeypatch.setattr(core, "STEPS_LIMIT_S", 0.02)
    bus = await opened()

    def slow() -> Generator[None, None, str]:
        for _ in range(10):
            time.sleep(0.01)
            yield
        return "all of it"

    assert await bus.run(slow, LIMIT_S) == "all of it"
    await ended(bus)


async def test_what_is_urgent_has_places_of_its_own() -> None:
    bus = await opened()
    begun, gate = threading.Event(), threading.Event()

    def occupy() -> bool:
        begun.set()
        return gate.wait(LIMIT_S)

    jobs = [asyncio.ensure_future(bus.run(occupy, LIMIT_S))]
    await until_async(begun.is_set)
    jobs += [asyncio.ensure_future(bus.run(lambda: None, LIMIT_S)) for _ in range(JOBS_MAX - 1)]
    await until_async(lambda: bus.waiting == JOBS_MAX)
    with pytest.raises(BusBusy):
        await bus.run(lambda: None, LIMIT_S)
    safe = asyncio.ensure_future(bus.run(lambda: "safe", LIMIT_S, urgency=Urgency.SAFE))
    await until_async(lambda: bus.waiting == JOBS_MAX + 1)
    gate.set()
    assert await safe == "safe"
    await asyncio.gather(*jobs)
    await ended(bus)


async def test_the_limit_is_for_each_step_and_one_that_hangs_is_noticed() -> None:
    bus = await opened()
    gate = threading.Event()

    def steps(hang: bool) -> Generator[None, None, str]:
        for _ in range(5):
            time.sleep(0.1)
            yield
        if hang:
            gate.wait(LIMIT_S)
        return "read"

    assert await bus.run(partial(steps, False), 0.4) == "read"
    with pytest.raises(BusTimeout, match=r"longer than 0\.4 s \(what the device's options need\)"):
        await bus.run(partial(steps, True), 0.4)
    assert bus.stuck
    gate.set()
    await bus.until_stuck(False)
    await ended(bus)


async def test_steps_whose_caller_has_left_end_at_the_next_one() -> None:
    bus = await opened()
    done: list[int] = []
    going_on = threading.Event()

    def steps() -> Generator[None, None, None]:
        for step in range(2):
            done.append(step)
            assert going_on.wait(LIMIT_S)
            yield

    job = asyncio.ensure_future(bus.run(steps, LIMIT_S))
    await until_async(lambda: done == [0])
    job.cancel()
    await asyncio.wait([job])
    going_on.set()
    assert await bus.run(lambda: "next", LIMIT_S) == "next"
    assert done == [0]
    assert not bus.stuck
    await ended(bus)
