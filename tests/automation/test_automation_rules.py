"""Rules and alerts on real devices with a stepped clock: what they do, when again, and what they say."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from device_agent.automation.local_rule import LocalRule
from device_agent.automation.owner_alert import OwnerAlert
from device_agent.automation.services import AutomationServices, AutomationState
from device_agent.config.automation import Alert, Rule
from device_agent.driver import DriverError
from device_agent.records import Reading
from device_agent.triggers.present import Present
from device_agent.triggers.state_file import StateFile
from support.control_side import ALICE, Ground, Relay, actor
from support.waiting import until_async

HOT = {"device": "up", "point": "level", "above": 35, "below_again": 33}


def no_session() -> aiohttp.ClientSession:
    raise AssertionError("nothing goes to a network here")


class Place:
    """The devices, and how full the outbox is said to be."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground = ground
        self.share = 0.0
        self.services = AutomationServices(
            title="Farm",
            present=Present(ground.devices),
            executor=ground.executor,
            safe_states=ground.safe_states,
            outbox_share=lambda: self.share,
            session=no_session,
            state_file=StateFile(folder / "automation.json", ground.store, AutomationState),
            clock=ground.clock,
        )

    def rule(self, state: AutomationState | None = None, **options: Any) -> LocalRule:
        made = Rule.model_validate(
            {"when": HOT, "then": {"device": "heater", "values": {"on": True}}, **options}
        )
        return LocalRule("r", made, state or AutomationState(), self.services)

    def alert(self, **options: Any) -> tuple[OwnerAlert, AutomationState]:
        state = AutomationState()
        return OwnerAlert("a", Alert(command=("/bin/true",), **options), state, self.services), state

    def level(self, value: float) -> Reading:
        now_s = self.ground.clock.monotonic_s()
        return Reading("up", self.ground.clock.now_ms(), {"level": value}, {}, monotonic_s=now_s)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Ground(tmp_path, '[access]\ndrive = ["user:alice"]\n') as ground:
        yield Place(ground, tmp_path)


async def acts(rule: LocalRule) -> str:
    """What came of it, or "" if it did nothing."""
    before = rule.status().get("last")
    await rule.act()
    last = rule.status().get("last")
    if last == before:
        return ""
    return str(last["error"]["code"] if "error" in last else last["state"])


async def test_a_rule_acts_once_while_its_condition_holds(place: Place) -> None:
    rule = place.rule()
    assert await acts(rule) == ""
    rule.schedule.add_reading(place.level(40))
    assert await acts(rule) == "done"
    assert Relay.told[-1] == ("relay", {"on": True})
    assert place.ground.executor.leases.holder("heater", place.ground.clock.monotonic_s()) is None
    place.ground.clock.step(1000)
    rule.schedule.add_reading(place.level(34))
    assert await acts(rule) == ""
    rule.schedule.add_reading(place.level(32))
    rule.schedule.add_reading(place.level(40))
    assert await acts(rule) == "done"
    (newest, *_) = await place.ground.journal.actuations(1)
    assert (newest["who"], newest["device"], newest["result"]) == ("rule:r", "heater", "done")


async def test_a_refused_rule_waits_and_tries_again(place: Place) -> None:
    alice = actor(ALICE)
    assert await place.ground.set(alice, "heater", on=True) == "done"
    rule = place.rule(min_interval_s=20)
    rule.schedule.add_reading(place.level(40))
    assert await acts(rule) == "leased"
    assert await acts(rule) == ""
    place.ground.clock.step(19)
    assert await acts(rule) == ""
    place.ground.clock.step(60)  # the lease has lapsed: it goes to safe first, and rests min_off_s
    assert await acts(rule) == "too_soon"
    place.ground.clock.step(60)
    assert await acts(rule) == "done"


async def test_after_a_start_a_condition_counts_anew_and_a_time_of_day_does_not(place: Place) -> None:
    served = AutomationState(active=True, served=True)
    rule = place.rule(served)
    rule.schedule.add_reading(place.level(40))
    assert await acts(rule) == "done"
    state = AutomationState()
    assert await acts(place.rule(state, when={"every_s": 60})) == ""
    place.ground.clock.step(60)
    assert await acts(place.rule(state, when={"every_s": 60})) == "done"
    assert await acts(place.rule(state, when={"every_s": 60})) == ""


async def test_an_alert_says_that_it_began_and_that_it_is_over(place: Place) -> None:
    alert, state = place.alert(when=HOT | {"for_s": 10}, min_interval_s=100)
    alert.schedule.add_reading(place.level(40))
    alert.tell()
    assert state.waiting == []
    place.ground.clock.step(10)
    alert.tell()
    alert.tell()
    (message,) = state.waiting
    assert (message["agent"], message["alert"], message["state"]) == ("Farm", "a", "begun")
    assert message["text"].startswith("Farm: a has begun (up.level = ")
    alert.schedule.add_reading(place.level(20))
    alert.tell()
    assert [one["state"] for one in state.waiting] == ["begun", "over"]
    alert.schedule.add_reading(place.level(40))
    place.ground.clock.step(20)
    alert.tell()
    assert len(state.waiting) == 2, "at most so often"
    place.ground.clock.step(100)
    alert.tell()
    assert [one["state"] for one in state.waiting] == ["begun", "over", "begun"]


async def test_an_actuator_that_does_not_obey_is_an_alert(place: Place) -> None:
    alert, state = place.alert(not_safe=True)
    alert.tell()
    Relay.faults = [DriverError("the relay does not answer")]
    place.ground.safe_states.spawn_safe("heater", "test")
    await until_async(lambda: place.ground.safe_states.unreached, "it was tried")
    alert.tell()
    assert state.waiting[0]["cause"] == "heater is not safe: the relay does not answer"
    await until_async(lambda: not place.ground.safe_states.unreached, "it obeyed")
    alert.tell()
    assert [one["state"] for one in state.waiting] == ["begun", "over"]


async def test_an_outbox_that_fills_is_an_alert(place: Place) -> None:
    alert, state = place.alert(outbox_above=0.5)
    for share in (0.1, 0.5, 0.7, 0.9, 0.4):
        place.share = share
        alert.tell()
    assert [(one["state"], one["cause"]) for one in state.waiting] == [
        ("begun", "the outbox is 70% full"),
        ("over", ""),
    ]
