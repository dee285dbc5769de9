"""Steps of a fixed length, and days of a time zone."""

from datetime import UTC, datetime

import pytest

from device_agent.store.history.steps import FixedSteps, LocalDays

HOUR_MS = 3_600_000


def utc_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def lengths_h(steps: LocalDays, from_: str, count: int) -> list[float]:
    (first,) = steps.numbers([utc_ms(from_)])
    return [(steps.begin_ms(n + 1) - steps.begin_ms(n)) / HOUR_MS for n in range(first, first + count)]


def test_fixed_steps() -> None:
    steps = FixedSteps(1000)
    assert steps.numbers([0, 999, 1000, -1]) == [0, 0, 1, -1]
    assert steps.begin_ms(7) == 7000


@pytest.mark.parametrize(
    ("zone", "from_", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T12:00", [24, 23, 24]),
        ("Europe/Berlin", "2026-10-24T12:00", [24, 25, 24]),
        ("Australia/Lord_Howe", "2026-04-04T12:00", [24, 24.5, 24]),
        ("America/Santiago", "2026-09-05T12:00", [24, 23, 24]),  # at midnight the clocks go on to one
        ("Asia/Kathmandu", "2026-09-05T12:00", [24, 24]),
        ("Pacific/Apia", "2011-12-29T11:00", [24, 0, 24]),  # a day that never was
    ],
)
def test_days_are_as_long_as_they_are(zone: str, from_: str, hours: list[float]) -> None:
    assert lengths_h(LocalDays(zone, 1), from_, len(hours)) == hours


def test_days_begin_at_midnight_and_hold_their_instants() -> None:
    steps = LocalDays("Europe/Berlin", 1)
    at = [utc_ms("2026-03-28T22:59:59"), utc_ms("2026-03-28T23:00:00"), utc_ms("2026-03-29T21:59:59")]
    first, second, same = steps.numbers(at)
    assert (second, same) == (first + 1, second)
    assert steps.begin_ms(second) == at[1]
    assert steps.numbers(reversed(at)) == [same, second, first]


def test_several_days() -> None:
    steps = LocalDays("Europe/Berlin", 7)
    (number,) = steps.numbers([utc_ms("2026-03-29T12:00")])
    begin, end = steps.begin_ms(number), steps.begin_ms(number + 1)
    assert end - begin == (7 * 24 - 1) * HOUR_MS
    assert steps.numbers([begin - 1, begin, end - 1, end]) == [number - 1, number, number, number + 1]


def test_the_machines_own_zone() -> None:
    now = datetime.now(UTC)
    steps = LocalDays("local", 1)
    (number,) = steps.numbers([round(now.timestamp() * 1000)])
    assert datetime.fromtimestamp(steps.begin_ms(number) / 1000).time().isoformat() == "00:00:00"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe", "/etc/localtime", "x\0"])
def test_no_zone(zone: str) -> None:
    with pytest.raises(ValueError, match=r"there is no time zone .*: name one such as Europe/Berlin"):
        LocalDays(zone, 1)
