"""Files that come and go with requests, progress, streams of a request, time limits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blocks_network import file_part

from support.callers import result
from support.deployment import AGENT, World
from support.waiting import LIMIT_S, until

SEND = {"op": "do", "device": "console", "action": "send_file"}


def parts(body: Any, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"partId": "request", "contentType": "application/json", "text": json.dumps(body)}, *more]


def ask(client: Any, body: Any, *more: dict[str, Any], **options: Any) -> Any:
    session = client.send_message(agent_name=AGENT, request_parts=parts(body, *more), **options)
    session.terminal = session.wait_for_terminal(LIMIT_S)
    return session


def left_behind(world: World) -> list[Path]:
    return list((world.folder / "state" / "requests").glob("*"))


def test_a_text_is_sent_to_a_device_as_a_file(world: World, alice: Any) -> None:
    answer = result(ask(alice, SEND, {"partId": "file", "text": "G28\nG1 X10\n"}))
    assert answer["state"] == "done", answer
    assert answer["ack"]["state"] == "done"
    until(lambda: "G1 X10" in world.board.do("sent", "terminal"), "the text at the port")
    until(lambda: left_behind(world) == [], "nothing left on the disk")


@pytest.mark.parametrize("size", [9_000, 60_000], ids=["inline", "uploaded"])
def test_a_file_is_fetched_and_sent(world: World, alice: Any, size: int) -> None:
    """Small ones come within the task, larger ones are fetched by reference with the task's token."""
    end = f"; end of {size}"
    data = (b"G1 X1 Y1\n" * size)[: size - len(end)] + end.encode()
    session = ask(alice, SEND, file_part(data, file_name="a.gcode"))
    assert session.terminal["state"] == "completed", result(session)
    until(lambda: end in world.board.do("sent", "terminal"), "the end of the file at the port")
    until(lambda: left_behind(world) == [], "nothing left on the disk")


@pytest.mark.parametrize(
    ("body", "part", "words"),
    [
        (SEND, None, "needs a file"),
        ({"op": "read"}, {"partId": "file", "text": "x"}, "file: op read takes no file"),
        ({**SEND, "device": "valve"}, {"partId": "file", "text": "x"}, "has no action 'send_file'"),
        ({**SEND, "action": "print"}, {"partId": "file", "text": "x"}, "it has: send_file"),
        (
            {**SEND, "device": "valve", "action": "pulse", "args": {"for_s": 1}},
            {"partId": "file", "text": "x"},
            "takes no file",
        ),
        (SEND, {"partId": "program", "text": "x"}, "there is: request, file"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    world: World, alice: Any, body: Any, part: Any, words: str
) -> None:
    answer = result(ask(alice, body, *([part] if part else [])))
    assert answer["error"]["code"] == "invalid_value"
    assert words in answer["error"]["message"]
    until(lambda: left_behind(world) == [], "nothing left on the disk")


def test_a_stranger_sends_no_file(world: World, caller: Callable[..., Any]) -> None:
    answer = result(ask(caller("mallory"), SEND, {"partId": "file", "text": "M112"}))
    assert answer["error"]["code"] == "not_allowed"
    assert "M112" not in world.board.do("sent", "terminal")


def test_a_request_streams_its_progress_where_asked(world: World, alice: Any) -> None:
    session = alice.send_message(
        agent_name=AGENT, request_parts=parts({"op": "read", "devices": ["door"]}), stream=True
    )
    reference = session.wait_for_stream("_default", timeout=LIMIT_S)
    events = list(reference.open().events())
    assert [e["kind"] for e in events] == ["progress"]
    assert (events[-1]["message"], events[-1]["seq"]) == ("done", 1)
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"
    assert result(session)["state"] == "done"
