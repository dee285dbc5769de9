"""A plan: what it would do, which files fit it, and how it is described."""

from types import SimpleNamespace
from typing import Any

import pytest

from device_agent.commands.authorization import Actor
from device_agent.commands.plan import CommandPlan, Outcome, action_of, check_files, describe
from device_agent.driver import Action, Actuator, Point
from device_agent.errors import Fault, Rejected
from device_agent.messages.acks import AckState
from device_agent.messages.commands import Do, Set
from device_agent.network import Caller
from device_agent.records import SEND_FILE
from device_agent.safety.permit import Motion

ALICE = Actor("task-1", "session alice", Caller("org_a", "alice"), "pipe")
SNAPSHOT = Action("snapshot", moves=False, gives="image/jpeg")
PULSE = Action("pulse")


class Valve(Actuator[Any, Any]):
    points = (Point("on", type="boolean", write=True), Point("level", write=True))
    actions = (PULSE, SNAPSHOT)


VALVE: Any = SimpleNamespace(
    name="valve", driver_class=Valve, safe_values={"on": False, "level": 0}, is_actuator=True
)
SET = Set(kind="set", id="1", device="valve", values={"on": True})


def plan(**what: Any) -> CommandPlan:
    return CommandPlan(SET, VALVE, (ALICE,), 0, 100.0, **what)


async def send(device: Any) -> None:
    raise AssertionError("nothing is sent here")


@pytest.mark.parametrize(
    ("values", "safe"),
    [
        ({"on": False, "level": 0}, True),
        ({"level": 0.0001}, False),
        ({"on": True, "level": 0}, False),
        ({"other": 0}, False),
    ],
)
def test_whether_it_only_makes_safe(values: dict[str, Any], safe: bool) -> None:
    assert plan(values=values).makes_safe is safe


def test_an_action_may_move_and_is_never_known_to_make_safe() -> None:
    assert (plan(action=PULSE).moves, plan(action=PULSE).makes_safe) == (True, False)
    assert not plan(action=SNAPSHOT).moves
    assert plan(values={"on": True}).moves


def test_what_the_permit_is_asked_about() -> None:
    assert plan(values={"on": True}).motion == Motion("valve", "task-1", 100.0, 5000, made_safe=0)
    assert plan(action=SNAPSHOT).motion == Motion("valve", "task-1", 100.0, 5000, read_only=True)


def test_what_is_commanded() -> None:
    assert plan(values={"on": True}).commanded == {"on": True}
    assert plan(action=PULSE, args={"for_s": 2}).commanded == {"for_s": 2}
    assert plan(action=PULSE).commanded == {}


@pytest.mark.parametrize(
    ("what", "takes_file", "sentence"),
    [
        ({"values": {"on": True}}, False, ""),
        ({"action": PULSE}, False, ""),
        ({"action": SNAPSHOT}, True, ""),
        ({"action": SEND_FILE, "send": send}, False, ""),
        (
            {"action": SNAPSHOT},
            False,
            "snapshot gives a file, which no event can carry: ask for it in a request task",
        ),
        ({"action": SEND_FILE}, True, "send_file needs a file: ask by a request task with a part 'file'"),
        ({"action": PULSE, "send": send}, True, "file: pulse takes no file"),
        ({"values": {"on": True}, "send": send}, True, "file: set takes no file"),
    ],
)
def test_files_must_fit(what: dict[str, Any], takes_file: bool, sentence: str) -> None:
    if not sentence:
        check_files(plan(**what), takes_file=takes_file)
        return
    with pytest.raises(Rejected) as refused:
        check_files(plan(**what), takes_file=takes_file)
    assert (refused.value.code, refused.value.message) == ("invalid_value", sentence)


def test_an_unknown_action_lists_those_that_there_are() -> None:
    assert action_of(VALVE, "pulse") is PULSE
    with pytest.raises(Rejected, match="valve has no action 'open'; it has: pulse, snapshot"):
        action_of(VALVE, "open")


def test_descriptions_for_people() -> None:
    assert describe(SET) == "on=True"
    many = Set(kind="set", id="1", device="valve", values={"on": True, "text": "a"})
    assert describe(many) == "on=True, text='a'"
    assert describe(Do(kind="do", id="1", device="valve", action="pulse")) == "pulse()"
    assert describe(Do(kind="do", id="1", device="v", action="go", args={"to": 1})) == "go(to=1)"


def test_the_last_failure_is_what_the_ack_says() -> None:
    outcome = Outcome(commanded={"on": True})
    outcome.fail(AckState.FAILED, "internal", "first")
    outcome.fail(AckState.UNKNOWN, "bus_timeout", "then")
    ack = outcome.ack("7")
    assert (ack.id, ack.state, ack.commanded) == ("7", "unknown", {"on": True})
    assert ack.error == Fault("bus_timeout", "then")
