"""A disk that hangs keeps no stop and no command that makes safe from being obeyed, on any way in."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, question, result, stream
from support.deployment import World
from support.hanging_disk import HangingDisk
from support.mosquitto import free_port
from support.waiting import until

VALVE, OPEN, SHUT = 27, 0, 1  # active low
Way = Callable[[dict[str, Any]], str]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def disk(tmp_path: Path) -> HangingDisk:
    return HangingDisk(tmp_path / "state", tmp_path / "state" / "run", tmp_path)


@pytest.fixture
def world(
    net: NetworkThread, tmp_path: Path, port: int, disk: HangingDisk, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    more = f'\n[page]\nlisten = "127.0.0.1:{port}"\n'
    with World(tmp_path, net, more=more) as made:
        text = made.config.read_text().replace("lease_idle_s = 5", "lease_idle_s = 1")
        made.config.write_text(text.replace('"user:user_bob"]', '"user:user_bob", "local:page"]'))
        for name, value in disk.environment.items():
            monkeypatch.setenv(name, value)
        made.start()
        monkeypatch.undo()
        yield made


class Page:
    """What the page in a browser asks."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(self._url) as answer:
            text = answer.read().decode()
        self._token = text.partition('name="page-token" content="')[2].partition('"')[0]

    def ask(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json", "X-Page-Token": self._token}
        asked = urllib.request.Request(f"{self._url}/api/ask", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked) as answer:
            return str(json.load(answer)["result"]["state"])


@pytest.mark.slow
def test_stop_and_off_are_obeyed_while_the_disk_hangs(
    world: World, disk: HangingDisk, alice: Any, port: int
) -> None:
    control = stream(pipe(alice, {"streams": ["control"]}), "control")
    control.wait("control", about="session")
    daemon, board, ids = world.daemon, world.board, iter(range(1000))
    assert board is not None

    def by_event(body: dict[str, Any]) -> str:
        event = {name: value for name, value in body.items() if name != "op"}
        return str(control.command(kind=body["op"], id=f"{next(ids)}", **event)["state"])

    ways: dict[str, Way] = {
        "event": by_event,
        "request": lambda body: str(result(question(alice, body))["state"]),
        "page": Page(port).ask,
        "control socket": lambda body: str(daemon.ask(**body)["state"]),
    }
    valve = {"op": "set", "device": "valve"}
    off, stop = {**valve, "values": {"on": False}}, {"op": "stop"}
    for name, way in ways.items():
        for word in (off, stop):
            until(lambda way=way: way({**valve, "values": {"on": True}}) == "done", f"on, by {name}")
            assert board.levels(VALVE)[-1] == OPEN
            with disk.hangs():
                assert way(word) == "done", (name, word)
                assert board.levels(VALVE)[-1] == SHUT
                assert daemon.ask("status")["emergency_stop"]["latched"] is (word is stop)
        daemon.ask("release")
    assert daemon.ask("set", device="valve", values={"on": True})["state"] == "done"
    with disk.hangs():
        assert all(daemon.ask("safe").values())
        assert board.levels(VALVE)[-1] == SHUT
    assert not [entry for entry in board.record() if entry["by"] == "guard"], "the guard never took over"
