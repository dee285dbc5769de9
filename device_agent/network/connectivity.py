"""Whether the network answers, how long to wait before asking again, and the network's clock."""

import asyncio
import random
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

from device_agent.background import Backoff, first_of
from device_agent.clock import Clock
from device_agent.errors import NetworkError, Refused, Unreachable
from device_agent.network.message_size import MessageSize

log = structlog.get_logger("network")

T = TypeVar("T")

# An unreachable network is tried at least every 5 s, one that refuses at least every 60 s (docs/delivery.md).
UNREACHABLE_MAX_S = 5.0
REFUSED_MAX_S = 60.0
FIRST_DELAY_S = 0.5
# A sample of the network's clock counts until a better one comes or it is this old (crystals drift 20 ppm).
TIME_SAMPLE_MAX_AGE_S = 600.0
# How often a way that is depended on is proven within the time that it may be silent.
PROOFS = 3
PROOF_MIN_S = 0.2
PROOF_MAX_S = 5.0


class Way:
    """One direction of one exchange, such as publishing on a stream: when it last worked.

    `failing` has its name while it does not.
    """

    def __init__(self, name: str, clock: Clock, failing: set[str], round_trip_s: float) -> None:
        self._name = name
        self._clock = clock
        self._failing = failing
        self._worked_s = clock.monotonic_s()
        self._proof_s = PROOF_MAX_S
        self._took_s = round_trip_s
        self.due = asyncio.Event()
        """Set when it has to be shown soon that it works."""

    def worked(self) -> None:
        self._worked_s = self._clock.monotonic_s()
        self.due.clear()
        self._failing.discard(self._name)

    def failed(self) -> None:
        self._failing.add(self._name)

    @property
    def is_due(self) -> bool:
        """Whether it has to be shown that it works, or works again."""
        return self.due.is_set() or self._name in self._failing

    def silent_s(self, within_s: float) -> float:
        """Seconds since it last worked. To be asked often: it makes a proof due in time for `within_s`."""
        silent_s = self._clock.monotonic_s() - self._worked_s
        if silent_s > within_s / PROOFS:
            self._proof_s = within_s / PROOFS
            self.due.set()
        return silent_s

    @contextmanager
    def proof(self) -> Iterator[float]:
        """An exchange that shows that it works; yields how long that may take.

        It may take twice as long as the last one, whether that was answered or given up: a limit below the
        link's round trip would be missed each time, and the link taken for lost for ever.
        """
        begun_s = self._clock.monotonic_s()
        try:
            yield min(PROOF_MAX_S, max(PROOF_MIN_S, self._proof_s, 2 * self._took_s))
        except NetworkError:
            self._took_s = max(self._took_s, self._clock.monotonic_s() - begun_s)
            self.failed()
            raise
        self._took_s = self._clock.monotonic_s() - begun_s
        self.worked()

    def close(self) -> None:
        """Nobody uses it any more."""
        self._failing.discard(self._name)


class Connectivity:
    """Knows when the network last answered. Everything that exchanges data with it reports here."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.message_size = MessageSize(clock, lambda: self.round_trip_s)
        self._changed = asyncio.Event()
        self.time_known = asyncio.Event()
        self.up = False
        self.losses = 0
        self.failing: set[str] = set()
        """Ways on which the last exchange failed, or was refused."""
        self._why = ""
        self._under_way: dict[asyncio.Task[Any], asyncio.Timeout] = {}
        self._last_answer_s: float | None = None
        self._offset_ms: float | None = None
        self._offset_rtt_ms = 0.0
        self._offset_at_s = 0.0

    def __repr__(self) -> str:
        return f"<Connectivity {'up' if self.up else 'down'}, silent for {self.silent_s():.1f} s>"

    def way(self, name: str) -> Way:
        """A direction that is watched on its own; it counts as working now."""
        return Way(name, self.clock, self.failing, self.round_trip_s)

    @property
    def serves(self) -> bool:
        """Whether the link is up, and every way works that was tried."""
        return self.up and not self.failing

    @property
    def trouble(self) -> str:
        """Why the link is down, or which ways do not work though the network answers; "" if all is well."""
        if not self.up:
            return self._why
        return f"no {' and no '.join(sorted(self.failing))}" if self.failing else ""

    def answered(self) -> None:
        """An answer came that serves us; one that refuses proves nothing."""
        self._last_answer_s = self.clock.monotonic_s()
        if not self.up:
            self.up, self._why = True, ""
            if self.losses:
                log.info("link_up", losses=self.losses)
            self._signal()
            self._give_up_requests()

    def lost(self, why: str) -> None:
        """A request had no answer at all; `why` says which, and what came instead."""
        self._why = why
        if self.up:
            self.up = False
            self.losses += 1
            log.warning("link_down", why=why)
            self._signal()

    def silent_s(self) -> float:
        """Seconds since the network last answered; infinite if it never did."""
        if self._last_answer_s is None:
            return float("inf")
        return self.clock.monotonic_s() - self._last_answer_s

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
        task, given_up = asyncio.current_task(), asyncio.timeout(None)
        assert task is not None
        try:
            async with given_up:
                self._under_way[task] = given_up
                return await request
        except TimeoutError:
            if given_up.expired():
                return None
            raise
        finally:
            self._under_way.pop(task, None)

    async def completed(self, what: str, request: Coroutine[Any, Any, T]) -> T:
        """The result of a request; raises Unreachable where `unless_back` returns None."""

        async def boxed() -> tuple[T]:
            return (await request,)

        box = await self.unless_back(boxed())
        if box is None:
            raise Unreachable(f"{what}: the link was lost while it was under way")
        return box[0]

    def _give_up_requests(self) -> None:
        """All that are under way but the one whose answer showed that the link is back."""
        for task, given_up in self._under_way.items():
            if task is not asyncio.current_task():
                given_up.reschedule(0)
        self._under_way.clear()

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
            self.clock.learn(server_ms, (sent_s + received_s) / 2, "network")

    @property
    def round_trip_s(self) -> float:
        """The shortest of the last minutes; 0 before the first."""
        return self._offset_rtt_ms / 1000

    @property
    def time_is_fresh(self) -> bool:
        """Whether there is a sample that is young enough to count."""
        age_s = self.clock.monotonic_s() - self._offset_at_s
        return self._offset_ms is not None and age_s <= TIME_SAMPLE_MAX_AGE_S

    def server_ms(self) -> float | None:
        """The network's clock now, epoch milliseconds; None before the first sample."""
        if self._offset_ms is None:
            return None
        return self.clock.monotonic_s() * 1000 + self._offset_ms


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
