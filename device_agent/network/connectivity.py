"""Whether the network answers, how long to wait before asking again, and the network's clock."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from device_agent.background import Backoff, first_of
from device_agent.clock import Clock
from device_agent.errors import Refused

T = TypeVar("T")

# An unreachable network is tried at least every 5 s, one that refuses at least every 60 s (docs/delivery.md).
UNREACHABLE_MAX_S = 5.0
REFUSED_MAX_S = 60.0
FIRST_DELAY_S = 0.5
# A sample of the network's clock counts until a better one comes or it is this old (crystals drift 20 ppm).
TIME_SAMPLE_MAX_AGE_S = 600.0


class Connectivity:
    """Knows when the network last answered. Everything that exchanges data with it reports here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self.time_known = asyncio.Event()
        self.up = False
        self.losses = 0
        self._last_answer_s: float | None = None
        self._offset_ms: float | None = None
        self._offset_rtt_ms = 0.0
        self._offset_at_s = 0.0

    def __repr__(self) -> str:
        return f"<Connectivity {'up' if self.up else 'down'}, silent for {self.silent_s():.1f} s>"

    def answered(self) -> None:
        """An answer came that serves us. One that refuses proves nothing: whoever refuses carries no stop."""
        self._last_answer_s = self._clock.monotonic_s()
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
        if self._last_answer_s is None:
            return float("inf")
        return self._clock.monotonic_s() - self._last_answer_s

    async def until_back(self) -> None:
        """Returns when the link was down and comes up again; does not return for a link that stays up."""
        while True:
            was_up = self.up
            await self._changed.wait()
            if not was_up and self.up:
                return

    async def unless_back(self, request: Coroutine[Any, Any, T]) -> T | None:
        """The result of a request; None if the link was lost and came back while it was under way.

        Nobody will answer a request from before the loss, so it is cancelled.
        """
        asked, _ = await first_of(request, self.until_back())
        return asked.result() if asked is not None else None

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- the network's clock --------------------------------------------------------------------------------

    def time_sample(self, server_ms: float, sent_s: float, received_s: float) -> None:
        """The network's clock showed `server_ms` at some time between two instants of our monotonic clock."""
        rtt_ms = (received_s - sent_s) * 1000
        stale = received_s - self._offset_at_s > TIME_SAMPLE_MAX_AGE_S
        if self._offset_ms is None or stale or rtt_ms <= self._offset_rtt_ms:
            self._offset_ms = server_ms - (sent_s + received_s) * 500
            self._offset_rtt_ms = rtt_ms
            self._offset_at_s = received_s
            self.time_known.set()
            self._clock.learn(server_ms, (sent_s + received_s) / 2, "network")

    @property
    def time_is_fresh(self) -> bool:
        """Whether there is a sample that is young enough to count."""
        age_s = self._clock.monotonic_s() - self._offset_at_s
        return self._offset_ms is not None and age_s <= TIME_SAMPLE_MAX_AGE_S

    def server_ms(self) -> float | None:
        """The network's clock now, epoch milliseconds; None before the first sample."""
        if self._offset_ms is None:
            return None
        return self._clock.monotonic_s() * 1000 + self._offset_ms


class NetworkBackoff(Backoff):
    """Full jitter under a ceiling that doubles with each failure in a row.

    Devices behind one failed router come back at different instants.
    """

    def __init__(self, connectivity: Connectivity, rng: random.Random | None = None) -> None:
        super().__init__(FIRST_DELAY_S, REFUSED_MAX_S, jitter=1.0, rng=rng)
        self._connectivity = connectivity

    def delay_s(self, error: BaseException) -> float:
        """Seconds to wait after this failure: up to 60 s if the network refused, else up to 5 s."""
        return self.next_s(REFUSED_MAX_S if isinstance(error, Refused) else UNREACHABLE_MAX_S)

    async def wait(self, error: BaseException, hint: asyncio.Event | None = None) -> None:
        """Wait after this failure; less when `hint` is set or, unless refused, when the link is back."""
        early: list[Coroutine[Any, Any, Any]] = [hint.wait()] if hint is not None else []
        if not isinstance(error, Refused):
            early.append(self._connectivity.until_back())
        await first_of(asyncio.sleep(self.delay_s(error)), *early)
