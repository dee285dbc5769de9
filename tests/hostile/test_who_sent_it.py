"""On a shared stream nobody can tell who sent what, so nobody is muted or acts in another's name."""

import json
from collections.abc import Callable
from typing import Any

from support.callers import Listening, pipe, question, result, stream
from support.deployment import World
from support.waiting import LIMIT_S, until


def message(seq: int, **event: Any) -> str:
    head = {"type": "stream_events", "protocolVersion": "2026-05-01", "streamId": "open", "ts": seq}
    return json.dumps({**head, "seq": seq, "encoding": "utf8", "events": [event]})


def test_a_program_that_connects_again_is_heard_at_once(world: World, alice: Any) -> None:
    """The official SDK begins its numbers anew at each connect."""
    session = pipe(alice, {"streams": ["control"]})
    first = stream(session, "control")
    for number in range(5):
        values = {"on": number % 2 == 0}
        assert first.command(kind="set", id=f"a{number}", device="valve", values=values)["state"] == "done"
    again = Listening(session.wait_for_stream("control", timeout=LIMIT_S))
    again.stream.write({"kind": "set", "id": "b", "device": "valve", "values": {"on": False}})
    # In one program both readers share what comes.
    (ack,) = until(lambda: first.of("ack", id="b") + again.of("ack", id="b"), "the answer")
    assert ack["state"] == "done"


def test_a_high_number_in_her_name_mutes_nobody(
    world: World, alice: Any, publish: Callable[..., None]
) -> None:
    opened = stream(pipe(alice, {"streams": ["open"]}), "open")
    opened.wait("control", about="session")
    publish("open", message(10**9, kind="pause"), "user_alice")
    opened.wait("control", about="pause")
    assert opened.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    assert opened.command(kind="stop", id="2")["state"] == "done"


def test_a_reader_stops_nobody_and_uses_up_no_id(
    world: World, alice: Any, mallory: Any, publish: Callable[..., None]
) -> None:
    hers = pipe(alice, {"streams": ["open"]})
    opened = stream(hers, "open")
    opened.wait("control", about="session")
    assert opened.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
    reader = pipe(mallory, {"streams": ["open"]})
    listening = stream(reader, "open")
    listening.wait("control", about="session")
    publish("open", message(1, kind="set", id="x", device="valve", values={"on": True}), "user_alice")
    assert opened.wait("ack", id="x")["error"]["code"] == "not_allowed"
    publish("open", message(2, kind="stop", id="halt"), "user_alice")
    assert opened.wait("ack", id="halt")["error"]["code"] == "not_allowed"
    # Nor when he has left: he may have the stream's token still.
    reader.cancel()
    reader.wait_for_terminal(LIMIT_S)
    publish("open", message(3, kind="stop", id="again"), "user_alice")
    assert opened.wait("ack", id="again")["error"]["code"] == "not_allowed"
    done = result(question(alice, {"op": "set", "device": "door", "values": {"on": True}}))
    assert "emergency stop" not in json.dumps(done)


def test_who_drives_makes_safe_in_any_company(world: World, alice: Any, mallory: Any) -> None:
    opened = stream(pipe(alice, {"streams": ["open"]}), "open")
    opened.wait("control", about="session")
    assert opened.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
    stream(pipe(mallory, {"streams": ["open"]}), "open").wait("control", about="session")
    assert opened.command(kind="set", id="off", device="valve", values={"on": False})["state"] == "done"
    refused = opened.command(kind="set", id="on again", device="valve", values={"on": True})
    assert refused["error"]["code"] == "not_allowed"
