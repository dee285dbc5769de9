"""Work per message is bounded and fair: whatever one sends, others and the guard are served."""

import base64
from collections.abc import Callable
from typing import Any

from support.callers import pipe, stream
from support.deployment import World
from support.waiting import until

PART_BYTES = 11_000
FLOOD = 2000


def parts(stream_id: str, whole: bytes) -> list[str]:
    pieces = [whole[at : at + PART_BYTES] for at in range(0, len(whole), PART_BYTES)]
    return [
        f'{{"type":"stream_events","streamId":"{stream_id}","seq":1,"ts":1,"multipart":'
        f'{{"id":"m","part":{n},"total":{len(pieces)}}},"data":"{base64.b64encode(piece).decode()}"}}'
        for n, piece in enumerate(pieces, 1)
    ]


def test_a_million_members_and_a_flood_delay_nobody(
    world: World, alice: Any, mallory: Any, publish: Callable[..., None]
) -> None:
    session = pipe(mallory, {"streams": ["control"], "every_s": 60})
    his = stream(session, "control")
    his.wait("control", about="session")
    hers = stream(pipe(alice, {"streams": ["control"]}), "control")
    hers.wait("control", about="session")
    ids = world.net.net.task(session.task_id).streams
    (stream_id,) = [id_ for id_, about in ids.items() if about["declaredStream"] == "control"]
    for events in (b"[" + b"0," * 140_000 + b"0]", b"[" + b"[[]]," * 50_000 + b"0]"):
        head = f'{{"type":"stream_events","streamId":"{stream_id}","seq":1,"ts":1,"events":'.encode()
        for part in parts(stream_id, head + events + b"}"):
            publish(stream_id, part, "user_mallory")
    for number in range(FLOOD):
        his.stream.write({"kind": "set", "id": f"{number}", "device": "valve", "values": {"on": True}})
        if number % 500 == 0:
            values = {"on": number % 1000 == 0}
            assert hers.command(kind="set", id=f"a{number}", device="valve", values=values)["state"] == "done"
    assert his.command(kind="stop", id="end")["error"]["code"] == "not_allowed"
    until(lambda: his.of("ack", id=""), "one answer for many")
    assert len(his.of("ack")) < FLOOD // 2
    assert world.daemon.ask("status")["guard"]["takeovers"] == 0
