"""`only_while`: judged by the newest reading of another device."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from device_agent.driver import ActuatorConfig, Within
from device_agent.errors import Interlocked
from device_agent.records import Flag, Reading, Value
from device_agent.safety.conditions import Conditions


@dataclass
class StubDevice:
    """What conditions read of a device."""

    config: ActuatorConfig = field(default_factory=lambda: ActuatorConfig(safe=False))
    name: str = "motor"
    online: bool = True
    latest: Reading | None = None


def conditions(wanted: Value | Within, value: Value, **lid: Any) -> Conditions:
    motor = StubDevice(ActuatorConfig(safe=False, only_while={"lid": {"at": wanted}}))
    it = {"motor": motor, "lid": StubDevice(**{"latest": Reading("lid", 0, {"at": value}), **lid})}
    return Conditions(it)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (True, True),
        ("closed", "closed"),
        (Within(minimum=5), 5.0),
        (Within(maximum=5), 5),
        (Within(minimum=1, maximum=9), 3),
    ],
)
def test_a_condition_that_holds(wanted: Value | Within, value: Value) -> None:
    conditions(wanted, value).check("motor")


@pytest.mark.parametrize(
    ("wanted", "value", "says"),
    [
        (True, False, "only while lid.at is true; it is false"),
        ("closed", "open", "only while lid.at is closed; it is open"),
        (Within(minimum=5), 4.9, "at least 5; it is 4.9"),
        (Within(minimum=1, maximum=9), 10, "at least 1 and at most 9; it is 10"),
        (Within(minimum=0), True, "it is true"),
        (True, None, "cannot be read now"),
    ],
)
def test_a_condition_that_does_not_hold_says_what_is(wanted: Value | Within, value: Value, says: str) -> None:
    with pytest.raises(Interlocked) as refused:
        conditions(wanted, value).check("motor")
    assert says in str(refused.value)
    assert refused.value.other == "lid"


@pytest.mark.parametrize(
    "lid",
    [
        {"online": False},
        {"latest": None},
        {"latest": Reading("lid", 0, {"at": True}, {"at": Flag.STALE})},
        {"latest": Reading("lid", 0, {"other": True})},
    ],
)
def test_what_cannot_be_read_does_not_hold(lid: dict[str, Any]) -> None:
    with pytest.raises(Interlocked, match="cannot be read now"):
        conditions(True, True, **lid).check("motor")


def test_a_device_that_does_not_exist_does_not_hold() -> None:
    motor = StubDevice(ActuatorConfig(safe=False, only_while={"lid": {"at": True}}))
    with pytest.raises(Interlocked, match="cannot be read now"):
        Conditions({"motor": motor}).check("motor")  # type: ignore[dict-item]


def test_who_depends_on_a_device_is_known_by_its_name() -> None:
    it = conditions(True, True)
    motor = StubDevice(ActuatorConfig(safe=False, only_while={"lid": {"at": True}}))
    it.adopt(motor)  # type: ignore[arg-type]
    assert list(it.depend_on("lid")) == ["motor"]
    assert list(it.depend_on("motor")) == []


def test_who_gets_another_configuration_depends_on_what_that_names() -> None:
    it = conditions(True, True)
    for other in ("lid", "lid", "door"):
        it.adopt(StubDevice(ActuatorConfig(safe=False, only_while={other: {"at": True}})))  # type: ignore[arg-type]
    assert (list(it.depend_on("lid")), list(it.depend_on("door"))) == ([], ["motor"])
    it.forget("motor")
    assert list(it.depend_on("door")) == []
