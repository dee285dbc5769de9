"""The answer of a long-poll: what is in it, and what one message may cost."""

import asyncio
import json
from typing import Any

import pytest

from device_agent import background
from device_agent.errors import ProtocolFault
from device_agent.network.blocks.long_poll import MEMBERS_MAX, Batch, read_batch

DEEP = "[" * 100_000 + "]" * 100_000
MESSAGE = {"c": "x.control", "d": {"type": "StartTask"}, "p": {"t": "17000000000000000"}, "i": "backend"}


async def read(answer: Any) -> Batch:
    return await read_batch("x.control", answer if isinstance(answer, str) else json.dumps(answer))


async def test_a_batch_has_the_next_place_and_the_messages() -> None:
    found = await read(
        {"t": {"t": "17000000000000005", "r": 4}, "m": [{**MESSAGE, "u": {"instance": "AG-1"}}]}
    )
    assert (found.timetoken, found.region) == ("17000000000000005", "4")
    (delivery,) = found.deliveries
    assert (delivery.channel, delivery.payload) == ("x.control", {"type": "StartTask"})
    assert (delivery.meta, delivery.publisher) == ({"instance": "AG-1"}, "backend")
    assert delivery.sent_ms == 1_700_000_000_000.0


@pytest.mark.parametrize(
    "answer", [{"t": {}}, {"t": {}, "m": None}, {"t": {}, "m": []}, ' { "t" :{} , "m": [ ] } ']
)
async def test_an_empty_batch(answer: Any) -> None:
    assert await read(answer) == Batch("0", None, ())


@pytest.mark.parametrize("answer", [None, [], {}, {"t": 5}, "no", "", '{"t":', '{"t":' + "[" * 5000])
async def test_an_answer_without_a_place_is_a_fault(answer: Any) -> None:
    with pytest.raises(ProtocolFault):
        await read(answer)


async def test_malformed_messages_and_other_kinds_are_left_out() -> None:
    bad: list[Any] = [
        None,
        "text",
        {},
        {**MESSAGE, "p": None},
        {**MESSAGE, "p": {"t": "soon"}},
        {**MESSAGE, "e": 1},  # a signal
        {**MESSAGE, "e": 4},  # a file
    ]
    found = await read({"t": {"t": "1"}, "m": [*bad, {**MESSAGE, "e": 0}, MESSAGE]})
    assert len(found.deliveries) == 2


async def test_metadata_of_a_bad_form_is_empty() -> None:
    found = await read({"t": {"t": "1"}, "m": [{**MESSAGE, "u": "text"}]})
    assert found.deliveries[0].meta == {}


@pytest.mark.parametrize("payload", [DEEP, "1" * 5000, f'{{"d":[1,"]}}\\""],"x":{DEEP}}}'])
async def test_a_payload_that_cannot_be_parsed_is_null_and_costs_no_other(payload: str) -> None:
    whole = json.dumps(MESSAGE)
    bad = json.dumps({**MESSAGE, "d": "HERE", "u": {"sender": "a, }]"}, "i": 7}).replace('"HERE"', payload)
    found = await read(f'{{"t":{{"t":"1"}},"m":[{whole}, {bad} ,{whole}]}}')
    assert [delivery.payload for delivery in found.deliveries] == [MESSAGE["d"], None, MESSAGE["d"]]
    assert found.deliveries[1].meta == {"sender": "a, }]"}


async def test_a_payload_with_too_many_members_is_null() -> None:
    found = await read({"t": {"t": "1"}, "m": [{**MESSAGE, "d": [0] * MEMBERS_MAX}, MESSAGE]})
    assert [delivery.payload for delivery in found.deliveries] == [None, MESSAGE["d"]]


async def test_others_have_their_turn_between_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of the event loop are counted: of a message, one and no more, when each takes its time."""
    monkeypatch.setattr(background, "TURN_AFTER_S", 0.0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    found = await read({"t": {"t": "1"}, "m": [{**MESSAGE, "d": [0] * 9000} for _ in range(100)]})
    running.cancel()
    assert (len(found.deliveries), turns) == (100, 100)
