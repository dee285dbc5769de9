"""A bus's states, users and failures, as its supervisor and its devices see them."""

import asyncio

import pytest

from device_agent.bus.core import FAILURES_MAX, Bus, BusState, Handle
from device_agent.errors import BusBusy, BusError, BusFaulted, BusGone, BusTimeout, DriverError, NoAnswer

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
    bus.note_lost_user(BusGone("unplugged"))
    assert bus.state is BusState.FAULTED
    assert isinstance(bus.loss(), BusGone)
    with pytest.raises(BusGone, match="unplugged"):
        await bus.run(lambda: None, LIMIT_S)
    await ended(bus)


@pytest.mark.parametrize("error", [BusTimeout("no answer"), BusError("SDA is held low")])
async def test_failures_of_the_bus_itself_fault_it_when_they_come_in_a_row(error: BusError) -> None:
    bus = await opened()
    for _ in range(FAILURES_MAX - 1):
        bus.note_lost_user(error)
    bus.note_success()
    for _ in range(FAILURES_MAX - 1):
        bus.note_lost_user(error)
    assert bus.state is BusState.OPEN, "a success in between begins the count anew"
    bus.note_lost_user(error)
    assert bus.state is BusState.FAULTED
    assert isinstance(bus.loss(), BusFaulted)
    await ended(bus)


@pytest.mark.parametrize(
    "error",
    [
        NoAnswer("address 0x76"),
        BusBusy("occupied"),
        BusFaulted("stuck"),
        DriverError("no id"),
        ValueError("bug"),
    ],
)
async def test_what_is_not_the_bus_s_own_failure_never_faults_it(error: Exception) -> None:
    bus = await opened()
    for _ in range(2 * FAILURES_MAX):
        bus.note_lost_user(error)
    assert bus.state is BusState.OPEN
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
    with bus.in_use():
        waiting = asyncio.ensure_future(bus.until_unused(LIMIT_S))
        with pytest.raises(DriverError), bus.in_use():
            raise DriverError("no id")
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(LIMIT_S):
        await waiting
    await ended(bus)


async def test_a_user_that_never_ends_does_not_keep_the_others_out() -> None:
    bus = await opened()
    with bus.in_use():
        await bus.until_unused(0.01)
        assert "1 users" in repr(bus)
    await ended(bus)


async def test_retries_are_counted_apart_from_those_that_helped() -> None:
    bus = await opened()
    for helped in (False, False, True):
        bus.note_retry(helped=helped)
    assert (bus.retries, bus.retries_helped) == (2, 1)
    await ended(bus)
