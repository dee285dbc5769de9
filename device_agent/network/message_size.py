"""How large messages may be: what the link takes in a second or two, whatever its speed.

A message cannot become smaller once it is under way, and all else waits behind it: what a slow link is given
is little, so that commands, answers and signs of life come through.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from device_agent.clock import Clock

FIRST_BYTES = 8_000
LEAST_BYTES = 2_000
MOST_BYTES = 64_000
# Beyond the round trip: one that was accepted sooner may be followed by one twice as large, one that took
# longer by half of it.
QUICK_S = 1.0
SLOW_S = 3.0


class MessageSize:
    """Of one link, for all who send on it. Belongs to the event loop."""

    def __init__(self, clock: Clock, round_trip_s: Callable[[], float]) -> None:
        """`round_trip_s`: how long the smallest message takes."""
        self._clock = clock
        self._round_trip_s = round_trip_s
        self._bytes = FIRST_BYTES
        self._under_way = 0

    def __repr__(self) -> str:
        return f"<MessageSize {self._bytes} bytes, {self._under_way} under way>"

    @property
    def limit_bytes(self) -> int:
        """For the next message; those that are under way have their share."""
        return max(LEAST_BYTES, self._bytes // (self._under_way + 1))

    @contextmanager
    def sending(self, size_bytes: int) -> Iterator["Sending"]:
        """A message of this size is under way."""
        sending, begun_s = Sending(), self._clock.monotonic_s()
        self._under_way += 1
        try:
            yield sending
        finally:
            self._under_way -= 1
        took_s = self._clock.monotonic_s() - begun_s - self._round_trip_s()
        if took_s > SLOW_S:
            self._bytes = max(LEAST_BYTES, min(self._bytes, size_bytes) // 2)
        elif sending.accepted and took_s < QUICK_S and size_bytes > self._bytes // 2:
            self._bytes = min(MOST_BYTES, self._bytes * 2)


@dataclass(slots=True)
class Sending:
    """What became of a message that was under way."""

    accepted: bool = False
