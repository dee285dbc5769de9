"""Everything at once through every door: nothing moves that must not, nothing twice, nothing late."""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, stream
from support.deployment import World
from support.hostile_callers import (
    DOORS,
    Actor,
    Book,
    Streaming,
    Tries,
    asking,
    at_socket,
    judge,
    moved,
    on_page,
    run,
)
from support.mosquitto import free_port
from support.waiting import until

SEED = int(os.environ.get("DEVICE_AGENT_SEED", "0")) or random.SystemRandom().randrange(10**9)


@pytest.fixture
def world(net: NetworkThread, tmp_path: Path) -> Any:
    with World(tmp_path, net, config=DOORS, page_port=free_port()) as made:
        made.start()
        yield made


def actors(world: World, caller: Callable[..., Any]) -> list[Actor]:
    clients = {name: caller(name) for name in ("alice", "bob", "mallory")}
    streams = {name: Streaming(stream(pipe(one), "control")) for name, one in clients.items()}
    port = int(world.config.read_text().partition('listen = "127.0.0.1:')[2].partition('"')[0])
    return [
        *(
            Actor(name, one.send, drives=name != "mallory", send_only=one.listening.stream.write)
            for name, one in streams.items()
        ),
        Actor("request", asking(caller("bob")), drives=True),
        Actor("reader", asking(caller("carol"))),
        Actor("page", on_page(port), drives=True),
        Actor("friend", at_socket(world, **{"as": "local:mcp/friend"}), drives=True),
        Actor("stranger", at_socket(world, **{"as": "local:mcp/stranger"})),
        Actor("broker", at_socket(world, **{"as": "local:mqtt"})),
        Actor("owner", at_socket(world), drives=True, all_of_it=True),
    ]


def everything(world: World, caller: Callable[..., Any], sequences: int) -> None:
    print(f"seed {SEED}: DEVICE_AGENT_SEED={SEED} makes the same sequences")
    assert world.board is not None
    board, book, stops = world.board, Book(), []
    who = actors(world, caller)
    chance = random.Random(SEED)

    def stop_now_and_then() -> None:
        """While it is stopped the record has nothing but safe values, whoever goes on."""
        if chance.random() < 0.1:
            world.daemon.ask("estop")
            before = len(board.record())
            until(lambda: world.daemon.ask("status")["emergency_stop"]["latched"], "stopped")
            after = board.record()[before:]
            stops.append(before)
            if any(moved([entry]).keys() - {0} or entry.get("level") == 1 for entry in after):
                book.faults.append(f"moved while it was stopped: {after}")
            world.daemon.ask("release")

    run([Tries(one, book, SEED) for one in who], sequences, stop_now_and_then)
    assert world.daemon.ask("safe") == {"dial": True, "pump": True}
    counts = moved(board.record())
    faults = judge(book, counts)
    assert not faults, f"seed {SEED}: {len(faults)} faults, the first: {faults[:5]}"
    assert board.levels(22).count(1) <= 40, "max_cycles_per_hour"
    assert sum(counts.values()) > sequences / 50, "enough of it moved to mean something"


def test_the_judge_sees_each_kind_of_fault() -> None:
    book = Book()
    once, never = book.value(1), book.value()
    book.answered(once, {"state": "done"})
    book.answered(never, {"state": "rejected", "error": {"code": "leased", "message": "no"}})
    assert judge(book, Counter({once: 1})) == ["a refusal names no rule: {'code': 'leased', 'message': 'no'}"]
    book.faults.clear()
    assert judge(book, Counter({once: 1})) == []
    assert "2 times, and might 1" in judge(book, Counter({once: 2}))[0]
    assert "said to be done 1 times" in judge(book, Counter())[0]
    assert len(judge(book, Counter({once: 1, never: 1}))) == 2


def test_no_sequence_moves_what_it_must_not(world: World, caller: Callable[..., Any]) -> None:
    everything(world, caller, 250)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_sequences(world: World, caller: Callable[..., Any]) -> None:
    everything(world, caller, int(os.environ.get("DEVICE_AGENT_SEQUENCES", "100000")))
