"""The backend API's requests: what is sent, and which answers become which errors."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from device_agent.errors import ProtocolFault, Refused, Revoked, TokenRefused, Unreachable
from device_agent.network.blocks import http as module
from device_agent.network.blocks.http import Api, Http, error_of
from device_agent.network.connectivity import Connectivity
from support.fake_backend import FakeBackend


@pytest.fixture
def peak_bytes() -> Iterator[Callable[[], int]]:
    """The most memory that was used since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


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


def packed(size_bytes: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join(
        [packer.compress(b"x" * 1_000_000) for _ in range(size_bytes // 1_000_000)] + [packer.flush()]
    )


async def test_a_small_packed_answer_that_is_huge_is_not_unpacked(
    api: Api, backend: FakeBackend, peak_bytes: Callable[[], int]
):
    backend.answers["/a"].append((200, packed(1_000_000_000), {"Content-Encoding": "gzip"}))
    assert len(backend.answers["/a"][0][1]) < 1_100_000
    with pytest.raises(ProtocolFault, match="larger than"):
        await api.request("GET", "/a")
    assert peak_bytes() < 30_000_000


@pytest.mark.parametrize("cut", [0, 5])
async def test_a_packed_answer_is_unpacked(api: Api, backend: FakeBackend, cut: int):
    whole = gzip.compress(b'{"a": 1}')
    backend.answers["/a"].append((200, whole[: len(whole) - cut], {"Content-Encoding": "gzip"}))
    with nullcontext() if cut == 0 else pytest.raises(ProtocolFault, match="too early"):
        assert await api.request("GET", "/a") == {"a": 1}


@pytest.mark.parametrize("encoding", ["br", "gzip"])
async def test_an_answer_that_cannot_be_unpacked_is_a_fault(api: Api, backend: FakeBackend, encoding: str):
    backend.answers["/a"].append((200, b"{}", {"Content-Encoding": encoding}))
    with pytest.raises(ProtocolFault, match="packed"):
        await api.request("GET", "/a")


async def test_no_request_of_the_api_follows_a_redirect(api: Api, backend: FakeBackend):
    backend.answers["/a"].append((307, {}, {"Location": f"{backend.url}/b"}))
    with pytest.raises(Refused):
        await api.request("POST", "/a", bearer="key", body={})
    assert not backend.asked_for("/b")


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
