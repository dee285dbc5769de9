"""What callers send on streams: the form, the types and ranges, and the sentences of refusals."""

from typing import Any

import pytest

from device_agent.errors import Rejected
from device_agent.messages.commands import (
    VALUES_MAX,
    Do,
    Rate,
    Set,
    Stop,
    checked_args,
    checked_values,
    id_of,
    parse,
)
from device_agent.messages.form import TEXT_MAX
from device_agent.records import Action, Argument, Point, Unit

SET = {"kind": "set", "id": "1", "device": "valve", "values": {"on": True}}
POINTS = {
    "on": Point("on", type="boolean", write=True),
    "level": Point("level", unit=Unit.PERCENT, write=True, minimum=0, maximum=100),
    "steps": Point("steps", type="integer", write=True, minimum=-5),
    "text": Point("text", type="string", write=True),
    "flow": Point("flow"),
}
MOVE = Action(
    "move", (Argument("to", minimum=0, maximum=90), Argument("slowly", type="boolean", required=False))
)


def refusal(event: Any) -> str:
    with pytest.raises(Rejected) as refused:
        parse(event)
    assert refused.value.code == "invalid_value"
    return refused.value.message


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (SET, Set(kind="set", id="1", device="valve", values={"on": True}, ttl_ms=5000, dry_run=False)),
        (
            {"kind": "do", "id": "2", "device": "valve", "action": "pulse", "ttl_ms": 0},
            Do(kind="do", id="2", device="valve", action="pulse", args={}, ttl_ms=0),
        ),
        ({"kind": "stop", "id": "3"}, Stop(kind="stop", id="3")),
        ({"kind": "rate", "every_s": 5}, Rate(kind="rate", every_s=5)),
    ],
)
def test_a_message_becomes_its_type(event: Any, expected: Any) -> None:
    assert parse(event) == expected


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": ""}, "id: string should have at least 1 character"),
        ({"id": "x" * 201}, "id: has 201 bytes, at most 200 are taken"),
        ({"device": "d" * 65}, "device: string should have at most 64 characters"),
        ({"ttl_ms": -1}, "ttl_ms: input should be greater than or equal to 0"),
        ({"ttl_ms": 86_400_001}, "ttl_ms: input should be less than or equal to 86400000"),
        ({"ttl_ms": "5000"}, "ttl_ms: input should be a valid integer"),
        ({"values": {}}, "values: dictionary should have at least 1 and at most 64 items, not 0"),
        ({"extra": 1}, "extra: extra inputs are not permitted"),
        ({"values": {"on": float("nan")}}, "values: on is not a finite number"),
        ({"values": {"on": [1]}}, "values: on is a list, not a number, text, true, false or null"),
        ({"values": {"on": 2**53 + 1}}, "values: on is beyond 2^53"),
        ({"values": {"on": "x" * (TEXT_MAX + 1)}}, "values: on is longer than 4096 characters"),
        (
            {"values": {"on": "\ud800"}},
            "values: on has half a character (a surrogate), which no text can hold",
        ),
        ({"id": 1, "device": 2}, "id: input should be a valid string (and 1 more faults)"),
    ],
)
def test_the_first_fault_is_named(change: dict[str, Any], sentence: str) -> None:
    assert refusal({**SET, **change}) == sentence


def test_the_largest_that_is_allowed() -> None:
    values = {f"p{number}": "x" * TEXT_MAX for number in range(VALUES_MAX)}
    assert len(parse({**SET, "id": "x" * 200, "values": values, "ttl_ms": 86_400_000}).values) == VALUES_MAX
    assert "at most 64" in refusal({**SET, "values": {**values, "one more": 1}})


@pytest.mark.parametrize("event", [None, 5, "set", [], {}, {"kind": "reading"}, {"kind": ["set"]}])
def test_what_is_no_message_is_refused(event: Any) -> None:
    assert refusal(event)


def test_a_message_that_is_nested_without_end_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    try:
        assert refusal({**SET, "values": {"on": deep}})
    finally:
        while deep:  # without recursion
            deep = deep.pop()


@pytest.mark.parametrize(
    ("event", "id_"), [({"id": "7"}, "7"), ({"id": 7}, ""), (None, ""), ({"id": "x" * 300}, "x" * 200)]
)
def test_the_id_of_what_could_not_be_parsed(event: Any, id_: str) -> None:
    assert id_of(event) == id_


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"on": True, "level": 100, "steps": -5, "text": ""}, ""),
        ({"level": 0.0}, ""),
        (
            {"speed": 1},
            "unknown_point: device valve has no point 'speed'; it has: flow, level, on, steps, text",
        ),
        ({"flow": 1}, "read_only: valve.flow can be read, not set"),
        ({"on": 1}, "invalid_value: valve.on takes a boolean, not 1"),
        ({"level": True}, "invalid_value: valve.level takes a number, not True"),
        ({"level": None}, "invalid_value: valve.level takes a number, not None"),
        ({"steps": 1.0}, "invalid_value: valve.steps takes a integer, not 1.0"),
        ({"steps": False}, "invalid_value: valve.steps takes a integer, not False"),
        ({"text": 1}, "invalid_value: valve.text takes a string, not 1"),
        ({"level": 100.1}, "out_of_range: valve.level = 100.1 is outside 0 to 100 %"),
        ({"steps": -6}, "out_of_range: valve.steps = -6 is outside -5 to "),
        ({"level": -1, "speed": 1}, "out_of_range: valve.level = -1 is outside 0 to 100 %"),
    ],
)
def test_values_are_checked_against_the_points(values: dict[str, Any], refused: str) -> None:
    if not refused:
        assert checked_values(values, POINTS, "valve") == values
        return
    with pytest.raises(Rejected) as rejected:
        checked_values(values, POINTS, "valve")
    assert f"{rejected.value.code}: {rejected.value.message}" == refused


@pytest.mark.parametrize(
    ("args", "refused"),
    [
        ({"to": 90}, ""),
        ({"to": 0, "slowly": True}, ""),
        ({}, "invalid_value: action move needs the argument 'to'"),
        ({"to": 1, "fast": True}, "invalid_value: action move takes no argument 'fast'"),
        ({"to": 91}, "out_of_range: move.to = 91 is outside 0 to 90"),
        ({"to": 1, "slowly": 1}, "invalid_value: move.slowly takes a boolean, not 1"),
    ],
)
def test_arguments_are_complete_and_in_range(args: dict[str, Any], refused: str) -> None:
    if not refused:
        assert checked_args(MOVE, args) == args
        return
    with pytest.raises(Rejected) as rejected:
        checked_args(MOVE, args)
    assert f"{rejected.value.code}: {rejected.value.message}" == refused
