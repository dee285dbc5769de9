"""How large a message may be on a link of any speed."""

import pytest

from device_agent.network.message_size import FIRST_BYTES, LEAST_BYTES, MOST_BYTES, MessageSize
from device_agent.testing.clock import SteppedClock


class Link:
    """Takes so many bytes a second, after a round trip."""

    def __init__(self, bytes_per_s: float, round_trip_s: float) -> None:
        self.clock = SteppedClock()
        self.size = MessageSize(self.clock, lambda: self.round_trip_s)
        self.bytes_per_s = bytes_per_s
        self.round_trip_s = round_trip_s

    def send(self) -> float:
        """A message as large as may be; how long it was under way."""
        size_bytes, begun_s = self.size.limit_bytes, self.clock.monotonic_s()
        with self.size.sending(size_bytes) as sending:
            self.clock.step(self.round_trip_s + size_bytes / self.bytes_per_s)
            sending.accepted = True
        return self.clock.monotonic_s() - begun_s


@pytest.mark.parametrize("bytes_per_s", [1_000, 3_000, 5_000, 20_000])
def test_a_slow_link_is_never_blocked_for_long(bytes_per_s: int) -> None:
    link = Link(bytes_per_s, 0.3)
    took_s = [link.send() for _ in range(50)]
    assert max(took_s[5:]) <= max(3.5, 2 * LEAST_BYTES / bytes_per_s)
    assert sum(took_s[5:]) / 45 > 0.5, "nor is it left idle for the sake of small messages"


@pytest.mark.parametrize("round_trip_s", [0.0, 0.1, 0.6, 5.0])
def test_a_fast_link_has_the_largest_after_a_few(round_trip_s: float) -> None:
    link = Link(10_000_000, round_trip_s)
    for _ in range(3):
        link.send()
    assert link.size.limit_bytes == MOST_BYTES


def test_small_messages_say_nothing_of_large_ones() -> None:
    link = Link(10_000_000, 0.0)
    for _ in range(100):
        with link.size.sending(300) as sending:
            sending.accepted = True
    assert link.size.limit_bytes == FIRST_BYTES


def test_a_link_that_becomes_slow_gets_less_at_once() -> None:
    link = Link(10_000_000, 0.0)
    for _ in range(10):
        link.send()
    link.bytes_per_s = 5_000
    for _ in range(4):
        link.send()
    assert link.send() < 4.0


def test_several_share_it() -> None:
    link = Link(10_000_000, 0.0)
    with link.size.sending(8_000):
        assert link.size.limit_bytes == FIRST_BYTES // 2
        with link.size.sending(4_000):
            assert link.size.limit_bytes == FIRST_BYTES // 3
    assert link.size.limit_bytes == FIRST_BYTES


def test_what_was_not_accepted_says_nothing_unless_it_took_long() -> None:
    link = Link(10_000_000, 0.0)
    with link.size.sending(8_000):
        pass
    assert link.size.limit_bytes == FIRST_BYTES
    with link.size.sending(8_000):
        link.clock.step(10)
    assert link.size.limit_bytes == FIRST_BYTES // 2
