"""PubNub's answers, as its client understands them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from device_agent.errors import ProtocolFault, Refused, TokenRefused
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.pubsub import (
    CROWDED_LIMIT_S,
    KeySet,
    PubSubClient,
    parse_batch,
    refusal_of,
)
from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock
from support.waiting import until_async

pytestmark = pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning")
MESSAGE = {"c": "x.control", "d": {"type": "StartTask"}, "p": {"t": "17000000000000000"}, "i": "backend"}


def test_a_batch_has_the_next_place_and_the_messages():
    answer = {"t": {"t": "17000000000000005", "r": 4}, "m": [{**MESSAGE, "u": {"instance": "AG-1"}}]}
    found = parse_batch("x.control", answer)
    assert (found.timetoken, found.region) == ("17000000000000005", "4")
    (delivery,) = found.deliveries
    assert (delivery.channel, delivery.payload) == ("x.control", {"type": "StartTask"})
    assert (delivery.meta, delivery.publisher) == ({"instance": "AG-1"}, "backend")
    assert delivery.sent_ms == 1_700_000_000_000.0


@pytest.mark.parametrize("answer", [{"t": {}}, {"t": {}, "m": None}, {"t": {}, "m": []}])
def test_an_empty_batch(answer: Any):
    assert parse_batch("c", answer).deliveries == ()
    assert (parse_batch("c", answer).timetoken, parse_batch("c", answer).region) == ("0", None)


@pytest.mark.parametrize("answer", [None, [], {}, {"t": 5}, "no"])
def test_an_answer_without_a_place_is_a_fault(answer: Any):
    with pytest.raises(ProtocolFault):
        parse_batch("c", answer)


def test_malformed_messages_and_other_kinds_are_left_out():
    bad: list[Any] = [
        None,
        "text",
        {},
        {**MESSAGE, "p": None},
        {**MESSAGE, "p": {"t": "soon"}},
        {**MESSAGE, "e": 1},  # a signal
        {**MESSAGE, "e": 4},  # a file
    ]
    found = parse_batch("c", {"t": {"t": "1"}, "m": [*bad, {**MESSAGE, "e": 0}, MESSAGE]})
    assert len(found.deliveries) == 2


def test_metadata_of_a_bad_form_is_empty():
    found = parse_batch("c", {"t": {"t": "1"}, "m": [{**MESSAGE, "u": "text"}]})
    assert found.deliveries[0].meta == {}


def failure(status: int, body: Any) -> Any:
    return SimpleNamespace(status=SimpleNamespace(status_code=status, original_response=body))


def test_a_403_is_a_refused_token_with_the_answer_in_it():
    body = {"message": {"ok": True}}
    refused = refusal_of("setup", failure(403, body))
    assert isinstance(refused, TokenRefused)
    assert (refused.status, refused.body) == (403, body)


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (failure(503, {"message": "overloaded"}), 503, "publish: HTTP 503 overloaded"),
        (failure(429, "slow down"), 429, "publish: HTTP 429 slow down"),
        (failure(400, {"message": {"a": 1}}), 400, "publish: HTTP 400"),
        (SimpleNamespace(), 0, "publish: HTTP 0"),
        (SimpleNamespace(status=None, _status_code=500), 500, "publish: HTTP 500"),
    ],
)
def test_other_refusals(error: Any, status: int, sentence: str):
    refused = refusal_of("publish", error)
    assert type(refused) is Refused
    assert (refused.status, str(refused)) == (status, sentence)


@pytest.fixture
def client(http: Http) -> PubSubClient:
    keys = KeySet("pub", "sub")
    return PubSubClient(http, keys, uuid="AG-1", token="t/1", origin="127.0.0.1:9", tls=False)


async def test_the_address_of_a_file_is_quoted_and_has_the_token(client: PubSubClient):
    address = client.file_url("u.org.t1", "f 1", "a/b.txt")
    assert address.startswith("http://127.0.0.1:9/v1/files/sub/channels/u.org.t1/files/f%201/a%2Fb.txt?")
    assert address.endswith("uuid=AG-1&auth=t%2F1")
    client.token = "other"
    assert client.file_url("c", "f", "n").endswith("auth=other")


@pytest.mark.parametrize("token", ["", "no token", "qEF2AkF0", "%%%"])
async def test_a_token_that_does_not_say_when_it_ends(client: PubSubClient, token: str):
    assert client.token_expires_ms(token) is None


async def test_streams_that_listen_take_turns_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch):
    """And their long-polls become short, so that each is heard within seconds."""
    http = Http(Connectivity(SteppedClock()))
    http.listening = asyncio.Semaphore(2)
    client = PubSubClient(http, KeySet("pub", "sub"), uuid="u", token="t", origin="o", tls=False)
    begun: list[tuple[str, float]] = []
    go_on = asyncio.Event()

    async def subscribe(channel: str, *_: Any, limit_s: float, **__: Any) -> None:
        begun.append((channel, limit_s))
        await go_on.wait()

    monkeypatch.setattr(client, "subscribe", subscribe)
    listening = [
        asyncio.ensure_future(client.listen(name, "17", None, limit_s=20.0)) for name in ("a", "b", "c")
    ]
    await until_async(lambda: len(begun) == 2)
    assert begun == [("a", 20.0), ("b", CROWDED_LIMIT_S)]
    go_on.set()
    await asyncio.gather(*listening)
    assert [channel for channel, _ in begun] == ["a", "b", "c"]
    await http.close()
