"""When values become stale or frozen, by time alone."""

from typing import Any

import pytest

from device_agent.devices.staleness import STILL_READINGS, Staleness
from device_agent.driver import DriverConfig, Listener, Point, Sensor, SerialBus
from device_agent.records import Flag


class Talker(Listener[DriverConfig, SerialBus]):
    points = (Point("a"), Point("b"), Point("set", write=True))
    default_stale_after_s = 10.0


class Probe(Sensor[DriverConfig, SerialBus]):
    points = (Point("level", still_s=60), Point("raw"), Point("wet", type="boolean"))


def staleness(driver: type[Any], **options: Any) -> Staleness:
    it = Staleness({point.name: point for point in driver.points}, driver, DriverConfig(**options))
    it.begin(0.0)
    return it


@pytest.mark.parametrize(
    ("configured", "stale"),
    [
        (None, {"a", "b"}),
        (20.0, {"a", "b"}),
        ({"a": 5.0}, {"a", "b"}),
        ({"a": 5.0, "set": 5.0}, {"a", "b", "set"}),
    ],
)
def test_what_is_written_is_watched_only_by_name(configured: Any, stale: set[str]) -> None:
    it = staleness(Talker, stale_after_s=configured)
    it.age(1000.0)
    assert it.stale == stale


def test_it_becomes_stale_at_its_limit_and_only_once() -> None:
    it = staleness(Talker)
    assert it.due_s() == 10.0
    assert not it.age(9.9)
    assert it.age(10.0)
    assert not it.age(11.0), "nothing new"
    assert it.silent
    assert it.due_s() is None


def test_a_point_that_speaks_again_ends_its_own_staleness() -> None:
    it = staleness(Talker)
    it.age(10.0)
    assert it.measured({"a": 1.0, "b": None}, {}, 12.0, fresh={"a"})
    assert it.stale == {"b"}
    assert not it.silent
    assert it.last_s() == 12.0
    assert it.due_s() == 22.0


def test_a_null_keeps_its_own_reason_unless_nothing_answered() -> None:
    it = staleness(Talker)
    it.age(10.0)
    flags = {"a": Flag.OUT_OF_RANGE, "b": Flag.NO_ANSWER}
    it.flag({"a": None, "b": None}, flags)
    assert flags == {"a": Flag.OUT_OF_RANGE, "b": Flag.STALE}


def test_a_polled_device_is_never_stale() -> None:
    it = staleness(Probe, stale_after_s=1.0)
    assert not it.age(1000.0)
    assert it.last_s() is None


@pytest.mark.parametrize(
    ("configured", "frozen"), [(None, {"level"}), (50.0, {"level", "raw"}), ({"wet": 50.0}, {"level", "wet"})]
)
def test_one_number_is_for_what_is_measured_and_a_table_for_what_it_names(
    configured: Any, frozen: set[str]
) -> None:
    it = staleness(Probe, frozen_after_s=configured)
    for number in range(STILL_READINGS + 1):
        it.measured({"level": 1.0, "raw": 2.0, "wet": True}, {}, number * 10.0, {"level", "raw", "wet"})
    assert it.frozen == frozen


def test_a_few_equal_readings_are_not_frozen_however_long_they_took() -> None:
    it = staleness(Probe)
    for number in range(STILL_READINGS - 1):
        it.measured({"level": 1.0}, {}, number * 1000.0, {"level"})
    assert it.frozen == set()
    flags: dict[str, Flag] = {}
    it.measured({"level": 1.0}, flags, 10_000.0, {"level"})
    assert flags == {"level": Flag.FROZEN}
    it.measured({"level": 1.1}, {}, 10_001.0, {"level"})
    assert it.frozen == set()


def test_a_repeated_value_is_not_measured_again() -> None:
    """It is neither kept young nor called frozen by messages about other points."""
    it = staleness(Talker, frozen_after_s=1.0)
    for second in range(STILL_READINGS * 2):
        it.measured({"a": second, "b": 1.0}, {}, float(second), fresh={"a"})
    assert it.frozen == set()
    assert it.age(float(STILL_READINGS * 2))
    assert it.stale == {"b"}
