"""Whom the runtime believes about the time, and what it makes of stamps from before it was known."""

from pathlib import Path

import pytest

from device_agent.clock import EARLIEST_TRUE_MS, SystemClock, TokenBucket, machine_knows
from device_agent.messages import events
from device_agent.records import Reading
from device_agent.store.outbox.event import Event, dated
from device_agent.testing import SteppedClock

TRUE_MS = EARLIEST_TRUE_MS + 86_400_000
YEARS_S = 14 * 365 * 86_400.0


def board(wall_ms: int = 1000, memory: Path | None = None) -> SteppedClock:
    """A board without a battery: its wall clock stands where it likes."""
    clock = SteppedClock(now_ms=wall_ms)
    clock.knows = False
    return clock


@pytest.mark.parametrize("wall_ms", [1000, EARLIEST_TRUE_MS - 1, EARLIEST_TRUE_MS + 5])
def test_a_board_that_nobody_told_counts_from_its_start(wall_ms: int) -> None:
    clock = board(wall_ms)  # in 1970, before this release, and at its last shutdown
    assert (clock.is_set(), clock.now_ms(), clock.source) == (False, 1_000_000, "")
    clock.step(2)
    assert clock.now_ms() == 1_002_000


def test_the_network_tells_a_board_the_time_and_keeps_it_over_jumps() -> None:
    clock = board()
    clock.learn(TRUE_MS, clock.monotonic_s(), "network")
    for wall_ms in (0, TRUE_MS + round(YEARS_S * 1000), TRUE_MS - 3_600_000):
        clock.set_wall(wall_ms)
        assert (clock.now_ms(), clock.source) == (TRUE_MS, "network")
    clock.set_wall(TRUE_MS + 300)
    assert (clock.now_ms(), clock.source) == (TRUE_MS + 300, "system")  # it was right all along


def test_a_time_service_is_believed_before_the_network() -> None:
    clock = SteppedClock(now_ms=TRUE_MS)
    clock.learn(TRUE_MS + 60_000, clock.monotonic_s(), "network")
    assert (clock.now_ms(), clock.source) == (TRUE_MS, "system")


def test_a_machine_without_a_time_service_gives_way_to_the_network_and_not_to_a_chip() -> None:
    clock = SteppedClock(now_ms=TRUE_MS)
    clock.knows = None
    clock.learn(TRUE_MS + 60_000, clock.monotonic_s(), "device")
    assert clock.now_ms() == TRUE_MS
    clock.learn(TRUE_MS + 90_000, clock.monotonic_s(), "network")
    assert (clock.now_ms(), clock.source) == (TRUE_MS + 90_000, "network")


def test_a_chip_is_heard_until_the_network_is_and_again_when_that_is_silent_for_long() -> None:
    clock = board()
    clock.learn(TRUE_MS, clock.monotonic_s(), "device")
    assert (clock.now_ms(), clock.source) == (TRUE_MS, "device")
    clock.learn(TRUE_MS + 5000, clock.monotonic_s(), "network")
    clock.learn(TRUE_MS, clock.monotonic_s(), "device")
    assert clock.now_ms() == TRUE_MS + 5000
    clock.step(3601)
    clock.learn(TRUE_MS, clock.monotonic_s(), "device")
    assert clock.now_ms() == TRUE_MS


def test_a_wall_clock_that_falls_back_to_1970_is_not_followed() -> None:
    clock = SteppedClock(now_ms=TRUE_MS)
    assert clock.now_ms() == TRUE_MS
    clock.set_wall(0)
    clock.step(10)
    assert (clock.now_ms(), clock.source) == (TRUE_MS + 10_000, "earlier")


def test_a_time_that_cannot_be_is_not_learned() -> None:
    clock = board()
    clock.learn(1_000_000, clock.monotonic_s(), "network")
    assert not clock.is_set()


def test_what_was_learned_outlives_the_process_and_not_the_boot(tmp_path: Path) -> None:
    class Board(SystemClock):
        def _machine_knows(self) -> bool | None:
            return False

    memory = tmp_path / "clock.json"
    first = Board(memory)
    assert not first.is_set()
    first.learn(TRUE_MS, first.monotonic_s(), "network")
    offset_ms = first.offset_ms()
    assert Board(memory).offset_ms() == pytest.approx(offset_ms, abs=2)
    memory.write_text(memory.read_text().replace(first.boot, "another0"))
    assert not Board(memory).is_set()
    for damage in ("", "{", "[]", '{"boot": null}'):
        memory.write_text(damage)
        assert not Board(memory).is_set()


