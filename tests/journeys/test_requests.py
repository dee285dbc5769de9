"""Request tasks of the official caller: one question, one artifact, one terminal."""

import json
from typing import Any

import pytest

from support.callers import question, result
from support.deployment import AGENT, World
from support.waiting import LIMIT_S, until


def test_read_answers_with_an_artifact(world: World, alice: Any) -> None:
    session = question(alice, {"op": "read", "devices": ["climate", "door"]})
    assert session.terminal["state"] == "completed"
    answer = result(session)
    assert (answer["op"], answer["state"]) == ("read", "done")
    assert [reading["device"] for reading in answer["readings"]] == ["climate", "door"]
    assert set(answer["readings"][0]["values"]) == {"temperature", "pressure", "humidity"}


def test_read_without_a_list_reads_all_but_consoles(world: World, alice: Any) -> None:
    answer = result(question(alice, {"op": "read"}))
    assert {reading["device"] for reading in answer["readings"]} == {"climate", "door", "valve", "scale"}


def test_set_stays_and_for_s_goes_back(world: World, alice: Any) -> None:
    answer = result(question(alice, {"op": "set", "device": "valve", "values": {"on": True}}))
    assert answer["ack"] | {"id": ""} == {
        "id": "",
        "state": "done",
        "commanded": {"on": True},
        "applied": {"on": True},
        "verified": True,
    }
    assert world.board.levels(27)[-1] == 0
    answer = result(question(alice, {"op": "set", "device": "valve", "values": {"on": True}, "for_s": 0.2}))
    assert answer["state"] == "done"
    until(lambda: world.board.levels(27)[-1] == 1, "the relay back at safe")
    row = next(row for row in reversed(world.daemon.ask("journal")) if row["what"] == "on=True for 0.2 s")
    assert (row["device"], row["result"]) == ("valve", "done")
    assert row["who"].startswith("request ")
    assert "user user_alice, organisation " in row["who"]


def test_do_pulses_the_relay(world: World, alice: Any) -> None:
    before = len(world.board.levels(27))
    answer = result(
        question(alice, {"op": "do", "device": "valve", "action": "pulse", "args": {"for_s": 0.1}})
    )
    assert answer["state"] == "done"
    until(lambda: world.board.levels(27)[before:] == [0, 1], "one pulse")


def test_describe_tells_points_units_and_safe_values(world: World, alice: Any) -> None:
    devices = {entry["device"]: entry for entry in result(question(alice, {"op": "describe"}))["devices"]}
    assert devices["climate"]["points"][0]["unit"] == "Cel"
    assert devices["valve"]["points"][0]["safe"] is False
    assert devices["valve"]["actions"][0]["name"] == "pulse"
    assert "minimum" in devices["scale"]["points"][1]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"op": "fly"}, "invalid_value", "op"),
        ({"op": "read", "devices": "climate"}, "invalid_value", "devices"),
        ({"op": "read", "devices": ["nothing"]}, "unknown_device", "nothing"),
        ({"op": "set", "device": "valve"}, "invalid_value", "values"),
        ({"op": "set", "device": "valve", "values": {"on": 3}}, "invalid_value", "valve.on"),
        (
            {"op": "set", "device": "climate", "values": {"temperature": 3}},
            "read_only",
            "climate.temperature",
        ),
        ("not json at all", "invalid_value", "request"),
        ("[" * 5000, "invalid_value", "request"),
    ],
)
def test_refusals_say_field_and_reason(world: World, alice: Any, body: Any, code: str, words: str) -> None:
    session = question(alice, body)
    assert session.terminal["state"] == "failed"
    answer = result(session)
    assert answer["state"] in ("rejected", "failed")
    assert answer["error"]["code"] == code
    assert words in answer["error"]["message"]
    if session.terminal.get("error"):  # a session built from history does not know it
        assert session.terminal["error"] == f"{code}: {answer['error']['message']}"


def test_another_part_is_refused_by_name(world: World, alice: Any) -> None:
    part = {"partId": "picture", "contentType": "application/json", "text": "{}"}
    session = alice.send_message(agent_name=AGENT, request_parts=[part])
    session.wait_for_terminal(LIMIT_S)
    answer = result(session)
    assert "'picture'" in answer["error"]["message"]


def test_a_stranger_does_not_drive_by_request(world: World, caller: Any) -> None:
    answer = result(question(caller("mallory"), {"op": "set", "device": "valve", "values": {"on": True}}))
    assert answer["error"]["code"] == "not_allowed"
    assert world.board.levels(27)[-1] == 1


def test_unplugged_sensor_fails_the_request_and_says_why(world: World, alice: Any) -> None:
    world.board.do("fault", "i2c1", "nack", "--device", "climate")
    until(lambda: world.daemon.device("climate")["state"] == "offline", "climate offline")
    session = question(alice, {"op": "read", "devices": ["climate"]})
    assert session.terminal["state"] == "failed"
    assert result(session)["error"]["code"] == "device_offline"
    world.board.do("heal")
    until(lambda: world.daemon.device("climate")["state"] == "online", "climate back")
    assert result(question(alice, {"op": "read", "devices": ["climate"]}))["state"] == "done"


def test_events_of_a_request_come_in_order_with_one_terminal(world: World, alice: Any) -> None:
    session = question(alice, {"op": "read", "devices": ["door"]})
    channel = world.net.net.task(session.task_id).channel
    kinds = [record.body["type"] for record in world.net.net.publishes(channel)]
    first = kinds.index("terminal")
    assert kinds[:first] == ["progress", "artifact"]
    assert set(kinds[first:]) == {"terminal"}
    progress = world.net.net.publishes(channel)[0].body
    assert (progress["progress"], progress["state"]) == (0, "running")
    json.dumps(progress)
