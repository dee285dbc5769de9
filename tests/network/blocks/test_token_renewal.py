"""When the control token is renewed."""

import asyncio

import pytest

from device_agent.network.blocks.token_renewal import (
    RENEW_MIN_INTERVAL_S,
    RENEW_UNKNOWN_S,
    TokenRenewal,
    renewal_delay_s,
)
from device_agent.testing.clock import SteppedClock


@pytest.mark.parametrize(
    ("life_s", "delay_s"),
    [
        (3600.0, 2700.0),  # three quarters of its life
        (240.0, 180.0),
        (120.0, 60.0),  # a minute before its end
        (63.0, 3.0),
        (61.0, RENEW_MIN_INTERVAL_S),
        (0.0, RENEW_MIN_INTERVAL_S),
        (-50.0, RENEW_MIN_INTERVAL_S),
        (None, RENEW_UNKNOWN_S),
    ],
)
def test_the_delay_leaves_a_margin(life_s: float | None, delay_s: float):
    assert renewal_delay_s(life_s) == delay_s


@pytest.fixture
def renewal(clock: SteppedClock) -> TokenRenewal:
    return TokenRenewal(clock, lambda: 3600.0)


async def due(renewal: TokenRenewal, clock: SteppedClock) -> "asyncio.Task[None]":
    waiting = asyncio.create_task(renewal.until_due())
    await asyncio.sleep(0.01)
    clock.step(RENEW_MIN_INTERVAL_S)
    return waiting


async def test_a_refused_token_is_renewed_now(renewal: TokenRenewal, clock: SteppedClock):
    waiting = await due(renewal, clock)
    assert not waiting.done()
    renewal.request("HTTP 403")
    await asyncio.wait_for(waiting, 5)


async def test_a_refusal_while_the_token_was_asked_for_counts(renewal: TokenRenewal, clock: SteppedClock):
    renewal.begin()
    renewal.request("HTTP 403")
    waiting = asyncio.create_task(renewal.until_due())
    clock.step(RENEW_MIN_INTERVAL_S)
    await asyncio.wait_for(waiting, 5)


async def test_a_refusal_before_the_token_was_asked_for_does_not(renewal: TokenRenewal, clock: SteppedClock):
    renewal.request("HTTP 403")
    renewal.begin()
    waiting = await due(renewal, clock)
    assert not waiting.done()
    waiting.cancel()


async def test_two_renewals_are_not_closer_than_two_seconds(
    renewal: TokenRenewal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("device_agent.network.blocks.token_renewal.RENEW_MIN_INTERVAL_S", 0.2)
    renewal.request("HTTP 403")
    began_s = asyncio.get_running_loop().time()
    await renewal.until_due()
    assert asyncio.get_running_loop().time() - began_s >= 0.19


def test_the_representation_tells_whether_it_was_requested(renewal: TokenRenewal):
    assert repr(renewal) == "<TokenRenewal not requested>"
    renewal.request("HTTP 403")
    assert repr(renewal) == "<TokenRenewal requested>"
