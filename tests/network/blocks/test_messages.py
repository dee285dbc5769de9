"""Stream messages: building them within the size limit, and reading them back."""

import base64
import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import ProtocolFault
from device_agent.network import Format, Inbound, OutgoingMessage
from device_agent.network.blocks.messages import (
    GROUP_AGE_MAX_S,
    GROUP_MAX_BYTES,
    GROUPS_MAX,
    ITEMS_MAX,
    MESSAGE_MAX_BYTES,
    PARTS_MAX,
    StreamReader,
    encode,
    end_of_stream,
    items_limit_bytes,
)

SENDER = "caller"
MULTI_INF = {"id": 1, "part": inf, "total": 2}


def event(n: int, filler: int = 0) -> bytes:
    return json.dumps({"n": n, "text": "x" * filler}).encode()


def message(number: int, *items: bytes, format_: Format = "events") -> list[Any]:
    """The payloads that a subscriber would get."""
    return [json.loads(text) for text in encode("s1", format_, OutgoingMessage(number, items, 1000))]


def read(reader: StreamReader, *payloads: Any, now_s: float = 0.0, sender: str = SENDER) -> list[Any]:
    return [item.item for payload in payloads for item in reader.feed(payload, 5.0, sender, now_s)]


@pytest.fixture
def reader() -> StreamReader:
    return StreamReader("s1", "events")


# -- building -----------------------------------------------------------------------------------------------


def test_events_go_out_as_the_very_bytes_that_were_stored():
    (text,) = encode("s1", "events", OutgoingMessage(7, (b'{"a": 1}', b'{"b":2}'), 1234))
    assert b'"events":[{"a": 1},{"b":2}]' in text
    assert json.loads(text) == {
        "type": "stream_events",
        "protocolVersion": "2026-05-01",
        "streamId": "s1",
        "seq": 7,
        "ts": 1234,
        "encoding": "utf8",
        "events": [{"a": 1}, {"b": 2}],
    }


def test_bytes_go_out_as_base64():
    (text,) = encode("s1", "bytes", OutgoingMessage(0, (b"\x00\xff",), 1))
    assert json.loads(text)["type"] == "stream_data"
    assert [base64.b64decode(chunk) for chunk in json.loads(text)["chunks"]] == [b"\x00\xff"]


@pytest.mark.parametrize("spare", [0, 1])
def test_one_message_up_to_the_limit_and_a_group_beyond(spare: int):
    envelope = len(encode("s1", "events", OutgoingMessage(1, (event(1),), 1000))[0]) - len(event(1))
    filler = MESSAGE_MAX_BYTES - envelope - len(event(1)) + spare
    assert len(message(1, event(1, filler))) == 1 + spare


@pytest.mark.parametrize("parts", [1, 2, PARTS_MAX])
def test_items_up_to_the_limit_of_so_many_parts_need_no_more(parts: int):
    limit_bytes = items_limit_bytes(parts)
    item = event(1, limit_bytes - len(event(1)))
    texts = encode("s" * 64, "events", OutgoingMessage(10**9, (item,), 10**13))
    assert len(texts) <= parts
    assert max(map(len, texts)) <= MESSAGE_MAX_BYTES


def test_the_parts_of_a_group_share_a_number_and_an_id():
    payloads = message(9, event(1, 40_000))
    assert {payload["seq"] for payload in payloads} == {9}
    assert {payload["multipart"]["id"] for payload in payloads} == {"mp-1000-9"}
    numbers = [(payload["multipart"]["part"], payload["multipart"]["total"]) for payload in payloads]
    assert numbers == [(n + 1, len(payloads)) for n in range(len(payloads))]


@given(st.lists(st.binary(min_size=1, max_size=30_000), min_size=1, max_size=4))
def test_whatever_bytes_are_sent_are_read(chunks: list[bytes]):
    payloads = message(0, *chunks, format_="bytes")
    assert read(StreamReader("s1", "bytes"), *payloads) == chunks


# -- order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [[1, 2, 3], [1, 1, 2], [7, 1], [10**9, 1, 2]])
def test_no_number_keeps_another_message_back(reader: StreamReader, numbers: list[int]):
    """A caller's program begins anew at each connect, and a sender's name is anybody's."""
    for place, number in enumerate(numbers):
        assert [item["n"] for item in read(reader, *message(number, event(place)))] == [place]


def test_what_is_delivered_again_is_dropped(reader: StreamReader):
    assert len(read(reader, *message(1, event(1)), *message(1, event(1)))) == 1
    assert len(read(reader, *message(1, event(1)), sender="another")) == 1
    later = {**message(1, event(1))[0], "ts": 1001}
    assert len(read(reader, later)) == 1, "a program that was started again"


def test_an_item_has_the_time_and_the_sender_of_its_message(reader: StreamReader):
    (item,) = reader.feed(message(1, event(1))[0], 77.5, "alice", 0.0)
    assert item == Inbound({"n": 1, "text": ""}, 77.5, "alice")


def test_the_end_of_a_stream_brings_nothing(reader: StreamReader):
    assert read(reader, json.loads(end_of_stream("s1", 1, 5))) == []
    assert len(read(reader, *message(2, event(2)))) == 1


# -- groups -------------------------------------------------------------------------------------------------


def test_parts_in_any_order_and_twice_make_the_message_once(reader: StreamReader):
    payloads = message(1, event(1, 40_000))
    shuffled = [payloads[-1], payloads[0], payloads[-1], *payloads[1:-1]]
    assert [item["n"] for item in read(reader, *shuffled)] == [1]


def test_parts_of_two_groups_may_be_mixed(reader: StreamReader):
    first, second = message(1, event(1, 20_000)), message(2, event(2, 20_000))
    mixed = [payload for pair in zip(first, second, strict=True) for payload in pair]
    assert [item["n"] for item in read(reader, *mixed)] == [1, 2]


