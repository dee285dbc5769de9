"""How an alert's messages go out: to a program, to a web server, later if not now."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from device_agent.automation.delivery import WAITING_MAX, Delivery
from device_agent.config.automation import Alert
from support.waiting import until

MESSAGE = {"agent": "Farm", "alert": "hot", "state": "begun", "cause": "it is hot", "text": "Farm: hot"}


def no_session() -> aiohttp.ClientSession:
    raise AssertionError("nothing goes to a network here")


def by_command(*words: str) -> Delivery:
    return Delivery("hot", Alert(not_safe=True, command=words), [], no_session)


async def test_a_command_gets_the_message_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKS_API_KEY", "secret")
    told = tmp_path / "told"
    delivery = by_command("/bin/sh", "-c", f"cat > {told}; env > {told}.env")
    assert await delivery.send(MESSAGE) == 0
    assert json.loads(told.read_text()) == MESSAGE
    assert "secret" not in told.with_suffix(".env").read_text()


@pytest.mark.parametrize(
    ("words", "why"),
    [(("/bin/sh", "-c", "exit 3"), "ended with 3"), (("/no/such/program",), "No such file")],
)
async def test_a_command_that_fails_is_tried_again(words: tuple[str, ...], why: str) -> None:
    delivery = by_command(*words)
    assert await delivery.send(MESSAGE) > 0
    assert why in delivery.trouble


async def test_a_command_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.automation.delivery.TRY_LIMIT_S", 0.5)
    pid = tmp_path / "pid"
    delivery = by_command("/bin/sh", "-c", f"sleep 600 & echo $! > {pid}; wait")
    assert await delivery.send(MESSAGE) > 0
    assert "no answer within" in delivery.trouble
    if child := processes(pid):
        until(lambda: not is_running(child), "the child has ended")


def processes(pid: Path) -> str:
    return pid.read_text().strip() if pid.exists() else ""


def is_running(pid: str) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_the_oldest_give_way() -> None:
    waiting: list[dict[str, object]] = []
    delivery = Delivery("hot", Alert(not_safe=True, command=("/bin/true",)), waiting, no_session)
    for number in range(WAITING_MAX + 3):
        delivery.add({**MESSAGE, "number": number})
    assert (len(waiting), waiting[0]["number"], delivery.dropped) == (WAITING_MAX, 3, 3)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def test_a_webhook_gets_it_once_it_answers_well(session: aiohttp.ClientSession) -> None:
    answers, taken = [503, 302, 204], []

    async def take(request: web.Request) -> web.Response:
        taken.append(await request.json())
        return web.Response(status=answers.pop(0), headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    delivery = Delivery("hot", Alert(not_safe=True, webhook=url), [], lambda: session)
    try:
        for answer in (503, 302):
            assert await delivery.send(MESSAGE) > 0
            assert delivery.trouble == f"the webhook answers {answer}"
        assert await delivery.send(MESSAGE) == 0
        assert delivery.trouble == ""
        assert taken == [MESSAGE] * 3
    finally:
        await runner.cleanup()
    assert await delivery.send(MESSAGE) > 0
    assert "cannot be reached" in delivery.trouble
