"""A message costs one message, whatever is in it: nobody else is silenced, now or after a restart."""

from collections.abc import Callable
from typing import Any

import pytest

from support.callers import pipe, question, result, stream
from support.deployment import World, send
from support.waiting import LIMIT_S

HEAD = '{"type":"stream_events","streamId":"open","seq":1,"ts":1,'
MESSAGES = {
    "no object": "7",
    "a number of 5000 digits": HEAD + '"events":[' + "1" * 5000 + "]}",
    "1500 lists in each other": HEAD + '"events":[' + "[" * 1500 + "]" * 1500 + "]}",
    "a kind that is a list": HEAD + '"events":[{"kind":[]}]}',
    "half a character": HEAD + r'"events":[{"kind":"stop","id":"\ud800"},{"kind":"set","id":"\ud800"}]}',
    "a part beyond all numbers": HEAD + '"multipart":{"id":"m","part":1e400,"total":2},"data":""}',
    "too many events": HEAD + '"events":[' + ",".join(["0"] * 5000) + "]}",
    "events that are none": HEAD + '"events":{}}',
}


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_message_on_a_stream(world: World, alice: Any, publish: Callable[..., None], raw: str) -> None:
    """On a stream that callers do not read: some of these end the official reader."""
    session = pipe(alice, {"streams": ["control", "orders"]})
    control = stream(session, "control")
    control.wait("control", about="session")
    orders = session.wait_for_stream("orders", timeout=LIMIT_S).open()
    ids = world.net.net.task(session.task_id).streams
    (stream_id,) = [id_ for id_, about in ids.items() if about["declaredStream"] == "orders"]
    publish(stream_id, raw.replace('"streamId":"open"', f'"streamId":"{stream_id}"'), "user_alice")
    assert control.wait("ack", state="rejected")["error"]["code"] == "invalid_value"
    orders.write({"kind": "set", "id": "on", "device": "valve", "values": {"on": True}})
    assert control.wait("ack", id="on")["state"] == "done"
    # The network has it still, and delivers it to the next process.
    world.daemon.kill()
    world.start()
    orders.write({"kind": "set", "id": "off", "device": "valve", "values": {"on": False}})
    assert control.wait("ack", id="off")["state"] == "done"


def test_a_message_on_the_control_channel(world: World, alice: Any) -> None:
    for message in (
        {"type": []},
        {"type": {}},
        {"type": "StartTask", "taskId": "t2", "taskKind": [], "protocolVersion": []},
    ):
        send(world, message)
        assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
