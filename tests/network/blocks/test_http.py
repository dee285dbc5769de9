"""The backend API's requests: what is sent, and which answers become which errors."""

import asyncio
from typing import Any

import pytest

from device_agent.errors import ProtocolFault, Refused, Revoked, TokenRefused, Unreachable
from device_agent.network.blocks import http as module
from device_agent.network.blocks.http import Api, Http, error_of, printable
from device_agent.network.connectivity import Connectivity
from support.fake_backend import FakeBackend


@pytest.fixture
def api(http: Http, backend: FakeBackend) -> Api:
    return Api(http, backend.url + "/")


async def test_a_request_has_version_key_and_body(api: Api, backend: FakeBackend):
    backend.answers["/a"].append((200, {"b": 1}))
    assert await api.request("POST", "/a?c=2", bearer="key", body={"d": 3}) == {"b": 1}
    (asked,) = backend.asked
    assert asked.headers["Blocks-Protocol-Version"] == "2026-05-01"
    assert asked.headers["Authorization"] == "Bearer key"
    assert (asked.query, asked.json) == ({"c": "2"}, {"d": 3})


async def test_an_empty_answer_is_an_empty_object(api: Api, backend: FakeBackend):
    backend.answers["/a"].append((200, b" "))
    assert await api.request("DELETE", "/a") == {}
    assert "Authorization" not in backend.asked[0].headers


@pytest.mark.parametrize(
    ("status", "reply", "error", "code"),
    [
        (400, {"code": "Bad", "message": "no"}, Refused, "Bad"),
        (401, {}, TokenRefused, ""),
        (403, {"error": {"code": "Denied", "message": "no"}}, TokenRefused, "Denied"),
        (401, {"code": "API_KEY_INVALID"}, Revoked, "API_KEY_INVALID"),
        (403, {"data": {"code": "AGENT_FORCED_OFFLINE"}}, Revoked, "AGENT_FORCED_OFFLINE"),
        (503, b"<html>", Refused, ""),
        (301, {}, Refused, ""),
    ],
)
async def test_an_answer_that_refuses(
    api: Api, backend: FakeBackend, status: int, reply: Any, error: type[Refused], code: str
):
    backend.answers["/a"].append((status, reply))
    with pytest.raises(Refused) as raised:
        await api.request("GET", "/a?secret=1")
    assert type(raised.value) is error
    assert (raised.value.status, raised.value.code) == (status, code)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("reply", [b"{", b"[1]", b'"a"', b"[" * 100_000])
async def test_an_answer_that_is_no_object_is_a_fault(api: Api, backend: FakeBackend, reply: bytes):
    backend.answers["/a"].append((200, reply))
    with pytest.raises(ProtocolFault):
        await api.request("GET", "/a")


async def test_an_answer_that_is_too_large_is_not_read(
    api: Api, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
):
    backend.answers["/a"].append((200, {"text": "x" * module.REPLY_MAX_BYTES}))
    with pytest.raises(ProtocolFault, match="larger than"):
        await api.request("GET", "/a")


async def test_the_silence_of_a_long_poll_is_no_loss(http: Http, connectivity: Connectivity):
    for held, losses in ((True, 0), (False, 1)):
        with pytest.raises(Unreachable):
            async with http.exchange("poll", 0.01, held=held):
                await asyncio.Event().wait()
        assert connectivity.losses == losses


async def test_no_answer_is_a_loss_and_only_an_answer_that_serves_ends_it(
    api: Api, backend: FakeBackend, connectivity: Connectivity
):
    backend.answers["/a"] += [(500, {}), (200, {})]
    gone = Api(Http(connectivity), "http://127.0.0.1:1")
    with pytest.raises(Unreachable):
        await gone.request("GET", "/a")
    assert (connectivity.up, connectivity.losses) == (False, 1)
    with pytest.raises(Refused):
        await api.request("GET", "/a")
    assert not connectivity.up
    await api.request("GET", "/a")
    assert connectivity.up
    await gone._http.close()


async def test_the_newest_affinity_comes_with_every_request_after_it(api: Api, backend: FakeBackend):
    affinity = "X-Write-Affinity"
    backend.answers["/a"] += [(200, {}, {affinity: each}) for each in ("7.5", "3", "nan", "x", "1e999")]
    for _ in range(6):
        await api.request("GET", "/a")
    assert [asked.headers.get(affinity) for asked in backend.asked] == [None, *["7.500"] * 5]


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        ({"code": "C", "message": "m"}, "C", "m"),
        ({"error": "m"}, "", "m"),
        ({"error": {"code": "C", "message": "m"}}, "C", "m"),
        ({"data": {"code": "C"}, "message": "m"}, "C", "m"),
        ({"code": 7, "message": []}, "", ""),
        ([], "", ""),
        (None, "", ""),
    ],
)
def test_code_and_message_of_an_error_wherever_they_are(reply: Any, code: str, message: str):
    assert error_of(reply) == (code, message)


def test_text_of_the_network_is_fit_for_a_terminal():
    assert printable(" a\x1b[31m\n\u202eb ") == "a [31m  b"
    assert len(printable("x" * 1000)) == 300
