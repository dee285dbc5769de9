"""Outages of one daemon's link, and what a caller that stays must have afterwards."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import Listening, pipe, stream
from support.deployment import World
from support.waiting import LIMIT_S, until

SEED = int(os.environ.get("DEVICE_AGENT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
TRANSIENT = ("status", "reset", "reset_mid_body", "lose_ack", "duplicate", "delay", "reorder")


@pytest.fixture
def outage(net: NetworkThread, tmp_path: Path) -> Any:
    """A world whose daemon has a link of its own; callers stay on the good one."""
    name = f"device-{tmp_path.name}"
    net.run(net.net.open_link(name))
    with World(tmp_path, net, link=name) as world:
        world.link = name  # type: ignore[attr-defined]
        world.start()
        yield world
        net.call(net.net.heal)
        accept(world)
        # In order, so that the network does not send the next test's task to an instance that is gone.
        world.daemon.stop()


def refuse(world: Any) -> None:
    world.net.run(world.net.net.refuse(world.link))


def accept(world: Any) -> None:
    world.net.run(world.net.net.accept(world.link))


def fault(world: Any, kind: str, **options: Any) -> Any:
    return world.net.call(lambda: world.net.net.add_fault(kind, link=world.link, **options))


def accounted(heard: Listening) -> None:
    """Every number came once, and in order among the live and among the late ones."""
    numbers = [event["seq"] for event in heard.events]
    assert len(numbers) == len(set(numbers)), "an event came twice"
    assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1)), "a number is missing"
    for late in (False, True):
        kind = [event["seq"] for event in heard.events if bool(event.get("late")) is late]
        assert kind == sorted(kind), f"out of order, late={late}"


def caught_up(world: Any, heard: Listening) -> None:
    """Wait until the outbox is empty but for what is on its way, and the caller heard something new."""
    until(lambda: world.daemon.ask("status")["outbox"]["events"] < 10, "the backlog is gone", 60)
    last = max(event["seq"] for event in heard.events)
    until(lambda: max(e["seq"] for e in heard.events) > last + 20, "live readings again", 60)
    until(
        lambda: (
            len(heard.events) == max(e["seq"] for e in heard.events) - min(e["seq"] for e in heard.events) + 1
        ),
        "all numbers",
        60,
    )


@pytest.fixture
def heard(outage: Any, alice: Any) -> Any:
    session = pipe(alice, {"streams": ["control"], "every_s": 0.05}, duration=30)
    listening = stream(session, "control")
    listening.wait("reading", device="climate")
    yield listening
    session.terminate()
    session.wait_for_terminal(LIMIT_S)


def outbox_grows(world: Any, events: int) -> None:
    until(lambda: world.daemon.ask("status")["outbox"]["events"] > events, f"{events} events wait", 60)
