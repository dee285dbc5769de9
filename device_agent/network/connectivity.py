"""Whether the network answers, how long to wait before asking again, and what time it is over there."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from device_agent.clock import Clock
from device_agent.errors import Refused

T = TypeVar("T")

# Design section 6.8: try an unreachable network at least every 5 s, one that refuses at least every 60 s.
UNREACHABLE_MAX_S = 5.0
REFUSED_MAX_S = 60.0
FIRST_DELAY_S = 0.5
# A sample of the far clock is believed until a better one comes or it is this old (crystals drift 20 ppm).
TIME_SAMPLE_MAX_AGE_S = 600.0


class Connectivity:
    """Knows when the network last answered. Everybody who speaks to it reports here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self.time_known = asyncio.Event()
        self.up = False
        self.last_answer_s: float | None = None
        self.losses = 0
        self._offset_ms: float | None = None
        self._offset_rtt_ms = 0.0
        self._offset_at_s = 0.0

    def answered(self) -> None:
        """Some answer came, even a refusing one: the way there and back works."""
        self.last_answer_s = self._clock.monotonic_s()
        if not self.up:
            self.up = True
            self._signal()

    def lost(self) -> None:
        """A request had no answer at all."""
        if self.up:
            self.up = False
            self.losses += 1
            self._signal()

    def silent_s(self) -> float:
        """Seconds since the network last answered; infinite if it never did."""
        if self.last_answer_s is None:
            return float("inf")
        return self._clock.monotonic_s() - self.last_answer_s

    async def until_changed(self) -> None:
        """Returns when the link came up or went down. The caller bounds the wait."""
        await self._changed.wait()

    async def until_back(self) -> None:
        """Returns when the link was down and came up again; a link that is up is no news."""
        while True:
            was_up = self.up
            await self._changed.wait()
            if not was_up and self.up:
                return

    async def unless_back(self, poll: Coroutine[Any, Any, T]) -> T | None:
        """A long-poll's answer; None when the link came back meanwhile, for then nobody will answer it."""
        asked = asyncio.ensure_future(poll)
        back = asyncio.ensure_future(self.until_back())
        waits: list[asyncio.Future[Any]] = [asked, back]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else None
        finally:
            for wait in waits:
                wait.cancel()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- the far clock ----------------------------------------

    def time_sample(self, server_ms: float, sent_s: float, received_s: float) -> None:
        """The far side said `server_ms` somewhere between two instants of our monotonic clock."""
        rtt_ms = (received_s - sent_s) * 1000
        stale = received_s - self._offset_at_s > TIME_SAMPLE_MAX_AGE_S
        if self._offset_ms is None or stale or rtt_ms <= self._offset_rtt_ms:
            self._offset_ms = server_ms - (sent_s + received_s) * 500
            self._offset_rtt_ms = rtt_ms
            self._offset_at_s = received_s
            self.time_known.set()
            middle_s = (sent_s + received_s) / 2
            self._clock.learn(server_ms, middle_s, "network")

    @property
    def time_is_fresh(self) -> bool:
        """Whether a sample is there that is young enough to be believed."""
        age_s = self._clock.monotonic_s() - self._offset_at_s
        return self._offset_ms is not None and age_s <= TIME_SAMPLE_MAX_AGE_S

    def server_ms(self) -> float | None:
        """The network's clock now, epoch milliseconds; None before the first sample."""
        if self._offset_ms is None:
            return None
        return self._clock.monotonic_s() * 1000 + self._offset_ms


class Backoff:
    """Full jitter: first try at once, then a random wait under a doubling ceiling.

    Every device behind one failed router comes back at another instant.
    """

    def __init__(self, link: Connectivity, rng: random.Random | None = None) -> None:
        self._link = link
        self._rng = rng or random.Random()
        self._tries = 0

    def reset(self) -> None:
        self._tries = 0

    def next_s(self, error: BaseException) -> float:
        """How long to wait after this failure, seconds."""
        ceiling = REFUSED_MAX_S if isinstance(error, Refused) else UNREACHABLE_MAX_S
        delay_s = min(ceiling, FIRST_DELAY_S * 2.0 ** min(self._tries, 10))
        self._tries += 1
        return self._rng.uniform(0, delay_s)

    async def wait(self, error: BaseException, hint: asyncio.Event | None = None) -> None:
        """Wait out `next_s`, cut short when the link comes back (not for a refusal) or `hint` is set."""
        limit_s = self.next_s(error)
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(hint.wait())] if hint else []
        if not isinstance(error, Refused):
            waits.append(asyncio.ensure_future(self._link.until_back()))
        if not waits:
            await asyncio.sleep(limit_s)
            return
        try:
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
