"""Rules and alerts in the real daemon: what moves by itself, by which limits, and what the owner hears."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support.callers import pipe, stream
from support.delegations import heat
from support.deployment import CONFIG, World
from support.waiting import until

HOT, COOL = "40", "21"
LINES = """
[rules.water]
when = {{ device = "climate", point = "temperature", above = 35, below_again = 33 }}
then = {{ device = "valve", values = {{ on = true }}, for_s = 300 }}
min_interval_s = 1
[alerts.hot]
when = {{ device = "climate", point = "temperature", above = 35, below_again = 33 }}
webhook = "{hook}"
min_interval_s = 1
"""


class Hook:
    """A web server that takes messages once it is told to."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.refused = 0
        self.open = True
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if hook.open:
                    hook.taken.append(message)
                else:
                    hook.refused += 1
                self.send_response(204 if hook.open else 503)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def states(self) -> list[tuple[str, str]]:
        return [(message["alert"], message["state"]) for message in self.taken]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


@pytest.fixture
def world(new_world: Callable[..., World], hook: Hook) -> World:
    made = new_world(config=CONFIG + LINES, hook=hook.url)
    made.start()
    return made


def rule(world: World) -> dict[str, Any]:
    (shown,) = world.daemon.ask("status")["rules"]
    return dict(shown)


def test_a_rule_moves_and_the_owner_is_told(world: World, hook: Hook) -> None:
    assert world.board is not None
    heat(world, HOT)
    until(lambda: world.board.levels(27)[-1:] == [0], "the valve opens")
    until(lambda: rule(world).get("last"), "what came of it")
    assert (rule(world)["last"]["state"], rule(world)["last"]["verified"]) == ("done", True)
    (moved,) = [row for row in world.daemon.ask("journal") if row["who"] == "rule:water"]
    assert (moved["device"], moved["what"], moved["result"]) == ("valve", "on=True for 300 s", "done")
    until(lambda: hook.states() == [("hot", "begun")], "the owner is told")
    assert hook.taken[0]["agent"] == "Greenhouse 7"
    assert hook.taken[0]["cause"].startswith("climate.temperature = ")
    heat(world, COOL)
    until(lambda: hook.states() == [("hot", "begun"), ("hot", "over")], "and that it is over")
    assert len([row for row in world.daemon.ask("journal") if row["who"] == "rule:water"]) == 1
    heat(world, HOT)
    until(lambda: hook.states()[2:] == [("hot", "begun")], "a second time")


def test_who_drives_is_not_pushed_aside_and_a_stop_holds(world: World, alice: Any) -> None:
    control = stream(pipe(alice, {"streams": ["control"]}), "control")
    control.wait("control", about="session")
    assert control.command(kind="set", id="1", device="valve", values={"on": False})["state"] == "done"
    world.daemon.ask("estop")
    heat(world, HOT)
    until(lambda: "last" in rule(world), "the rule tried")
    assert rule(world)["last"]["error"]["code"] == "not_allowed"
    assert world.board is not None
    assert 0 not in world.board.levels(27)[1:]
    # Once it is released, and the caller's lease is over, the condition still holds: the rule acts.
    world.daemon.ask("release")
    until(lambda: rule(world)["last"]["state"] == "done", "the rule acts", 60)
    refused = {row["result"] for row in world.daemon.ask("journal") if row["who"] == "rule:water"}
    assert refused == {"rejected", "done"}


def test_a_message_waits_for_its_hook_over_a_kill(world: World, hook: Hook) -> None:
    hook.open = False
    heat(world, HOT)
    until(lambda: hook.refused > 0, "a first try")
    stored = world.folder / "state/automation.json"
    until(lambda: stored.exists() and '"begun"' in stored.read_text(), "it is stored")
    world.daemon.kill()
    hook.open = True
    world.start()
    until(lambda: hook.states() == [("hot", "begun")], "the stored message")
    heat(world, COOL)
    until(lambda: hook.states() == [("hot", "begun"), ("hot", "over")], "it is over")
