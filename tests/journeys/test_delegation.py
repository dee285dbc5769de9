"""A question to an AI agent and back: the real daemon, the stand-in of the Sessions API, official callers."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from device_agent.card.agent_card import build
from device_agent.config import load
from device_agent.testing.sessions_api import FakeSessionsApi
from support.callers import pipe, question, result, stream
from support.delegations import COOL, HOT, KEY, NOTHING, OPEN, ended, heat, one, outcome, told
from support.deployment import World
from support.waiting import until


def test_a_hot_greenhouse_asks_and_the_answer_opens_the_valve(
    start: Callable[..., World], sessions: FakeSessionsApi, alice: Any
) -> None:
    sessions.answers.extend([OPEN, "You are welcome.", "Glad to hear."])
    world = start()
    telemetry = stream(pipe(alice, {"streams": ["telemetry"]}), "telemetry")
    telemetry.wait("reading", device="climate")
    heat(world, HOT)
    answered = telemetry.wait("control", 60, about="delegation", state="answered", turn="question")
    asked = telemetry.of("control", about="delegation", state="asked", turn="question")[0]
    assert answered["id"] == asked["id"]
    assert answered["seq"] > asked["seq"]
    assert answered["cause"].startswith("climate.temperature = ")
    assert answered["answer"] == OPEN
    assert answered["command"] == "open_valve"
    ack = answered["ack"]
    assert (ack["state"], ack["applied"], ack["verified"]) == ("done", {"on": True}, True)
    assert world.board is not None
    assert world.board.levels(27)[-1] == 0
    session = one(sessions)
    message = session.said("user")[0]
    assert message.startswith("Greenhouse 7 is at 4")
    assert '"device": "climate", "state": "online", "values"' in message
    assert "at,device,point" in message or "climate" in message.partition("as CSV:")[2]
    assert "- open_valve: opens the valve for five minutes" in message
    assert "- pulse: pulse of valve" in message
    (moved,) = [one for one in world.daemon.ask("journal") if one["who"] == "delegation too_hot"]
    assert (moved["device"], moved["what"], moved["result"]) == ("valve", "on=True for 300 s", "done")
    telemetry.wait("control", 60, about="delegation", state="answered", turn="acted")
    assert session.said("user")[1].endswith("open_valve: done, read back from the hardware")
    heat(world, COOL)
    last = telemetry.wait("control", 60, about="delegation", state="answered", turn="ended")
    assert session.said("user")[2].startswith("It is 2")
    assert last["answer"] == "Glad to hear."
    assert len(sessions.sessions) == 1
    until(lambda: told(world.daemon)["state"] == "idle", "idle")
    assert KEY not in world.daemon.log_path.read_text()
    schema = build(load(world.config))["streams"]["telemetry"]["schema"]
    said = telemetry.of("control", about="delegation")
    assert len(said) == 6
    assert all(jsonschema.Draft202012Validator(schema).is_valid(event) for event in said)
    # A caller who comes later hears the newest words first.
    other = stream(pipe(alice, {"streams": ["telemetry"]}), "telemetry")
    assert other.wait("control", about="delegation", turn="ended")["id"] == asked["id"]


@pytest.mark.parametrize(
    "answer", ["Just open it!", '{"command": "open_roof"}', '{"command": "open_valve"} now']
)
def test_an_answer_that_names_nothing_from_the_list_moves_nothing(
    start: Callable[..., World], sessions: FakeSessionsApi, answer: str
) -> None:
    sessions.answers.extend([answer, NOTHING])
    world = start()
    heat(world, HOT)
    until(lambda: sessions.sessions and len(one(sessions).said("user")) == 2, "the follow-up", 60)
    assert one(sessions).said("user")[1].startswith("Which one?\n\nYou can have the device do one of these")
    until(lambda: told(world.daemon)["state"] == "open", "open", 60)
    last = told(world.daemon)["last"]
    assert (last["turn"], last["answer"]) == ("unclear", NOTHING)
    assert "command" not in last
    assert [one for one in world.daemon.ask("journal") if "delegation" in one["who"]] == []
    assert 0 not in world.board.levels(27)  # type: ignore[union-attr]


def test_a_lease_holds_for_an_answer_too(
    start: Callable[..., World], sessions: FakeSessionsApi, alice: Any
) -> None:
    sessions.answers.extend([OPEN, "I see."])
    world = start()
    control = stream(pipe(alice, {"streams": ["control"]}), "control")
    ack = control.command(kind="set", id="c1", device="valve", values={"on": False})
    assert ack["state"] == "done"

    def keep_lease() -> bool:
        control.command(kind="set", id=f"k{len(control.events)}", device="valve", values={"on": False})
        return bool(sessions.sessions) and len(one(sessions).said("user")) == 2

    heat(world, HOT)
    until(keep_lease, "an answer while alice holds the lease", 60)
    assert "open_valve: rejected (leased: valve is driven by session" in one(sessions).said("user")[1]


def test_access_that_was_taken_away_holds(start: Callable[..., World], sessions: FakeSessionsApi) -> None:
    sessions.held = True
    sessions.answers.extend([OPEN, "I see."])
    world = start()
    heat(world, HOT)
    one(sessions)
    text = world.config.read_text()
    # The rules wait for a restart, access does not; the list alone gives no right.
    world.config.write_text(text.replace(', "delegation:too_hot"]', "]").split("[delegation]")[0])
    world.daemon.process.send_signal(1)
    world.daemon.wait_logged("reloaded")
    sessions.release()
    assert "open_valve: rejected (not_allowed: " in outcome(sessions)


def test_a_condition_that_ended_meanwhile_moves_nothing(
    start: Callable[..., World], sessions: FakeSessionsApi
) -> None:
    sessions.held = True
    sessions.answers.extend([OPEN])
    world = start()
    heat(world, HOT)
    one(sessions)
    heat(world, COOL)
    until(lambda: told(world.daemon)["holds"] is False, "cool again")
    sessions.release()
    assert "open_valve: rejected (expired: what asked does not hold any more)" in outcome(sessions)
    assert 0 not in world.board.levels(27)  # type: ignore[union-attr]
    refused = [one for one in world.daemon.ask("journal") if one["who"] == "delegation too_hot"]
    assert [one["result"] for one in refused] == ["rejected"]


def test_a_caller_asks_with_do(
    start: Callable[..., World], sessions: FakeSessionsApi, alice: Any, caller: Callable[..., Any]
) -> None:
    world = start()
    described = {one["device"]: one for one in result(question(alice, {"op": "describe"}))["devices"]}
    assert described["advice"]["actions"][0]["name"] == "ask"
    control = stream(pipe(alice, {"streams": ["control"]}), "control")
    do = {"kind": "do", "device": "advice", "action": "ask", "ttl_ms": 60_000}
    assert control.command(id="a0", **do)["error"]["code"] == "invalid_value"
    assert control.command(id="a1", **do, args={"question": "Water\x1b now?"})["state"] == "done"
    answer = control.wait("control", 60, about="delegation", state="answered")
    assert (answer["do"], answer["answer"]) == ("a1", "You wrote: A caller asks: Water now?")
    control.stream.write({**do, "id": "a1", "args": {"question": "Water now?"}})
    control.wait("ack", id="a1", repeated=True)
    again = control.command(id="a2", **do, args={"question": "And now?"})
    assert (again["state"], again["error"]["code"]) == ("rejected", "too_soon")
    assert "may ask again in" in again["error"]["message"]
    assert len(sessions.sessions) == 1
    bad = question(
        caller("mallory"), {"op": "do", "device": "advice", "action": "ask", "args": {"question": "x"}}
    )
    assert result(bad)["error"]["code"] == "not_allowed"
    assert any(one["device"] == "advice" and one["result"] == "done" for one in world.daemon.ask("journal"))


def test_the_owner_asks_and_sees(start: Callable[..., World], sessions: FakeSessionsApi) -> None:
    world = start()
    dry = world.daemon.ask("do", device="advice", action="ask", args={"question": "Ok?"}, dry_run=True)
    assert dry["dry_run"]
    assert sessions.sessions == {}
    ack = world.daemon.ask("do", device="advice", action="ask", args={"question": "Ok?"})
    assert ack["state"] == "done"
    last = ended(world.daemon, "answered", "advice")
    assert last["cause"] == "asked by the owner, on the device"
    from device_agent.cli.status import status_lines

    lines = ["".join(text for text, _ in line) for line in status_lines(world.daemon.ask("status"))]
    assert any("advice" in line and "1 of 10 today" in line and "You wrote" in line for line in lines)
