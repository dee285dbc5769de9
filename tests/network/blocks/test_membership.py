"""Membership: its states, what leads to them, and how long it waits in each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from device_agent.errors import (
    NetworkError,
    NoKey,
    ProtocolFault,
    Refused,
    Revoked,
    TokenRefused,
    Unreachable,
)
from device_agent.network.blocks import membership as module
from device_agent.network.blocks.membership import Membership, MembershipState, state_after
from device_agent.network.connectivity import Connectivity

State = MembershipState
UNREACHABLE = Unreachable("no route")
REFUSED = Refused("HTTP 503", 503)
NO_KEY = NoKey("no API key")
REVOKED = Revoked("API key invalid", 401, "API_KEY_INVALID")
FORCED = Revoked("forced offline", 403, "AGENT_FORCED_OFFLINE")


@pytest.mark.parametrize("before", [State.JOINING, State.UNREACHABLE, State.REFUSED, State.REVOKED])
@pytest.mark.parametrize(
    ("error", "after"),
    [
        (None, State.JOINED),
        (UNREACHABLE, State.UNREACHABLE),
        (REFUSED, State.REFUSED),
        (TokenRefused("HTTP 403", 403), State.REFUSED),
        (ProtocolFault("no pamToken"), State.REFUSED),
        (NO_KEY, State.NO_KEY),
        (REVOKED, State.REVOKED),
        (FORCED, State.FORCED_OFFLINE),
    ],
)
def test_the_state_after_a_try_to_join(before: State, error: NetworkError | None, after: State):
    assert state_after(before, error) is after


@pytest.mark.parametrize("error", [None, UNREACHABLE, REFUSED, ProtocolFault("x")])
def test_a_renewal_that_fails_leaves_the_agent_joined(error: NetworkError | None):
    assert state_after(State.JOINED, error) is State.JOINED


def test_a_renewal_that_is_forbidden_for_good_does_not():
    assert state_after(State.JOINED, REVOKED) is State.REVOKED
    assert state_after(State.JOINED, FORCED) is State.FORCED_OFFLINE


class Scripted:
    """A joiner and a renewal: the tries end as the script says, and then for ever as its last entry."""

    def __init__(self, *outcomes: NetworkError | None) -> None:
        self.outcomes = list(outcomes)
        self.tries = 0
        self.joins = 0
        self.instance_id = "AG-x"
        self.tried = asyncio.Event()
        self.due = asyncio.Event()
        self.another_key = asyncio.Event()

    async def join(self) -> None:
        self.tries += 1
        self.tried.set()
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        await asyncio.sleep(0)
        if outcome is not None:
            raise outcome

    async def until_key_changes(self) -> None:
        await self.another_key.wait()

    def on_joined(self) -> None:
        self.joins += 1

    def begin(self) -> None:
        self.due.clear()

    async def until_due(self) -> None:
        await self.due.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(connectivity: Connectivity, script: Scripted) -> AsyncIterator[Membership]:
    membership = Membership(script, connectivity, script, script.on_joined)  # type: ignore[arg-type]
    task = asyncio.create_task(membership.run())
    try:
        yield membership
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), "nothing that the network does may end it"


async def test_it_joins_after_failures_and_tells_the_reason_meanwhile(connectivity: Connectivity):
    script = Scripted(UNREACHABLE, REFUSED, None)
    async with running(connectivity, script) as membership:
        assert (membership.state, membership.reason) == (State.JOINING, "not joined yet")
        reasons = set()
        async with asyncio.timeout(10):
            while not membership.joined:
                reasons.add(membership.reason)
                await asyncio.sleep(0)
            await membership.until_joined()
        assert {"no route", "HTTP 503"} <= reasons
        assert (membership.state, membership.reason) == (State.JOINED, "")
        assert (script.tries, script.joins) == (3, 1)


async def test_it_joins_again_when_the_renewal_is_due(connectivity: Connectivity):
    script = Scripted(None)
    async with running(connectivity, script) as membership:
        await membership.until_joined()
        script.due.set()
        await script.until(lambda: script.joins == 2)
        assert membership.joined


async def test_a_failed_renewal_is_tried_again_while_it_stays_joined(connectivity: Connectivity):
    script = Scripted(None, UNREACHABLE)
    async with running(connectivity, script) as membership:
        await membership.until_joined()
        script.due.set()
        await script.until(lambda: script.tries > 3)
        assert membership.joined
        assert repr(membership) == "<Membership joined: no route>"
        script.outcomes = [None]
        await script.until(lambda: not membership.reason)
        assert repr(membership) == "<Membership joined>"


async def test_a_revoked_key_is_not_tried_again_before_a_person_says_so(connectivity: Connectivity):
    script = Scripted(None, REVOKED, None)
    async with running(connectivity, script) as membership:
        await membership.until_joined()
        script.due.set()
        await script.until(lambda: membership.state is State.REVOKED)
        assert not membership.joined
        await asyncio.sleep(0.05)
        assert script.tries == 2, "a login loop"
        membership.try_again()
        await asyncio.wait_for(membership.until_joined(), 10)


@pytest.mark.parametrize("error", [REVOKED, NO_KEY, REFUSED])
async def test_another_key_is_tried_at_once(connectivity: Connectivity, error: NetworkError):
    script = Scripted(error)
    async with running(connectivity, script) as membership:
        await script.until(lambda: membership.state is state_after(State.JOINING, error))
        script.outcomes = [None]
        script.another_key.set()
        await asyncio.wait_for(membership.until_joined(), 10)


async def test_forced_offline_is_asked_again_after_a_while(
    connectivity: Connectivity, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REVOKED_RETRY_S", 0.01)
    script = Scripted(FORCED, FORCED, None)
    async with running(connectivity, script) as membership:
        await script.until(lambda: membership.state is State.FORCED_OFFLINE)
        await asyncio.wait_for(membership.until_joined(), 10)
        assert script.tries == 3


async def test_the_hint_of_a_person_from_before_does_not_count(connectivity: Connectivity):
    script = Scripted(REVOKED)
    async with running(connectivity, script) as membership:
        membership.try_again()
        await script.until(lambda: membership.state is State.REVOKED)
        await asyncio.sleep(0.05)
        assert script.tries == 1


async def test_who_leaves_is_not_joined(connectivity: Connectivity):
    async with running(connectivity, Scripted(None)) as membership:
        await membership.until_joined()
        membership.leave()
        assert (membership.state, membership.joined) == (State.LEAVING, False)
        assert repr(membership) == "<Membership leaving>"
