"""What the control channel may bring: duplicates, capacity, hostile forms, tokens, both key sets."""

import json
from typing import Any

from support.callers import pipe, question, result, stream
from support.deployment import AGENT, World, send, start_of
from support.waiting import LIMIT_S, until


def terminals(world: World, task_id: str) -> list[dict[str, Any]]:
    channel = world.net.net.task(task_id).channel
    return [r.body for r in world.net.net.publishes(channel) if r.body["type"] == "terminal"]


def test_a_start_task_delivered_again_moves_nothing(world: World, alice: Any) -> None:
    session = question(alice, {"op": "set", "device": "valve", "values": {"on": True}, "for_s": 0.1})
    until(lambda: world.board.levels(27)[-1] == 1, "the relay back at safe")
    until(lambda: len(terminals(world, session.task_id)) == 2, "the repeated early terminal")
    record = len(world.board.levels(27))
    world.net.call(world.net.net.resend_start, session.task_id)
    world.daemon.wait_logged("task_known_already")
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    assert len(world.board.levels(27)) == record
    assert len(terminals(world, session.task_id)) == 2


def test_hostile_control_messages_disturb_nobody(world: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["telemetry"]})
    telemetry = stream(session, "telemetry")
    telemetry.wait("reading", device="climate")
    bad: list[Any] = [
        None,
        [],
        "StartTask",
        {"type": "StartTask"},
        {"type": "StartTask", "taskId": 7},
        {"type": "StartTask", "taskId": "x" * 5000},
        {"type": "StartTask", "taskId": "t1", "requestParts": "no"},
        {"type": "StartTask", "taskId": "t2", "requestParts": [[]]},
        {"type": "CancelTask"},
        {"type": "ExpireTask", "taskId": {}},
        {"type": "SwitchEnvironment", "environment": "moon", "pamToken": "x"},
        {"type": "Unheard", "taskId": "t"},
        {"deep": json.loads("[" * 200 + "]" * 200)},
    ]
    for message in bad:
        send(world, message)
    seen = len(telemetry.events)
    until(lambda: len(telemetry.events) > seen + 3, "readings go on")
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_unsupported_version_and_bad_pipe_are_refused_by_name(world: World, alice: Any) -> None:
    session = question(alice, {"op": "read", "devices": ["door"]})
    start = start_of(world, session)
    for number, (change, error) in enumerate(
        [
            ({"protocolVersion": "1999-01-01"}, "unsupported_protocol_version"),
            ({"taskKind": "pipe", "duration": 0, "durationExpiresAtMs": 1}, "invalid_start_task"),
            ({"taskKind": "pipe", "duration": 5}, "invalid_start_task"),
        ]
    ):
        task_id = f"made-up-{number}"
        send(world, {**start, **change, "taskId": task_id})
        channel = f"u.{start.get('orgId') or start['ownerId']}.{task_id}"
        until(
            lambda channel=channel: world.net.net.publishes(channel, refused=True), f"a terminal for {error}"
        )
        body = world.net.net.publishes(channel, refused=True)[0].body
        assert (body["type"], body["state"], body["error"]) == ("terminal", "failed", error)
        if error == "unsupported_protocol_version":
            assert body["protocolVersion"] == "1999-01-01"


def test_expired_control_token_is_renewed(world: World, alice: Any) -> None:
    world.net.call(world.net.net.revoke_tokens, "control")
    world.daemon.wait_logged("token_renewed")
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"


def test_expired_stream_token_is_renewed_without_a_hole(world: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["telemetry"]})
    telemetry = stream(session, "telemetry")
    telemetry.wait("reading", device="climate")
    seen = len(telemetry.events)
    world.net.call(world.net.net.revoke_tokens, "stream_provider")
    until(lambda: len(telemetry.events) > seen + 10, "readings after the renewal")
    seqs = [event["seq"] for event in telemetry.events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_a_request_that_is_cancelled_in_the_same_breath_leaves_its_place(world: World, alice: Any) -> None:
    """What waited out an outage comes in one answer: StartTask and CancelTask before the first step."""
    session = question(alice, {"op": "read", "devices": ["door"]})
    start = {**start_of(world, session), "taskId": "cancelled_at_once"}
    instance, net = world.daemon.ask("status")["instance"], world.net.net

    def both() -> None:
        for message in (start, {"type": "CancelTask", "taskId": "cancelled_at_once"}):
            net.send_control(AGENT, message, {"instance": instance})

    world.net.call(both)
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    until(lambda: world.daemon.ask("status")["requests"] == 0, "no request at work")
