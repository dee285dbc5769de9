"""Whether the network answers, its clock, and the waits between tries."""

import asyncio
import random
from contextlib import suppress

import pytest

from device_agent.errors import Refused, Unreachable
from device_agent.network import connectivity as module
from device_agent.network.connectivity import (
    REFUSED_MAX_S,
    TIME_SAMPLE_MAX_AGE_S,
    UNREACHABLE_MAX_S,
    Connectivity,
    NetworkBackoff,
    Way,
)
from device_agent.testing.clock import SteppedClock

UNREACHABLE = Unreachable("no answer")
REFUSED = Refused("overloaded", 503)


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def down(clock: SteppedClock) -> Connectivity:
    return Connectivity(clock)


def test_it_is_down_until_the_first_answer(down: Connectivity, clock: SteppedClock):
    assert (down.up, down.silent_s()) == (False, float("inf"))
    down.answered()
    clock.step(3)
    assert (down.up, down.silent_s(), down.losses) == (True, 3, 0)


def test_a_loss_counts_once_until_the_next_answer(connectivity: Connectivity):
    connectivity.lost("no answer")
    connectivity.lost("no answer")
    assert (connectivity.up, connectivity.losses) == (False, 1)
    connectivity.answered()
    connectivity.lost("no answer")
    assert connectivity.losses == 2


def test_the_representation_tells_the_state(connectivity: Connectivity, clock: SteppedClock):
    clock.step(2)
    assert repr(connectivity) == "<Connectivity up, silent for 2.0 s>"


# -- requests across a loss ---------------------------------------------------------------------------------


async def test_a_request_ends_when_the_link_was_lost_and_is_back(connectivity: Connectivity):
    request = asyncio.ensure_future(connectivity.unless_back(forever()))
    await asyncio.sleep(0)
    connectivity.lost("no answer")
    await asyncio.sleep(0.01)
    assert not request.done()
    connectivity.answered()
    assert await asyncio.wait_for(request, 5) is None


async def test_a_request_is_not_disturbed_by_answers_to_others(connectivity: Connectivity):
    request = asyncio.ensure_future(connectivity.unless_back(asyncio.sleep(0.02, "answer")))
    await asyncio.sleep(0)
    connectivity.answered()
    assert await asyncio.wait_for(request, 5) == "answer"


async def test_the_failure_of_a_request_is_raised(connectivity: Connectivity):
    async def fails() -> None:
        raise REFUSED

    with pytest.raises(Refused):
        await connectivity.unless_back(fails())


async def test_a_request_ends_when_the_link_comes_back_that_was_down_at_its_start(down: Connectivity):
    request = asyncio.ensure_future(down.unless_back(forever()))
    await asyncio.sleep(0)
    down.answered()
    assert await asyncio.wait_for(request, 5) is None


async def test_the_request_whose_answer_brings_the_link_back_has_its_answer(down: Connectivity):
    async def answered() -> str:
        down.answered()
        await asyncio.sleep(0.01)
        return "answer"

    assert await asyncio.wait_for(down.unless_back(answered()), 5) == "answer"


async def test_the_link_that_changes_twice_at_once_ends_a_request_once(connectivity: Connectivity):
    request = asyncio.ensure_future(connectivity.unless_back(forever()))
    await asyncio.sleep(0)
    for _ in range(3):
        connectivity.lost("no answer")
        connectivity.answered()
        await asyncio.sleep(0)
    assert await asyncio.wait_for(request, 5) is None


async def test_a_request_that_is_cancelled_is_no_lost_one(connectivity: Connectivity):
    request = asyncio.ensure_future(connectivity.unless_back(forever()))
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    connectivity.lost("no answer")
    connectivity.answered()


async def test_a_limit_within_a_request_is_its_own(connectivity: Connectivity):
    async def limited() -> None:
        async with asyncio.timeout(0.01):
            await forever()

    with pytest.raises(TimeoutError):
        await connectivity.unless_back(limited())


async def test_a_request_needs_no_task_of_its_own(connectivity: Connectivity):
    async def running() -> asyncio.Task[object] | None:
        return asyncio.current_task()

    assert await connectivity.unless_back(running()) is asyncio.current_task()


async def test_a_request_that_has_to_be_completed_says_what_was_lost(connectivity: Connectivity):
    request = asyncio.ensure_future(connectivity.completed("upload", forever()))
    await asyncio.sleep(0)
    connectivity.lost("no answer")
    connectivity.answered()
    with pytest.raises(Unreachable, match="upload: the link was lost while it was under way"):
        await asyncio.wait_for(request, 5)
    assert await connectivity.completed("upload", asyncio.sleep(0)) is None


# -- proofs -------------------------------------------------------------------------------------------------


def prove(connectivity: Connectivity, way: Way, takes_s: float) -> float:
    """An answer comes after so long, or none within the limit, which is returned."""
    with suppress(Unreachable), way.proof() as limit_s:
        connectivity.clock.step(min(takes_s, limit_s))  # type: ignore[attr-defined]
        if takes_s > limit_s:
            raise UNREACHABLE
    return limit_s