@pytest.mark.parametrize(
    ("files", "knows"),
    [
        ({}, None),
        ({"proc/device-tree/model": "Raspberry Pi 4"}, False),
        ({"proc/device-tree/model": "board", "sys/class/rtc/rtc0/hctosys": "0\n"}, False),
        ({"proc/device-tree/model": "board", "sys/class/rtc/rtc0/hctosys": "1\n"}, None),
        ({"proc/device-tree/model": "board", "run/systemd/timesync/synchronized": ""}, True),
    ],
)
def test_what_a_machine_knows_of_its_clock(tmp_path: Path, files: dict[str, str], knows: bool | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine_knows(tmp_path) is knows


def test_undated_events_are_dated_by_one_addition() -> None:
    reading = events.reading(Reading("climate", 5000, {"t": 1.5}, clock_set=False), "boot0001")
    gap = events.gap(
        6000, "overflow", count=2, from_seq=None, to_seq=None, from_at=4000, to_at=TRUE_MS, device="climate"
    )
    control = events.control(7000, "session", {"until": TRUE_MS, "boot": "boot0001"})
    before = [draft.undated("boot0001").numbered(n) for n, draft in enumerate((reading, gap, control), 1)]
    assert all(b'"clock":"unset"' in data and data.count(b'"boot"') == 1 for data in before)
    offset_ms = TRUE_MS - 1000
    assert [events.dated(data, "boot0001", offset_ms) for data in before] == [
        b'{"kind":"reading","at":%d,"seq":1,"device":"climate","boot":"boot0001","values":{"t":1.5}}'
        % (TRUE_MS + 4000),
        b'{"kind":"gap","at":%d,"seq":2,"from_seq":null,"to_seq":null,"from_at":%d,"to_at":%d,"count":2,'
        b'"reason":"overflow","device":"climate"}' % (TRUE_MS + 5000, TRUE_MS + 3000, TRUE_MS),
        b'{"kind":"control","at":%d,"seq":3,"about":"session","until":%d,"boot":"boot0001"}'
        % (TRUE_MS + 6000, TRUE_MS),
    ]
    # Of another start of the machine nobody knows when it was.
    assert [events.dated(data, "boot0002", offset_ms) for data in before] == before


def test_a_true_time_is_left_alone() -> None:
    data = b'{"kind":"ack","at":%d,"seq":1,"id":"x","commanded":{"clock":"unset"}}' % TRUE_MS
    event = Event(1, data, 1, TRUE_MS, "ack", "", 0.0)
    assert dated(event, "boot0001", 5) is event
    assert events.dated(b'{"kind":"ack","at":7,"seq":1,"a":{"x":1,"clock":"unset"}}', "b", 5) == (
        b'{"kind":"ack","at":7,"seq":1,"a":{"x":1,"clock":"unset"}}'
    )


def test_a_chip_of_whole_seconds_does_not_make_the_time_go_back() -> None:
    """Asked twice a second it says most seconds twice; the board's own clock runs on meanwhile."""
    clock = board()
    begun_s = clock.monotonic_s()
    before_ms = 0
    for _ in range(20):
        second = int(clock.monotonic_s() - begun_s)
        clock.learn(TRUE_MS + second * 1000 + 500, clock.monotonic_s(), "device")
        assert clock.now_ms() >= before_ms + 450
        before_ms = clock.now_ms()
        clock.step(0.45)


def test_a_chip_that_was_set_anew_is_followed() -> None:
    clock = board()
    clock.learn(TRUE_MS, clock.monotonic_s(), "device")
    clock.learn(TRUE_MS + 3000, clock.monotonic_s(), "device")
    assert clock.now_ms() == TRUE_MS + 3000


def test_a_bucket_gives_so_many_at_once_and_then_by_the_second() -> None:
    clock = SteppedClock()
    bucket = TokenBucket(2, 4.0, clock)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.step(0.25)
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.step(100)
    assert bucket.left == 2
    bucket.spend(4)
    assert (bucket.left, bucket.wait_s()) == (-2, 0.75)
    clock.step(0.75)
    assert (bucket.left, bucket.wait_s()) == (1, 0)
