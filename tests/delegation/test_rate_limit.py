"""How often the service is asked."""

import asyncio
import random

import pytest

from device_agent.delegation.rate_limit import POLL_MAX_S, REQUESTS_A_MINUTE, RETRY_MAX_S, RateLimit
from device_agent.errors import Unreachable
from device_agent.network.sessions_api import NotNow
from device_agent.testing import SteppedClock


async def test_never_more_requests_than_the_limit() -> None:
    clock = SteppedClock()
    pace = RateLimit(15, clock)
    async with asyncio.timeout(5):
        for _ in range(REQUESTS_A_MINUTE):
            await pace.acquire()
            clock.step(0.1)
    assert pace._wait_s() == pytest.approx(60 - 0.1 * REQUESTS_A_MINUTE)
    clock.step(60)
    assert pace._wait_s() == 0


def test_polls_come_less_and_less_often() -> None:
    pace = RateLimit(2, SteppedClock(), random.Random(1))
    waits = [pace.poll_after_s(n) for n in range(100)]
    assert 1.6 <= waits[0] <= 2
    assert max(waits) <= POLL_MAX_S
    assert waits[-1] >= 0.8 * POLL_MAX_S
    assert RateLimit(600, SteppedClock()).poll_after_s(50) >= 480


def test_full_jitter_and_a_wait_that_the_service_names() -> None:
    clock = SteppedClock()
    pace = RateLimit(15, clock, random.Random(1))
    waits = [pace.retry_after_s(Unreachable("x"), 10) for _ in range(200)]
    assert min(waits) < 30
    assert RETRY_MAX_S * 0.9 < max(waits) <= RETRY_MAX_S
    assert pace._wait_s() == 0
    assert pace.retry_after_s(NotNow("x", 429, "", 40.0), 0) >= 41
    assert pace._wait_s() == 40  # for every delegation
