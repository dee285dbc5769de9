"""Control messages as the network sends them, and the events that go back."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.errors import ProtocolFault
from device_agent.network import Caller, Part
from device_agent.network.blocks.wire import (
    DURATION_MAX_MIN,
    ID_MAX,
    PARTS_MAX,
    PROTOCOL_VERSION,
    TASK_CONTROLS,
    TOKEN_MAX,
    Begin,
    StartRefused,
    SwitchEnvironment,
    TaskControl,
    event_meta,
    parse_control,
    setup_channel,
    stream_channel,
    task_channel,
    task_event,
)

PIPE = {"taskKind": "pipe", "duration": 5, "durationExpiresAtMs": 1_800_000_000_000}


def start(**members: Any) -> Any:
    return parse_control({"type": "StartTask", "taskId": "t1", **members})


# -- StartTask ----------------------------------------------------------------------------------------------


def test_the_least_that_begins_a_task():
    begin = start()
    assert isinstance(begin, Begin)
    assert (begin.start.task_id, begin.start.kind, begin.start.caller) == ("t1", "request", Caller())
    assert (begin.start.org, begin.start.has_stream, begin.control_token) == ("anonymous", False, "")


def test_a_whole_request():
    parts = [
        {"partId": "p1", "contentType": "text/plain", "text": "hi"},
        {"partId": "p2", "artifactRef": {"kind": "file"}},
    ]
    begin = start(
        orgId="org", ownerId="alice", requestParts=parts, writeToken="w", controlToken="c", hasStream=True
    )
    assert begin.control_token == "c"
    assert begin.start.caller == Caller("org", "alice")
    assert begin.start.parts == (Part("p1", "text/plain", "hi"), Part("p2", artifact={"kind": "file"}))
    assert (begin.start.write_token, begin.start.has_stream) == ("w", True)
    assert (begin.start.duration_min, begin.start.expires_at_ms) == (None, None)


def test_a_pipe_has_a_stream_a_duration_and_an_end():
    begin = start(**PIPE)
    assert (begin.start.kind, begin.start.has_stream) == ("pipe", True)
    assert (begin.start.duration_min, begin.start.expires_at_ms) == (5, 1_800_000_000_000)


@pytest.mark.parametrize(
    ("members", "org", "user"),
    [
        ({"orgId": "o", "ownerId": "u"}, "o", "u"),
        ({"ownerId": "u"}, "u", "u"),
        ({"callerClaims": {"sub": "s"}}, "s", "s"),
        ({"callerClaims": {"sub": "u"}, "ownerId": "u"}, "u", "u"),
        ({"callerClaims": {"sub": 7}}, "anonymous", ""),
        ({"callerClaims": []}, "anonymous", ""),
    ],
)
def test_the_task_channel_belongs_to_organisation_or_user(members: dict[str, Any], org: str, user: str):
    begin = start(**members)
    assert (begin.start.org, begin.start.caller.user) == (org, user)


@pytest.mark.parametrize(
    "members",
    [
        {"taskKind": "batch"},
        {"taskKind": 7},
        {**PIPE, "duration": None},
        {**PIPE, "duration": 0},
        {**PIPE, "duration": DURATION_MAX_MIN + 1},
        {**PIPE, "duration": True},
        {**PIPE, "duration": 5.0},
        {**PIPE, "durationExpiresAtMs": None},
        {**PIPE, "durationExpiresAtMs": 0},
    ],
)
def test_a_task_that_cannot_begin_is_answered(members: dict[str, Any]):
    assert start(**members) == StartRefused("t1", "anonymous", "invalid_start_task")


def test_the_longest_pipe_begins():
    assert start(**{**PIPE, "duration": DURATION_MAX_MIN}).start.duration_min == DURATION_MAX_MIN


@pytest.mark.parametrize(
    ("version", "answered"),
    [("2031-01-01", "2031-01-01"), (7, PROTOCOL_VERSION), ("x" * 999, "x" * ID_MAX)],
)
def test_another_version_is_answered_in_its_own_version(version: Any, answered: str):
    refused = start(protocolVersion=version, orgId="o")
    assert refused == StartRefused("t1", "o", "unsupported_protocol_version", answered)


@pytest.mark.parametrize(
    "members",
    [
        {"taskId": ""},
        {"taskId": None},
        {"taskId": "x" * (ID_MAX + 1)},
        {"ownerId": 7},
        {"orgId": "x" * (ID_MAX + 1)},
        {"writeToken": "x" * (TOKEN_MAX + 1)},
        {"controlToken": []},
        {"requestParts": {}},
        {"requestParts": [{}] * (PARTS_MAX + 1)},
        {"requestParts": ["text"]},
        {"requestParts": [{"partId": 7}]},
    ],
)
def test_a_malformed_start_is_a_fault(members: dict[str, Any]):
    with pytest.raises(ProtocolFault):
        start(**members)


def test_values_at_their_limits_are_taken():
    begin = start(taskId="x" * ID_MAX, writeToken="w" * TOKEN_MAX, requestParts=[{}] * PARTS_MAX)
    assert len(begin.start.parts) == PARTS_MAX


def test_a_token_is_not_in_the_representation():
    assert "secret" not in repr(start(writeToken="secret").start)


# -- others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(TASK_CONTROLS))
def test_control_of_a_task(kind: str):
    assert parse_control({"type": kind, "taskId": "t1"}) == TaskControl(kind, "t1")
    with pytest.raises(ProtocolFault):
        parse_control({"type": kind})


@pytest.mark.parametrize("environment", ["playground", "network"])
def test_a_switch_of_the_environment(environment: str):
    message = {"type": "SwitchEnvironment", "environment": environment, "pamToken": "t"}
    assert parse_control(message) == SwitchEnvironment(environment, "t")


@pytest.mark.parametrize(
    "members",
    [
        {"environment": "moon", "pamToken": "t"},
        {"environment": "network"},
        {"environment": "network", "pamToken": ""},
        {"environment": "network", "pamToken": "t", "protocolVersion": "2031-01-01"},
    ],
)
def test_a_malformed_switch_is_a_fault(members: dict[str, Any]):
    with pytest.raises(ProtocolFault):
        parse_control({"type": "SwitchEnvironment", **members})


def test_a_caller_with_two_names_is_refused():
    message = {"callerClaims": {"sub": "alice"}, "ownerId": "eve"}
    refused = parse_control({"type": "StartTask", "taskId": "t1", **message})
    assert isinstance(refused, StartRefused)
    assert refused.error == "invalid_start_task"


@pytest.mark.parametrize("name", ["taskId", "ownerId", "orgId"])
def test_half_a_character_is_no_text(name: str):
    with pytest.raises(ProtocolFault, match="surrogate"):
        parse_control({"type": "StartTask", "taskId": "t1", name: "\ud800"})


@pytest.mark.parametrize(
    "message", [{}, {"type": []}, {"type": "NewInAnotherVersion"}, {"type": "StartTasks"}]
)
def test_an_unknown_type_is_ignored(message: dict[str, Any]):
    assert parse_control(message) is None


@pytest.mark.parametrize("message", [None, [], "StartTask", 7])
def test_what_is_no_object_is_a_fault(message: Any):
    with pytest.raises(ProtocolFault):
        parse_control(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=20,
)
MEMBERS = st.sampled_from(
    [
        "taskId",
        "taskKind",
        "duration",
        "durationExpiresAtMs",
        "requestParts",
        "writeToken",
        "ownerId",
        "orgId",
        "callerClaims",
        "protocolVersion",
        "environment",
        "pamToken",
        "hasStream",
        "controlToken",
    ]
)
TYPES = st.sampled_from(["StartTask", "CancelTask", "ExpireTask", "TerminateTask", "SwitchEnvironment", "X"])


@given(st.builds(lambda kind, rest: {**rest, "type": kind}, TYPES, st.dictionaries(MEMBERS, JSON)) | JSON)
@settings(max_examples=300, deadline=None)
def test_any_json_is_parsed_or_refused(message: Any) -> None:
    sentence = ""
    try:
        parse_control(message)
    except ProtocolFault as fault:
        sentence = str(fault)
    assert len(sentence) < 300


# -- outgoing -----------------------------------------------------------------------------------------------


def test_the_names_of_channels():
    assert task_channel("org", "t1") == "u.org.t1"
    assert setup_channel("org", "t1") == "setup.org.t1"
    assert stream_channel("greenhouse", "s1") == "stream.greenhouse.s1"


def test_an_event_leaves_out_what_is_empty_and_keeps_a_zero():
    event = task_event("t1", "progress", progress=0, state="running", message="", reason=None)
    assert event == {
        "type": "progress",
        "taskId": "t1",
        "protocolVersion": PROTOCOL_VERSION,
        "progress": 0,
        "state": "running",
    }


def test_the_metadata_of_an_event():
    assert event_meta("greenhouse", "t1") == {
        "agentName": "greenhouse",
        "taskId": "t1",
        "protocolVersion": PROTOCOL_VERSION,
    }
