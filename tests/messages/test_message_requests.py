"""From the input parts of a task to its request."""

import json
from typing import Any

import pytest

from device_agent.errors import Rejected
from device_agent.messages.requests import (
    DoRequest,
    HistoryRequest,
    PipeRequest,
    ReadRequest,
    SetRequest,
    parse_pipe_request,
    parse_request,
)
from device_agent.network import Part


def part(body: Any) -> Part:
    return Part("request", "application/json", body if isinstance(body, str) else json.dumps(body))


FILE = Part("file", "text/plain", "content")
HISTORY: dict[str, Any] = {"op": "history", "from": 1, "to": "2026"}
DO = {"op": "do", "device": "printer", "action": "send_file"}


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ({"op": "read"}, ReadRequest(op="read")),
        (
            {"op": "set", "device": "a", "values": {"on": True}},
            SetRequest(op="set", device="a", values={"on": True}),
        ),
        (DO, DoRequest(op="do", device="printer", action="send_file")),
        (
            {"op": "history", "from": 1, "to": "2026"},
            HistoryRequest(from_=1, to="2026"),
        ),
    ],
)
def test_a_request_is_one_of_its_kind(body: Any, request_: Any) -> None:
    assert parse_request([part(body)], takes_file=False) == (request_, None)


def test_a_file_comes_with_an_action_alone() -> None:
    assert parse_request([FILE, part(DO)], takes_file=True)[1] is FILE
    with pytest.raises(Rejected, match="file: op read takes no file"):
        parse_request([part({"op": "read"}), FILE], takes_file=True)
    with pytest.raises(Rejected, match="neither a text nor a file"):
        parse_request([part(DO), Part("file")], takes_file=True)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([], "the input part 'request' is missing"),
        ([FILE], "there is no input 'file'; there is: request"),
        ([part(DO), part(DO)], "the input part 'request' came more than once"),
        ([Part("request", artifact={"id": 1})], "the input part 'request' is a file; it takes JSON text"),
        ([part("{")], "request: "),
        ([part({"op": "fly"})], "request: "),
        ([part({"op": "read", "devices": []})], "request: devices"),
        ([part({"op": "read", "devices": ["d"] * 257})], "request: devices"),
        ([part({"op": "set", "device": "a", "values": {}})], "request: values"),
        ([part({"op": "set", "device": "a" * 65, "values": {"on": 1}})], "request: device"),
        ([part({"op": "set", "device": "a", "values": {"on": 1}, "for_s": 0})], "request: for_s"),
        ([part({"op": "set", "device": "a", "values": {"on": 1}, "dry_run": 1})], "request: dry_run"),
        ([part({"op": "history", "format": "pdf"})], "request: format"),
        ([part({"op": "history", "from_": 1})], "request: from_"),
    ],
)
def test_a_fault_is_named_with_its_place(parts: list[Part], sentence: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_request(parts, takes_file=False)
    assert caught.value.code == "invalid_value"
    assert sentence in caught.value.message


def test_a_pipe_task_may_come_without_a_request() -> None:
    assert parse_pipe_request([]) == PipeRequest()
    assert parse_pipe_request([Part("request")]) == PipeRequest()
    assert parse_pipe_request([part({"every_s": 86_400})]).every_s == 86_400


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([FILE], "there is no input 'file'; a pipe task takes the part 'request'"),
        ([part({"streams": []})], "request: streams"),
        ([part({"every_s": 86_401})], "request: every_s"),
        ([part({"op": "read"})], "request: op"),
        ([part("[]")], "request: "),
    ],
)
def test_a_fault_in_a_pipe_request_is_named_with_its_place(parts: list[Part], sentence: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_pipe_request(parts)
    assert caught.value.code == "invalid_value"
    assert sentence in caught.value.message
