"""PubNub's answers, as its client understands them."""

import asyncio
import json
from typing import Any

import pytest

from device_agent import __version__
from device_agent.errors import ProtocolFault, Refused, TokenRefused
from device_agent.network.blocks.http import REPLY_MAX_BYTES, Http
from device_agent.network.blocks.pubsub import (
    CROWDED_LIMIT_S,
    KeySet,
    PubSubClient,
    refusal,
)
from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock
from support.fake_backend import FakeBackend
from support.waiting import until_async


def test_a_403_is_a_refused_token_with_the_answer_in_it():
    body = {"message": {"ok": True}}
    refused = refusal("setup", 403, body)
    assert isinstance(refused, TokenRefused)
    assert (refused.status, refused.body) == (403, body)


@pytest.mark.parametrize(
    ("status", "answer", "sentence"),
    [
        (503, {"message": "overloaded"}, "publish: HTTP 503 overloaded"),
        (429, "slow down", "publish: HTTP 429 slow down"),
        (400, {"message": {"a": 1}}, "publish: HTTP 400"),
        (500, None, "publish: HTTP 500"),
    ],
)
def test_other_refusals(status: int, answer: Any, sentence: str):
    refused = refusal("publish", status, answer)
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


@pytest.fixture
def asking(http: Http, backend: FakeBackend) -> PubSubClient:
    origin = backend.url.removeprefix("http://")
    return PubSubClient(http, KeySet("pub", "sub"), uuid="AG 1", token="t/1=", origin=origin, tls=False)


WHO = {"uuid": "AG 1", "auth": "t/1=", "pnsdk": f"device-agent/{__version__}"}
STATE = {"n": 1, "é": "&"}


async def test_each_request_is_as_the_protocol_says(asking: PubSubClient, backend: FakeBackend):
    place = "/v2/presence/sub-key/sub/channel/a b"
    replies: dict[str, Any] = {
        "/publish/pub/sub/0/a b/0": [1, "Sent", "17000000000000000"],
        "/v2/subscribe/sub/a b/0": {"t": {"t": "18"}, "m": []},
        f"{place}/heartbeat": {"status": 200},
        f"{place}/uuid/AG 1/data": {"status": 200},
        f"{place}/uuid/AG 1": {"status": 200, "payload": STATE},
        f"{place}/leave": {"status": 200},
        "/time/0": [17000000000000000],
    }
    backend.answers.update({path: [(200, reply)] for path, reply in replies.items()})
    assert await asking.publish("a b", b'{"x":"\xc3\xa9"}', store=True, meta=STATE) == 17_000_000_000_000_000
    found = await asking.subscribe("a b", "17", "4", limit_s=5.0, filter_expression="meta.x != 'y'")
    assert found is not None
    await asking.heartbeat("a b", STATE, 5.0)
    await asking.set_state("a b", STATE, 5.0)
    assert await asking.state("a b", 5.0) == STATE
    await asking.leave("a b", 5.0)
    await asking.ping(5.0)
    queries = [asked.query for asked in backend.asked]
    assert [asked.path for asked in backend.asked] == list(replies)
    assert queries[0] == {"store": "1", "meta": json.dumps(STATE), **WHO}
    assert queries[1] == {"tt": "17", "tr": "4", "heartbeat": "20", "filter-expr": "meta.x != 'y'", **WHO}
    assert queries[2] == {"heartbeat": "20", "state": json.dumps({"a b": STATE}), **WHO}
    assert queries[3] == {"state": json.dumps(STATE), **WHO}
    assert queries[4:6] == [WHO, WHO]
    assert "auth" not in queries[6], "the time needs no token"
    assert (backend.asked[0].body, backend.asked[0].headers["Content-Type"]) == (
        b'{"x":"\xc3\xa9"}',
        "application/json",
    )


@pytest.mark.parametrize("reply", [b"", b"{", b"[]", b'{"a":1}', b'[1,"Sent","soon"]', b"[" * 100_000])
async def test_an_answer_of_another_form_is_a_refusal(
    asking: PubSubClient, backend: FakeBackend, reply: bytes
):
    backend.answers["/publish/pub/sub/0/c/0"].append((200, reply))
    with pytest.raises(Refused, match="not what the protocol says"):
        await asking.publish("c", b"{}", store=False, meta={})


async def test_an_answer_that_is_too_large_is_not_read(asking: PubSubClient, backend: FakeBackend):
    backend.answers["/time/0"].append((200, b"1" * (REPLY_MAX_BYTES + 1)))
    with pytest.raises(ProtocolFault, match="larger than"):
        await asking.ping(5.0)


async def test_a_server_function_answers_with_a_refusal(asking: PubSubClient, backend: FakeBackend):
    where = "/publish/pub/sub/0/setup.x/0"
    backend.answers[where].append((403, {"message": {"ok": True}}))
    assert await asking.ask_function("setup.x", {"phase": "begin"}) == {"message": {"ok": True}}
    assert backend.asked[0].json == {"phase": "begin"}
    backend.answers[where][:] = [(200, [1, "Sent", "1"])]
    with pytest.raises(ProtocolFault):
        await asking.ask_function("setup.x", {"phase": "begin"})


@pytest.mark.parametrize("status", [302, 400, 503])
async def test_a_redirection_or_a_failure_is_a_refusal(
    asking: PubSubClient, backend: FakeBackend, status: int
):
    backend.answers["/time/0"].append((status, b"<html>", {"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(Refused, match=f"time: HTTP {status}$") as raised:
        await asking.ping(5.0)
    assert raised.value.status == status
