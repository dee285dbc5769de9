"""Rules that ask by time: each period, each day, within the owner's limits, across restarts."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.config.delegation import Delegation
from device_agent.config.trigger import When
from device_agent.delegation.delegation_rule import DelegationRule
from device_agent.delegation.exchange import RuleState
from device_agent.delegation.prompt_builder import PromptBuilder
from device_agent.delegation.rate_limit import RateLimit
from device_agent.delegation.services import DelegationServices
from device_agent.history.history_service import HistoryService
from device_agent.network.sessions_api import SessionsApi
from device_agent.store.store_thread import StoreThread
from device_agent.testing import SteppedClock
from device_agent.triggers.state_file import StateFile

Make = Callable[..., DelegationRule]


def nobody(*_: Any) -> Any:
    raise AssertionError("nothing goes out here")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A rule on a stepped clock; what it stored may be passed to the next one."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    thread = StoreThread()

    def rule(
        clock: SteppedClock, when: When, state: RuleState | None = None, **options: Any
    ) -> DelegationRule:
        config = Delegation(agent="claude", message="x", when=when, **options)
        book = StateFile(tmp_path / "book.json", thread, RuleState)
        book.rules["r"] = state or RuleState()
        writer = PromptBuilder("Farm", {}, HistoryService("Farm", None, {}, clock), clock)
        api = SessionsApi("http://127.0.0.1:1", lambda: "k", nobody)
        services = DelegationServices(api, RateLimit(15, clock), writer, book, None, None, clock)  # type: ignore[arg-type]
        return DelegationRule("r", config, services, nobody)

    yield rule
    monkeypatch.undo()
    time.tzset()


async def test_each_period_counts_from_the_first_start_and_goes_on_after_a_restart(make: Make) -> None:
    clock = SteppedClock()
    rule = make(clock, When(every_s=3600))
    assert rule.schedule.due() == ""
    clock.step(3599)
    assert rule.schedule.due() == ""
    again = make(clock, When(every_s=3600), rule.state)
    clock.step(1)
    assert again.schedule.due() == "every 3600 s"
    assert again.schedule.due() == ""


async def test_a_period_that_came_too_soon_is_left_out(make: Make) -> None:
    clock = SteppedClock()
    rule = make(clock, When(every_s=60), min_interval_s=100)
    rule.schedule.due()
    asked = []
    for second in range(0, 400, 10):
        if rule.schedule.due():
            await rule.begin("due", conditional=False)
            asked.append(second)
        clock.step(10)
    assert asked == [60, 180, 300]


async def test_once_a_day_at_its_time_whatever_the_restarts(make: Make) -> None:
    clock = SteppedClock(now_ms=EARLIEST_TRUE_MS)  # midnight
    rule = make(clock, When(at="06:00"))
    asked = []
    for half_hour in range(3 * 48):
        if half_hour % 5 == 0:
            rule = make(clock, When(at="06:00"), rule.state)
        if rule.schedule.due():
            asked.append(half_hour / 2)
        clock.step(1800)
    assert asked == [6, 30, 54]


async def test_a_rule_written_after_its_time_waits_for_tomorrow(make: Make) -> None:
    clock = SteppedClock(now_ms=EARLIEST_TRUE_MS + 6 * 3_600_000 + 600_000)
    rule = make(clock, When(at="06:00"))
    assert rule.schedule.due() == ""
    clock.step(120)
    assert rule.schedule.due() == ""
    clock.step(86_400 - 720)
    assert rule.schedule.due() == "at 06:00"


async def test_without_a_clock_no_time_of_day_comes(make: Make) -> None:
    clock = SteppedClock(now_ms=0)
    rule = make(clock, When(at="00:10"))
    for _ in range(50):
        assert rule.schedule.due() == ""
        clock.step(3600)
