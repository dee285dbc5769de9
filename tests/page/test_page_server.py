"""The page's server: who may come in, and that it asks as `local:page` and nothing else."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from device_agent.config.page import PageConfig
from device_agent.errors import ConfigError, Rejected
from device_agent.page import server
from device_agent.page.server import Page
from support.mosquitto import free_port
from support.waiting import until_async

Question = Mapping[str, Any]


class Agent:
    """Answers as the control socket's handlers do, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def answer(self, question: Question) -> Any:
        self.asked.append(dict(question))
        match question["op"]:
            case "history":
                return {"data": b'{"readings":[]}'}
            case "do":
                raise Rejected("leased", "valve is driven by somebody")
            case op:
                return {"op": op}

    def handlers(self) -> dict[str, Any]:
        return dict.fromkeys(("status", "describe", "history", "journal", "set", "do", "stop"), self.answer)


@pytest.fixture
def agent() -> Agent:
    return Agent()


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


class Visitor:
    """A client of the page."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session, self.port = session, port

    async def get(self, path: str, **headers: str) -> tuple[int, str, Mapping[str, str]]:
        async with self.session.get(f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers

    async def post(self, body: str, **headers: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}/api/ask"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(url, data=body, headers=named) as answer:
            return answer.status, await answer.text()

    async def token(self) -> str:
        _, text, _ = await self.get("/")
        return text.partition('name="page-token" content="')[2].partition('"')[0]


@asynccontextmanager
async def page(agent: Agent, **options: Any) -> AsyncIterator[Visitor]:
    port = free_port()
    it = Page(PageConfig(listen=f"127.0.0.1:{port}", **options), agent.handlers())
    task = asyncio.create_task(it.run())
    async with aiohttp.ClientSession() as session:
        visitor = Visitor(session, port)

        async def up() -> bool:
            try:
                return (await visitor.get("/healthz"))[0] == 200
            except aiohttp.ClientError:
                assert not task.done(), task.exception()
                return False

        await until_async(up)
        yield visitor
        task.cancel()
        await asyncio.wait([task])


async def test_it_serves_itself_and_nothing_from_elsewhere(agent: Agent) -> None:
    async with page(agent) as visitor:
        sizes = 0
        for path, kind in (("/", "html"), ("/assets/app.js", "javascript"), ("/assets/style.css", "css")):
            status, text, headers = await visitor.get(path)
            assert status == 200
            assert kind in headers["Content-Type"]
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
            sizes += len(text)
        assert sizes < 100_000
        assert (await visitor.get("/assets/..%2fserver.py"))[0] == 404
        assert (await visitor.get("/nowhere"))[0] == 404


async def test_it_asks_as_the_page_whatever_it_is_told(agent: Agent) -> None:
    async with page(agent) as visitor:
        token = await visitor.token()
        body = '{"op": "set", "device": "valve", "values": {"on": true}, "as": "local:mqtt"}'
        status, text = await visitor.post(body, X_Page_Token=token)
        assert (status, text) == (200, '{"ok": true, "result": {"op": "set"}}')
        assert agent.asked[-1] == {"op": "set", "device": "valve", "values": {"on": True}, "as": "local:page"}
        status, text = await visitor.post('{"op": "do", "device": "valve"}', X_Page_Token=token)
        assert '"code": "leased"' in text
        await visitor.get("/api/history?device=valve&from=1&to=2&every_s=60")
        asked = agent.asked[-1]
        assert (asked["op"], asked["devices"], asked["as"]) == ("history", ["valve"], "local:page")
        assert (asked["from"], asked["to"], asked["every_s"]) == ("1", "2", 60.0)


@pytest.mark.parametrize(
    "body", ["", "[]", "7", '{"op": "estop"}', '{"op": "release"}', "[" * 10_000, "\x00"]
)
async def test_what_it_does_not_ask_is_refused_at_the_door(agent: Agent, body: str) -> None:
    async with page(agent) as visitor:
        assert (await visitor.post(body, X_Page_Token=await visitor.token()))[0] == 400
        assert not agent.asked


async def test_a_body_is_bounded(agent: Agent) -> None:
    async with page(agent) as visitor:
        assert (await visitor.post("x" * 20_000, X_Page_Token=await visitor.token()))[0] == 413


async def test_no_other_site_moves_anything(agent: Agent) -> None:
    """Neither by a form, nor by a script, nor by a name of its own that points here."""
    async with page(agent, hosts=("greenhouse.example",)) as visitor:
        body, token = '{"op": "stop"}', await visitor.token()
        assert (await visitor.post(body))[0] == 403
        assert (await visitor.post(body, X_Page_Token="guessed"))[0] == 403
        assert (await visitor.post(body, X_Page_Token=token, Sec_Fetch_Site="cross-site"))[0] == 403
        status, text, _ = await visitor.get("/", Host="rebound.example")
        assert (status, "rebound.example" in text, token in text) == (421, True, False)
        assert not agent.asked
        for name in ("greenhouse.example:80", "localhost", "192.168.1.7:8686", "[::1]:8686"):
            assert (await visitor.get("/", Host=name))[0] == 200
        assert (await visitor.post(body, X_Page_Token=token))[0] == 200


async def test_a_password_is_asked_for(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRONG_PASSWORD_WAIT_S", 0.01)
    file = tmp_path / "password"
    file.write_text("säcret\n", encoding="utf-8")
    file.chmod(0o600)
    async with page(agent, password_file=file) as visitor:
        status, _, headers = await visitor.get("/")
        assert status == 401
        assert headers["WWW-Authenticate"].startswith("Basic ")
        for given in (basic("wrong"), basic(""), "Basic !!", "Bearer x"):
            assert (await visitor.get("/", Authorization=given))[0] == 401
        right = basic("säcret")
        assert (await visitor.get("/", Authorization=right))[0] == 200
        assert (await visitor.get("/", Authorization="Bearer säcret"))[0] == 200
        assert (await visitor.get("/healthz"))[0] == 200
        # What is measured is for who has it; that it is ready, and no more, for who starts services.
        assert (await visitor.get("/metrics"))[0] == 401
        assert (await visitor.get("/readyz"))[:2] == (503, "not ready\n")


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [("x", 0o644, "may be used by others"), ("", 0o600, "is empty"), (None, 0, "cannot be read")],
)
async def test_a_password_that_cannot_be_used_is_said(
    agent: Agent, tmp_path: Path, text: str | None, mode: int, why: str
) -> None:
    file = tmp_path / "password"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    with pytest.raises(ConfigError, match=why):
        await Page(PageConfig(listen=f"127.0.0.1:{free_port()}", password_file=file), {}).run()


async def test_what_changes_comes_by_itself_and_costs_nothing_while_nobody_looks(agent: Agent) -> None:
    async with page(agent) as visitor:
        url = f"http://127.0.0.1:{visitor.port}/api/updates"
        assert not agent.asked
        async with visitor.session.get(url) as stream:
            line = await stream.content.readline()
            assert line == b'data: {"status": {"op": "status"}, "journal": {"op": "journal"}}\n'
        asked = len(agent.asked)
        assert {question["as"] for question in agent.asked} == {"local:page"}
        async with visitor.session.get(url) as stream:
            await stream.content.readline()
        assert len(agent.asked) > asked


async def test_listeners_are_bounded(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LISTENERS_MAX", 2)
    async with page(agent) as visitor:
        url = f"http://127.0.0.1:{visitor.port}/api/updates"
        async with visitor.session.get(url) as one, visitor.session.get(url) as two:
            await one.content.readline()
            await two.content.readline()
            assert (await visitor.get("/api/updates"))[0] == 503

        async def again() -> bool:
            async with visitor.session.get(url) as stream:
                return stream.status == 200

        await until_async(again)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"listen": "8686"}, "an address and a port"),
        ({"listen": "127.0.0.1:0"}, "an address and a port"),
        ({"listen": "0.0.0.0:8686"}, "password_file"),
        ({"listen": "greenhouse.local:8686"}, "password_file"),
        ({"listen": "[2001:db8::1]:8686"}, "password_file"),
        ({"certificate_file": "/c"}, "go together"),
    ],
)
def test_what_is_not_guarded_is_no_configuration(options: dict[str, str], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PageConfig.model_validate(options)


@pytest.mark.parametrize("listen", ["127.0.0.1:8686", "[::1]:8686", "localhost:8686"])
def test_this_machine_alone_needs_no_password(listen: str) -> None:
    assert PageConfig(listen=listen).is_local
    assert PageConfig(listen=listen).address[1] == 8686


async def test_an_address_that_is_taken_is_an_error_and_tried_again(agent: Agent) -> None:
    async with page(agent) as visitor:
        with pytest.raises(OSError, match="address already in use"):
            await Page(PageConfig(listen=f"127.0.0.1:{visitor.port}"), {}).run()
