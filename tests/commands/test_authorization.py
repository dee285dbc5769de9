"""What the owner's access rules say to an actor, and that refusals do not give away what is hidden."""

from dataclasses import replace
from typing import Any

import pytest

from device_agent.commands.authorization import (
    Actor,
    Role,
    check_points,
    check_read,
    check_right,
    known_device,
    knows,
    rank,
)
from device_agent.config.access import AccessConfig
from device_agent.errors import Rejected
from device_agent.network import Caller

OWNER = Actor("local", "the owner", Caller(), role=Role.OWNER)
ALICE = Actor("task-1", "session alice", Caller("org_a", "alice"), "pipe")
BOB = Actor("task-2", "session bob", Caller("org_b", "bob"), "pipe")
DELEGATION = Actor("delegation:night", "delegation night", Caller("org_a", "alice"), role=Role.DELEGATION)
ACCESS = AccessConfig.model_validate(
    {
        "read": ["user:alice", "user:bob"],
        "drive": ["user:alice", "delegation:night"],
        "devices": {
            "safe": {"read": [], "drive": []},
            "valve": {"points": {"level": {"drive": ["user:alice"], "minimum": 10, "maximum": 50}}},
        },
    }
)
DEVICES = {"valve": 1, "safe": 2, "lamp": 3}


def refusal(check: Any, *arguments: Any) -> str:
    """Code and sentence; empty if it is allowed."""
    try:
        check(*arguments)
    except Rejected as rejected:
        return f"{rejected.code}: {rejected.message}"
    return ""


def test_who_acts() -> None:
    assert ALICE.identities == {"org:org_a", "user:alice"}
    assert DELEGATION.identities == {"delegation:night"}, "never those of whoever configured it"
    assert (ALICE.journal_key, DELEGATION.journal_key, OWNER.journal_key) == (
        "org_a/alice",
        "delegation:night",
        "local",
    )
    assert Actor("task-9", "", Caller("org_a", "alice")).journal_key == ALICE.journal_key


@pytest.mark.parametrize("task_id", ["local", "delegation:night"])
def test_no_name_of_a_task_makes_its_caller_somebody_else(task_id: str) -> None:
    eve = Actor(task_id, "session", Caller("org_e", "eve"), "pipe")
    assert not eve.is_owner
    assert eve.identities == {"org:org_e", "user:eve"}
    assert eve.journal_key == "org_e/eve"


def test_a_slash_in_a_name_does_not_make_one_caller_of_two() -> None:
    keys = {
        Actor("t", "", Caller(*names)).journal_key for names in (("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"))
    }
    assert len(keys) == 3


def test_a_hidden_device_is_refused_like_one_that_is_not_there() -> None:
    assert refusal(known_device, ACCESS, ALICE, "safe", DEVICES, DEVICES) == (
        "unknown_device: there is no device 'safe' here; there are: lamp, valve"
    )
    assert refusal(known_device, ACCESS, ALICE, "none", DEVICES, DEVICES) == (
        "unknown_device: there is no device 'none' here; there are: lamp, valve"
    )
    assert known_device(ACCESS, OWNER, "safe", DEVICES, DEVICES) == 2


def test_a_stream_bounds_what_may_be_named() -> None:
    assert refusal(known_device, ACCESS, ALICE, "lamp", DEVICES, {"valve"}).endswith("there are: valve")
    assert refusal(known_device, ACCESS, ALICE, "lamp", DEVICES, ()).endswith("there are: none")


def test_reading_names_only_what_may_be_read() -> None:
    assert refusal(check_read, "valve", DEVICES, lambda name: True) == ""
    assert refusal(check_read, "safe", DEVICES, lambda name: name != "safe") == (
        "unknown_device: devices: there is no device 'safe' here; there are: lamp, valve"
    )


@pytest.mark.parametrize(
    ("right", "actors", "refused"),
    [
        ("drive", [ALICE], ""),
        ("drive", [OWNER], ""),
        ("drive", [DELEGATION], ""),
        ("drive", [BOB], "not_allowed: the owner's access rules do not let you drive lamp"),
        ("drive", [ALICE, BOB], "not_allowed: the owner's access rules do not let you drive lamp"),
        ("read", [ALICE, BOB], ""),
        ("read", [DELEGATION], "not_allowed: the owner's access rules do not let you read lamp"),
    ],
)
def test_all_who_may_have_sent_it_need_the_right(right: Any, actors: list[Actor], refused: str) -> None:
    assert refusal(check_right, ACCESS, right, actors, "lamp") == refused


@pytest.mark.parametrize(
    ("actors", "values", "refused"),
    [
        ([ALICE], {"level": 10, "on": True}, ""),
        ([ALICE], {"level": 50}, ""),
        ([ALICE], {"level": None}, ""),
        ([ALICE], {"level": 9.9}, "within 10 to 50, not to 9.9"),
        ([ALICE], {"level": 51}, "within 10 to 50, not to 51"),
        ([OWNER], {"level": 99}, ""),
        ([ALICE, OWNER], {"level": 99}, "within 10 to 50, not to 99"),
        ([DELEGATION], {"level": 20}, "do not let you drive valve.level"),
        ([ALICE, DELEGATION], {"level": 20}, "do not let you drive valve.level"),
        ([DELEGATION], {"on": True}, ""),
    ],
)
def test_points_and_ranges(actors: list[Actor], values: dict[str, Any], refused: str) -> None:
    told = refusal(check_points, ACCESS, actors, "valve", values)
    assert (told == "") is (refused == "")
    assert told.endswith(refused)


def test_the_worst_rank_counts() -> None:
    assert rank(ACCESS, [OWNER], "lamp") == -1
    alice, night = rank(ACCESS, [ALICE], "lamp"), rank(ACCESS, [DELEGATION], "lamp")
    assert -1 < alice < night
    assert rank(ACCESS, [OWNER, ALICE, DELEGATION], "lamp") == night


def test_whoever_may_only_drive_knows_the_device_too() -> None:
    assert knows(ACCESS, DELEGATION, "lamp")
    assert not knows(ACCESS, DELEGATION, "safe")


@pytest.mark.parametrize(
    ("who", "recorded"),
    [
        (ALICE, "session alice (user alice, organisation org_a)"),
        (
            replace(ALICE, shared_stream="open"),
            "session alice on stream open (user alice, organisation org_a)",
        ),
        (replace(OWNER, unix_user="pi"), "the owner (Unix user pi)"),
        (Actor("task-3", "request 1234", Caller(), "request"), "request 1234"),
        (Actor("delegation:hot", "delegation hot", Caller(), role=Role.DELEGATION), "delegation hot"),
    ],
    ids=["caller", "shared stream", "owner", "anonymous", "delegation"],
)
def test_the_journal_names_who_and_by_which_way(who: Actor, recorded: str) -> None:
    assert who.recorded == recorded
