"""Everything at once through every door: nothing moves that must not, nothing twice, nothing late."""

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, stream
from support.deployment import World
from support.hostile_callers import DIALS, DOORS, Actor, Book, Tail, Tries, judge, moved, pump_faults, run
from support.hostile_doors import (
    Assistant,
    AtBroker,
    AtSocket,
    OnPage,
    Streaming,
    asking,
    from_long_ago,
)
from support.mosquitto import Broker, free_port
from support.waiting import until

SEED = int(os.environ.get("DEVICE_AGENT_SEED", "0")) or random.SystemRandom().randrange(10**9)
# Who has to wait for the network asks so many things at once.
LANES = {"alice": 6, "bob": 6, "mallory": 4, "request": 6, "reader": 4}
HOURS_S = (-3600.0, 0.0, 3600.0)

pytest.importorskip("mcp", reason="the extra is not installed")


class Doors:
    """One daemon with everything, and who comes in by which door."""

    def __init__(self, world: World, broker: Broker, page_port: int, clock: Path) -> None:
        self.world = world
        self.broker = broker
        self.page_port = page_port
        self._clock = clock

    def shift_clock(self, shift_s: float) -> None:
        """Set how wrong the daemon's wall clock is, which it takes for right."""
        new = self._clock.with_suffix(".new")
        new.write_text(json.dumps({"shift_s": shift_s, "knows": True}))
        new.replace(self._clock)

    def actors(self, caller: Callable[..., Any], stack: ExitStack) -> list[Actor]:
        friend, stranger = (Assistant(self.world, name) for name in ("friend", "stranger"))
        page, broker = OnPage(self.page_port), AtBroker(self.broker.port)
        for one in (friend, stranger, broker):
            stack.callback(one.close)
        streams = {
            name: Streaming(stream(pipe(caller(name), duration=120), "control"))
            for name in ("alice", "bob", "mallory")
        }
        owner = AtSocket(self.world)
        liar = AtSocket(self.world, **{"as": "local:mcp/nobody"})
        return [
            *(
                Actor(name, one.send, drives=name != "mallory", send_only=one.write)
                for name, one in streams.items()
            ),
            Actor("request", asking(self.world, caller("bob")), drives=True, has_ids=False, has_ages=False),
            Actor("reader", asking(self.world, caller("carol")), has_ids=False, has_ages=False),
            Actor("page", page.send, drives=True, never=page.foreign),
            Actor("broker", broker.send, True, send_only=broker.send_only, never=from_long_ago(broker.send)),
            Actor("friend", friend.send, drives=True, has_ages=False),
            Actor("stranger", stranger.send, has_ages=False),
            Actor("liar", liar.send, send_only=liar.send_only),
            Actor(
                "owner", owner.send, True, True, send_only=owner.send_only, never=from_long_ago(owner.send)
            ),
        ]


@pytest.fixture
def doors(
    net: NetworkThread, tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Doors]:
    broker.start()
    clock, page_port = tmp_path / "wall.json", free_port()
    monkeypatch.setenv("DEVICE_AGENT_CLOCK", str(clock))
    with World(tmp_path, net, config=DOORS, page_port=page_port, mqtt_port=broker.port) as world:
        made = Doors(world, broker, page_port, clock)
        made.shift_clock(0.0)
        world.start().wait_logged("mqtt_joined")
        yield made


def everything(doors: Doors, caller: Callable[..., Any], sequences: int) -> set[str]:
    """The actors that may drive and never did."""
    print(f"seed {SEED}: DEVICE_AGENT_SEED={SEED} makes the same sequences")
    world, book = doors.world, Book()
    assert world.board is not None
    chance = random.Random(SEED)
    record = Tail(world.board.record_path)

    def now_and_then(over: threading.Event) -> None:
        """The clock jumps; while it is stopped the record has nothing but safe values, whoever goes on."""
        if chance.random() < 0.1:
            doors.shift_clock(chance.choice(HOURS_S))
        if chance.random() < 0.1:
            world.daemon.ask("estop")
            until(lambda: world.daemon.ask("status")["emergency_stop"]["latched"], "stopped")
            record.news()
            so_far = book.told.total()
            until(lambda: over.is_set() or book.told.total() > so_far + 10, "answers while it is stopped")
            after = record.news()
            if any(moved([entry]).keys() - {0} or entry.get("level") == 1 for entry in after):
                book.faults.append(f"moved while it was stopped: {after}")
            world.daemon.ask("release")

    with ExitStack() as stack:
        stack.callback(record.close)
        who = doors.actors(caller, stack)
        lanes = [Tries(one, book, SEED, lane) for one in who for lane in range(LANES.get(one.name, 1))]
        run(lanes, sequences, now_and_then)
        assert world.daemon.ask("safe") == dict.fromkeys(("pump", *DIALS), True)
        record.news()
    counts = moved(record.entries)
    print(f"{sum(counts.values())} movements; answers: {dict(sorted(book.told.items()))}")
    faults = judge(book, counts) + pump_faults(record.entries)
    assert not faults, f"seed {SEED}: {len(faults)} faults, the first: {faults[:5]}"
    assert sum(counts.values()) > sequences / 50, "enough of it moved to mean something"
    return {one.name for one in who if one.drives} - {name for name, state, _ in book.told if state == "done"}


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
    on_off = [{"line": 22, "t": float(at), "level": level} for at in range(0, 82, 2) for level in (1, 0)]
    assert pump_faults(on_off[:80]) == []
    assert "max_cycles_per_hour" in pump_faults(on_off)[0]
    assert "max_on_s" in pump_faults([on_off[0], {"line": 22, "t": 99.0, "level": 0}])[0]


def test_no_sequence_moves_what_it_must_not(doors: Doors, caller: Callable[..., Any]) -> None:
    everything(doors, caller, 250)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_sequences(doors: Doors, caller: Callable[..., Any]) -> None:
    assert everything(doors, caller, int(os.environ.get("DEVICE_AGENT_SEQUENCES", "100000"))) == set()
