"""A network whose only way out is a proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from device_agent.clock import SystemClock
from device_agent.network.blocks.http import Api, Http
from device_agent.network.blocks.proxy import Proxies
from device_agent.network.connectivity import Connectivity
from support.fake_backend import FakeBackend
from support.tls_backend import TlsBackend, certificate


@pytest.fixture(autouse=True)
def _no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Proxy:
    """Notes what it is asked for, and takes everybody to one port of this machine."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.to_port = 0
        self._serving: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            far_writer.write(head)
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with Proxy() as made:
        yield made


async def asked(url: str, named: str | None = None) -> dict[str, object]:
    http = Http(Connectivity(SystemClock()), named)
    try:
        return await Api(http, url).request("GET", "/config.json", bearer="bk_x")
    finally:
        await http.close()


async def test_requests_go_by_the_proxy_of_the_configuration(proxy: Proxy, backend: FakeBackend) -> None:
    backend.answers["/config.json"].append((200, {"by": "proxy"}))
    proxy.to_port = URL(backend.url).port or 0
    assert await asked("http://backend.test", proxy.url) == {"by": "proxy"}
    assert proxy.heads[0].startswith("GET http://backend.test/config.json HTTP/1.1\r\n")


async def test_a_password_comes_from_the_environment(
    proxy: Proxy, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.answers["/config.json"].append((200, {}))
    proxy.to_port = URL(backend.url).port or 0
    monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//ann:secret@"))
    assert await asked("http://backend.test") == {}
    assert "Proxy-Authorization: Basic YW5uOnNlY3JldA==" in proxy.heads[0]
    assert "Authorization: Bearer bk_x" in proxy.heads[0]


async def test_tls_goes_through_and_shows_the_proxy_nothing(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    context = certificate(tmp_path, now - timedelta(days=1), now + timedelta(days=1))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//ann:secret@"))
    async with TlsBackend(context, now) as backend:
        proxy.to_port = backend.port
        assert await asked("https://backend.test") == {}
        assert backend.asked[-1] == ("GET", "/config.json", True)
    assert proxy.heads[0].startswith("CONNECT backend.test:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic YW5uOnNlY3JldA==" in proxy.heads[0]
    assert "bk_x" not in "".join(proxy.heads)


async def test_this_machine_is_reached_directly(proxy: Proxy, backend: FakeBackend) -> None:
    backend.answers["/config.json"].append((200, {"by": "nobody"}))
    assert await asked(backend.url, proxy.url) == {"by": "nobody"}
    assert proxy.heads == []


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("https_proxy", "http://p:3128")
    monkeypatch.setenv("NO_PROXY", "inside.test,.lan")
    return None


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://a.test/x", "http://p:3128"),
        ("http://a.test/x", None),
        ("https://inside.test", None),
        ("https://b.lan:8443", None),
        ("https://127.0.0.9", None),
        ("https://[::1]", None),
        ("https://localhost:1", None),
    ],
)
def test_the_environment_s_rules_hold(environment: None, url: str, found: str | None) -> None:
    assert Proxies(None).proxy_of(URL(url)) == found


def test_without_a_proxy_there_is_none() -> None:
    assert not Proxies(None)
    assert Proxies("http://p:1")