def test_the_parts_of_different_senders_are_not_mixed(reader: StreamReader):
    first, last = message(1, event(1, 20_000))
    assert read(reader, first, sender="one") == []
    assert read(reader, last, sender="other") == []


def test_an_unfinished_group_is_forgotten_after_30_s(reader: StreamReader):
    first, last = message(1, event(1, 20_000))
    read(reader, first, now_s=0.0)
    assert read(reader, last, now_s=GROUP_AGE_MAX_S + 1) == []
    assert len(read(reader, first, now_s=GROUP_AGE_MAX_S + 1)) == 1


def test_of_too_many_unfinished_groups_the_oldest_is_forgotten(reader: StreamReader):
    groups = [message(n, event(n, 20_000)) for n in range(1, GROUPS_MAX + 2)]
    read(reader, *(first for first, _ in groups))
    assert read(reader, groups[0][1]) == []


def test_parts_that_contradict_a_group_do_not_cost_it(reader: StreamReader):
    """They may be somebody else's, under the same name."""
    first, last = message(1, event(1, 20_000))
    read(reader, first)
    changed = {**first, "data": base64.b64encode(b"other").decode()}
    with pytest.raises(ProtocolFault, match="two parts"):
        reader.feed(changed, 5.0, SENDER, 0.0)
    assert read(reader, {**last, "seq": 2}) == []
    assert [item["n"] for item in read(reader, last)] == [1]


@pytest.mark.parametrize(("format_", "most"), GROUP_MAX_BYTES.items())
def test_a_group_that_is_too_large_is_refused(format_: Format, most: int):
    reader = StreamReader("s1", format_)
    # Its parts are smaller than the official writer's.
    multipart = {"id": "g", "total": 190}
    data = base64.b64encode(b"x" * (most // 180)).decode()
    kind = "stream_events" if format_ == "events" else "stream_data"
    payloads = [
        {"type": kind, "streamId": "s1", "seq": 1, "data": data, "multipart": {**multipart, "part": n}}
        for n in range(1, 190)
    ]
    with pytest.raises(ProtocolFault, match="larger than"):
        read(reader, *payloads)


def test_a_message_with_too_many_items_is_refused_as_a_whole(reader: StreamReader):
    assert len(read(reader, *message(1, *[b"0"] * ITEMS_MAX))) == ITEMS_MAX
    with pytest.raises(ProtocolFault, match="at most 256"):
        read(reader, *message(2, *[b"0"] * (ITEMS_MAX + 1)))


def test_a_group_that_is_no_json_object_is_refused(reader: StreamReader):
    def part(n: int, data: bytes) -> dict[str, Any]:
        multipart = {"id": "g", "part": n, "total": 2}
        data64 = base64.b64encode(data).decode()
        return {"type": "stream_events", "streamId": "s1", "seq": 1, "multipart": multipart, "data": data64}

    read(reader, part(1, b'{"a'))
    with pytest.raises(ProtocolFault, match="is not JSON"):
        reader.feed(part(2, b"}}"), 0.0, SENDER, 0.0)
    read(reader, part(1, b"[1,"))
    with pytest.raises(ProtocolFault, match="is not an object"):
        reader.feed(part(2, b"2]"), 0.0, SENDER, 0.0)


# -- damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "stream_events",
        {},
        {"type": "stream_events", "streamId": "other", "seq": 1},
        {"type": "stream_other", "streamId": "s1", "seq": 1},
        {"type": [], "streamId": "s1"},
        {"type": "stream_events", "streamId": "s1", "events": 3},
        {
            "type": "stream_events",
            "streamId": "s1",
            "multipart": {"id": 1, "part": inf, "total": 2},
            "data": "",
        },
        {
            "type": "stream_events",
            "streamId": "s1",
            "multipart": {"id": 1, "part": 1, "total": []},
            "data": "",
        },
        {"type": "stream_events", "streamId": "s1", "seq": 1, "multipart": None},
        {"type": "stream_events", "streamId": "s1", "seq": 1, "multipart": {"id": "a", "part": 1}},
        {
            "type": "stream_events",
            "streamId": "s1",
            "seq": 1,
            "multipart": {"id": "a", "part": 3, "total": 2},
            "data": "",
        },
        {
            "type": "stream_events",
            "streamId": "s1",
            "seq": 1,
            "multipart": {"id": "a", "part": 1, "total": 2},
            "data": "!",
        },
    ],
)
def test_a_malformed_message_is_refused_and_disturbs_nothing(reader: StreamReader, payload: Any):
    with pytest.raises(ProtocolFault):
        reader.feed(payload, 0.0, SENDER, 0.0)
    assert len(read(reader, *message(1, event(1)))) == 1


@pytest.mark.parametrize("body", [{}, {"chunks": ["YQ=="]}])
def test_a_message_without_items_of_its_format_brings_nothing(reader: StreamReader, body: dict[str, Any]):
    assert read(reader, {"type": "stream_events", "streamId": "s1", "seq": 1, **body}) == []
    assert len(read(reader, *message(2, event(2)))) == 1


def test_a_chunk_that_is_no_base64_is_left_out():
    payload = {"type": "stream_data", "streamId": "s1", "seq": 0, "encoding": "base64"}
    assert read(StreamReader("s1", "bytes"), {**payload, "chunks": ["YQ==", "!", 7]}) == [b"a"]


def test_a_chunk_in_another_encoding_is_text():
    payload = {"type": "stream_data", "streamId": "s1", "seq": 0, "encoding": "utf8", "chunks": ["é"]}
    assert read(StreamReader("s1", "bytes"), payload) == ["é".encode()]
