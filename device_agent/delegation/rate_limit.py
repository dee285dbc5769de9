"""How often the service is asked: within its rate limit, and less often while it fails."""

import asyncio
import random
from collections import deque

from device_agent.clock import Clock
from device_agent.errors import NetworkError
from device_agent.network.sessions_api import NotNow

# The service allows 100 requests a minute for a key, which others may use too.
REQUESTS_A_MINUTE = 50
MINUTE_S = 60.0
RETRY_MAX_S = 300.0
POLL_MAX_S = 60.0
POLL_GROWTH = 1.5


class RateLimit:
    """Shared by all delegations."""

    def __init__(self, poll_s: float, clock: Clock, rng: random.Random | None = None) -> None:
        self.poll_s = poll_s
        self._clock = clock
        self._rng = rng or random.Random()
        self._times: deque[float] = deque()
        self._not_before_s = 0.0
        self._queue = asyncio.Lock()

    async def acquire(self) -> None:
        """Returns when one more request may go out, and counts it."""
        async with self._queue:
            await asyncio.sleep(self._wait_s())
        self._times.append(self._clock.monotonic_s())

    def _wait_s(self) -> float:
        now_s = self._clock.monotonic_s()
        while self._times and now_s - self._times[0] >= MINUTE_S:
            self._times.popleft()
        full = len(self._times) >= REQUESTS_A_MINUTE
        return max(self._not_before_s - now_s, MINUTE_S - (now_s - self._times[0]) if full else 0.0)

    def poll_after_s(self, polls: int) -> float:
        """How long to wait for an answer after so many polls that found none."""
        ceiling_s = max(self.poll_s, POLL_MAX_S)
        return min(ceiling_s, self.poll_s * POLL_GROWTH ** min(polls, 20)) * self._rng.uniform(0.8, 1.0)

    def retry_after_s(self, error: NetworkError, tries: int) -> float:
        """Full jitter under a doubling ceiling; a wait that the service names holds for all delegations."""
        ceiling_s = min(RETRY_MAX_S, self.poll_s * 2.0 ** min(tries, 10))
        wait_s = max(1.0, self._rng.uniform(0, ceiling_s))
        if isinstance(error, NotNow) and error.retry_after_s is not None:
            self._not_before_s = max(self._not_before_s, self._clock.monotonic_s() + error.retry_after_s)
            wait_s += error.retry_after_s
        return wait_s
