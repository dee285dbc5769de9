"""Before a command: what it would do. After it: a caller that is heard of no more."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, question, result, stream
from support.deployment import CONFIG, World
from support.waiting import LIMIT_S, SLOWNESS, until

VALVE, SAFE, ON = 27, 1, 0  # the valve is active low
SILENCE_S = 4.0 * SLOWNESS


@pytest.fixture(scope="module")
def world(net: NetworkThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    grace = "link_loss_grace_s = 1.5"
    text = CONFIG.replace(grace, f"{grace}\ncaller_silence_s = {SILENCE_S}")
    with World(tmp_path_factory.mktemp("world"), net, config=text) as made:
        made.start()
        yield made


def control(caller: Any) -> tuple[Any, Any]:
    session = pipe(caller, {"streams": ["control"]})
    heard = stream(session, "control")
    heard.wait("control", about="session")
    return session, heard


def end(session: Any) -> None:
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_a_dry_run_answers_and_moves_nothing(world: World, caller: Callable[..., Any]) -> None:
    first, alice = control(caller("alice"))
    second, bob = control(caller("bob"))
    open_it = {"kind": "set", "device": "valve", "values": {"on": True}}
    before = world.board.levels(VALVE)
    rows = len(world.daemon.ask("journal"))
    would = alice.command(**open_it, id="1", dry_run=True)
    assert (would["state"], would["dry_run"], would["hand_over"], would["commanded"]) == (
        "done",
        True,
        False,
        {"on": True},
    )
    assert world.board.levels(VALVE) == before
    (tried,) = world.daemon.ask("journal")[rows:]
    assert (tried["what"], tried["result"]) == ("dry run: on=True", "done")
    again = {**open_it, "id": "1"}
    mark = len(alice.of("ack", id="1"))
    alice.stream.write(again)
    until(lambda: len(alice.of("ack", id="1")) > mark, "the ack of the command itself")
    assert "repeated" not in alice.of("ack", id="1")[-1], "a dry run does not spend the id"
    assert world.board.levels(VALVE)[-1] == ON
    refused = bob.command(**open_it, id="2", dry_run=True)
    assert (refused["state"], refused["error"]["code"], refused["dry_run"]) == ("rejected", "leased", True)
    too_much = bob.command(kind="set", id="3", device="scale", values={"setpoint": 900}, dry_run=True)
    assert too_much["error"]["code"] == "out_of_range"
    end(first)
    end(second)


def test_a_request_asks_first(world: World, alice: Any) -> None:
    until(lambda: world.board.levels(VALVE)[-1] == SAFE, "the valve at safe")
    before = world.board.levels(VALVE)
    asked = {"op": "set", "device": "valve", "values": {"on": True}, "dry_run": True}
    answer = result(question(alice, asked))
    assert (answer["state"], answer["ack"]["dry_run"]) == ("done", True)
    pulse = {"op": "do", "device": "valve", "action": "pulse", "args": {"for_s": 1}, "dry_run": True}
    assert result(question(alice, pulse))["ack"]["dry_run"] is True
    assert world.board.levels(VALVE) == before


def test_what_a_silent_caller_drove_goes_to_safe(world: World, alice: Any) -> None:
    session, heard = control(alice)
    assert heard.command(kind="set", id="q1", device="valve", values={"on": True})["state"] == "done"
    begun_s = time.monotonic()
    last_s = begun_s
    while last_s - begun_s < 1.5 * SILENCE_S:
        # Any word is a sign of life; `resume` changes nothing.
        count = len(heard.of("control", about="resume"))
        heard.stream.write({"kind": "resume"})
        until(lambda count=count: len(heard.of("control", about="resume")) > count, "the answer")
        last_s = time.monotonic()
    assert world.board.levels(VALVE)[-1] == ON
    until(lambda: world.board.levels(VALVE)[-1] == SAFE, "the valve at safe")
    closed = [entry for entry in world.board.record() if entry.get("line") == VALVE][-1]
    assert closed["by"] == "daemon"
    assert closed["t"] - last_s > 0.8 * SILENCE_S

    def last_row() -> str:
        return str([row for row in world.daemon.ask("journal") if row["device"] == "valve"][-1])

    until(lambda: "has said nothing for" in last_row(), "its row in the Journal")
    assert heard.command(kind="set", id="q2", device="valve", values={"on": True})["state"] == "done"
    end(session)