async def test_a_way_is_proven_within_a_third_of_the_time_that_it_may_be_silent(connectivity: Connectivity):
    way = connectivity.way("in")
    connectivity.clock.step(1.0)  # type: ignore[attr-defined]
    assert (way.silent_s(1.5), way.is_due) == (1, True)
    assert prove(connectivity, way, 0.1) == 0.5
    assert (way.silent_s(1.5), way.is_due) == (0, False)


async def test_a_proof_has_the_time_that_a_slow_link_takes(connectivity: Connectivity):
    way = connectivity.way("in")
    connectivity.clock.step(1.0)  # type: ignore[attr-defined]
    way.silent_s(1.5)
    assert [prove(connectivity, way, 0.8) for _ in range(3)] == pytest.approx([0.5, 1.0, 1.6])
    assert prove(connectivity, way, 0.1) == pytest.approx(1.6)
    assert prove(connectivity, way, 0.1) == 0.5, "it is fast again"
    assert [prove(connectivity, way, 60) for _ in range(5)] == pytest.approx([0.5, 1, 2, 4, 5])
    assert way.is_due
    # What the link is known to take is enough from the first on.
    connectivity.time_sample(1.8e12, 0.0, 0.8)
    other = connectivity.way("out")
    connectivity.clock.step(1.0)  # type: ignore[attr-defined]
    other.silent_s(1.5)
    assert prove(connectivity, other, 0.8) == pytest.approx(1.6)


# -- clock --------------------------------------------------------------------------------------------------


async def test_the_first_sample_makes_the_time_known(down: Connectivity, clock: SteppedClock):
    assert down.server_ms() is None
    assert not down.time_is_fresh
    down.time_sample(5_000_000.0, 999.0, 1000.0)
    await asyncio.wait_for(down.time_known.wait(), 1)
    assert down.server_ms() == 5_000_500.0, "it was taken in the middle of the round trip"
    assert down.time_is_fresh


def test_a_sample_with_a_longer_round_trip_is_ignored(down: Connectivity):
    down.time_sample(5_000_000.0, 999.9, 1000.0)
    down.time_sample(9_000_000.0, 999.0, 1000.0)
    assert down.server_ms() == pytest.approx(5_000_050.0)


def test_a_better_sample_and_any_after_ten_minutes_are_taken(down: Connectivity, clock: SteppedClock):
    down.time_sample(5_000_000.0, 999.0, 1000.0)
    down.time_sample(6_000_000.0, 1000.0, 1000.0)
    assert down.server_ms() == 6_000_000.0
    clock.step(TIME_SAMPLE_MAX_AGE_S + 1)
    assert not down.time_is_fresh
    now_s = clock.monotonic_s()
    down.time_sample(8_000_000.0, now_s - 2, now_s)
    assert down.server_ms() == 8_001_000.0


# -- waits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "most_s"),
    [(UNREACHABLE, UNREACHABLE_MAX_S), (REFUSED, REFUSED_MAX_S), (RuntimeError(), UNREACHABLE_MAX_S)],
)
def test_waits_grow_up_to_a_limit_that_depends_on_the_failure(
    connectivity: Connectivity, monkeypatch: pytest.MonkeyPatch, error: BaseException, most_s: float
):
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.5)

    class Most(random.Random):
        def random(self) -> float:
            return 0.0  # the whole wait

    backoff = NetworkBackoff(connectivity, Most())
    waits = [backoff.delay_s(error) for _ in range(12)]
    assert waits[:3] == [0.5, 1.0, 2.0]
    assert waits[-1] == most_s
    backoff.reset()
    assert backoff.delay_s(error) == 0.5


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.NetworkBackoff, "delay_s", lambda self, error: 3600.0)


async def test_a_wait_after_an_outage_ends_when_the_link_is_back(
    connectivity: Connectivity, long_waits: None
):
    connectivity.lost("no answer")
    wait = asyncio.ensure_future(NetworkBackoff(connectivity).wait(UNREACHABLE))
    await asyncio.sleep(0.01)
    assert not wait.done()
    connectivity.answered()
    await asyncio.wait_for(wait, 5)


async def test_a_wait_after_a_refusal_does_not_end_with_the_link_but_with_the_hint(
    connectivity: Connectivity, long_waits: None
):
    hint = asyncio.Event()
    wait = asyncio.ensure_future(NetworkBackoff(connectivity).wait(REFUSED, hint))
    connectivity.lost("no answer")
    await asyncio.sleep(0.01)
    connectivity.answered()
    await asyncio.sleep(0.01)
    assert not wait.done()
    hint.set()
    await asyncio.wait_for(wait, 5)


def test_why_the_link_is_down_is_known_until_it_is_up_again() -> None:
    connectivity = Connectivity(SteppedClock())
    assert connectivity.trouble == ""
    connectivity.lost("subscribe: no answer within 10 s")
    assert (connectivity.trouble, connectivity.losses) == ("subscribe: no answer within 10 s", 0)
    connectivity.answered()
    assert connectivity.trouble == ""
    connectivity.lost("publish: connection refused")
    connectivity.lost("subscribe: connection refused")
    assert (connectivity.trouble, connectivity.losses) == ("subscribe: connection refused", 1)
