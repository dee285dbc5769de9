"""The steps of an exchange: answered, acted on within the owner's list, followed up, reported."""

from typing import Any

import pytest

from device_agent.config.delegation import Delegation
from device_agent.delegation.exchange_runner import ExchangeRunner
from device_agent.errors import Refused
from device_agent.messages.commands import Do, Set
from support.scripted_service import Service

OPEN = {"open_vent": {"device": "vent", "values": {"on": True}, "for_s": 600}}
MOVE = {"home": {"device": "arm", "action": "home", "args": {"slow": True}}}
CHOSEN = 'Open it.\n{"command": "open_vent"}'


class World:
    """A runner with its delegation's configuration, and the events that it announced."""

    def __init__(self, service: Service, **options: Any) -> None:
        self.events: list[dict[str, Any]] = []
        config = {"agent": "claude", "message": "Hot?", "answer_within_s": 60, **options}
        rule = Delegation.model_validate(config)
        self.runner = ExchangeRunner("r", rule, service.state, service.services, self._announce)

    def _announce(self, name: str, members: dict[str, Any]) -> None:
        assert name == "r"
        self.events.append(members)

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(event["turn"], event["state"]) for event in self.events]


async def test_a_question_without_commands_is_asked_and_answered(service: Service) -> None:
    world = World(service)
    service.api.answers.append("All is well.")
    assert not await world.runner.run(service.exchange())
    assert world.states == [("question", "asked"), ("question", "answered")]
    assert world.events[-1]["answer"] == "All is well."
    assert world.events[-1]["cause"] == "hot"
    assert service.state.last == world.events[-1], "for callers that come later"
    assert service.executor.commands == []


async def test_a_chosen_command_is_carried_out_once_as_the_delegation(service: Service) -> None:
    world = World(service, commands=OPEN)
    service.api.answers.append(CHOSEN)
    await world.runner.run(service.exchange())
    command = Set(kind="set", id="e-question", device="vent", values={"on": True})
    assert service.executor.commands == [(command, "delegation:r", 600.0)]
    assert service.executor.released == ["delegation:r"], "it does not keep the device"
    assert world.events[-1]["command"] == "open_vent"
    assert world.events[-1]["ack"] == {"id": "e-question", "state": "done", "verified": True}


async def test_an_action_has_its_configured_arguments(service: Service) -> None:
    world = World(service, commands=MOVE)
    service.api.answers.append('{"command": "home"}')
    await world.runner.run(service.exchange())
    command = Do(kind="do", id="e-question", device="arm", action="home", args={"slow": True})
    assert service.executor.commands[0][0] == command


@pytest.mark.parametrize("case", ["not on the list", "condition over", "too late"])
async def test_a_command_that_must_not_be_carried_out_is_refused(service: Service, case: str) -> None:
    world = World(service, commands=MOVE if case == "not on the list" else OPEN, act_within_s=10)
    exchange = service.exchange(phase="answered", command="open_vent", answer="Open it.")
    if case == "condition over":
        service.state.active = False
    if case == "too late":
        service.clock.step(11)
    await world.runner.run(exchange)
    assert service.executor.commands == []
    ack = world.events[-1]["ack"]
    assert (ack["state"], ack["error"]["code"]) == ("rejected", "expired")
    (row,) = service.journal.rows
    assert row[1] == "delegation r"
    assert row[3:5] == ("open_vent", "rejected")


async def test_what_a_caller_asked_needs_no_condition(service: Service) -> None:
    world = World(service, commands=OPEN)
    service.state.active = False
    await world.runner.run(service.exchange(phase="answered", command="open_vent", conditional=False))
    assert len(service.executor.commands) == 1


async def test_an_unclear_answer_is_asked_about_once(service: Service) -> None:
    world = World(service, commands=OPEN, follow_up={"unclear": "Which one?"})
    service.api.answers.extend(["Open the vent!", "I mean the vent."])
    await world.runner.run(service.exchange())
    assert [message.partition("\n")[0] for message in service.api.sent] == ["Hot?", "Which one?"]
    assert "open_vent" in service.api.sent[1], "with the form of the answer"
    assert world.states[-1] == ("unclear", "answered")
    assert world.events[-1]["unclear"]
    assert service.executor.commands == []


async def test_the_outcome_of_a_command_is_sent_back(service: Service) -> None:
    world = World(service, commands=OPEN, follow_up={"acted": "I did it."})
    service.api.answers.extend([CHOSEN, "Good."])
    await world.runner.run(service.exchange())
    assert service.api.sent[1] == "I did it.\n\nopen_vent: done, read back from the hardware"
    assert world.states[-1] == ("acted", "answered")


async def test_a_later_answer_chooses_no_command(service: Service) -> None:
    world = World(service, commands=OPEN, follow_up={"acted": "I did it."})
    service.api.answers.extend([CHOSEN, CHOSEN])
    await world.runner.run(service.exchange())
    assert len(service.executor.commands) == 1


async def test_the_end_of_the_condition_is_waited_for_and_sent(service: Service) -> None:
    world = World(service, follow_up={"ended": "It is over."})
    service.api.answers.extend(["Wait.", "Fine."])
    exchange = service.exchange()
    assert await world.runner.run(exchange)
    assert exchange.phase == "open"
    await world.runner.condition_ended(exchange)
    assert not await world.runner.run(exchange)
    assert service.api.sent[-1] == "It is over."
    assert world.states[-1] == ("ended", "answered")


async def test_a_failure_is_reported_and_ends_it(service: Service) -> None:
    world = World(service)
    service.api.opening.append(Refused("no such agent\x07", 400))
    assert not await world.runner.run(service.exchange(do="d1"))
    (event,) = world.events
    assert (event["state"], event["do"]) == ("failed", "d1")
    assert event["error"]["code"] == "internal"
    assert "\x07" not in event["error"]["message"]
    assert world.runner.trouble == ""


async def test_a_new_process_goes_on_with_the_stored_step(service: Service) -> None:
    world = World(service, commands=OPEN)
    service.api.answers.append(CHOSEN)
    exchange = service.exchange(phase="asked", session="session-1", final_message="https://service/first")
    await world.runner.run(exchange)
    assert service.api.sent == [], "it was sent before"
    assert world.states == [("question", "answered")]
