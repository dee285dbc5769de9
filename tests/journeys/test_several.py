"""Several sessions of one device, and several devices under one name."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, question, result, stream
from support.deployment import CONFIG, World
from support.waiting import LIMIT_S, until


def several(kinds: str, instances: int) -> str:
    """The usual configuration without shared streams, for so many devices."""
    config = CONFIG.replace('affinity = "shared"\n', "")
    if "pipe" not in kinds:
        config = config[: config.index("[streams.telemetry]")] + config[config.index("[access]") :]
    more = f"concurrency = {{concurrency}}\ninstances = {instances}\ntask_kinds = [{kinds}]"
    return config.replace("concurrency = {concurrency}", more)


def slow_bus(config: str) -> str:
    """A bus that hangs holds its request for longer than the test."""
    return config.replace('"/dev/i2c-1"\ntimeout_s = 0.5', '"/dev/i2c-1"\ntimeout_s = 30')


@pytest.fixture
def twins(net: NetworkThread, tmp_path: Path) -> Iterator[Callable[..., list[World]]]:
    """Two devices, each with its board and its state."""
    worlds: list[World] = []

    def make(**options: Any) -> list[World]:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            worlds.append(World(tmp_path / name, net, **options))
            worlds[-1].start()
        return worlds

    yield make
    for world in worlds:
        world.close()


def working(world: World) -> int:
    return len(world.daemon.ask("status")["sessions"])


def presence(world: World) -> dict[str, Any]:
    """The presence state of this device as the network has it."""
    instance = world.daemon.ask("status")["instance"]
    clients = world.net.call(world.net.net.presence)
    return next(c["state"] for one in clients.values() for c in one if c["uuid"] == instance and c["state"])


def test_each_session_has_its_devices_and_its_pace(
    new_world: Callable[..., World], caller: Callable[..., Any]
) -> None:
    world = new_world(concurrency=0)
    world.start()
    slow = pipe(caller("alice"), {"streams": ["control"], "devices": ["climate"], "every_s": 1})
    fast = pipe(caller("bob"), {"streams": ["control"]})
    calm, lively = stream(slow, "control"), stream(fast, "control")
    lively.stream.write({"kind": "rate", "device": "climate", "on_change": True, "dead_band": 5})
    lively.wait("control", about="rate")
    until(lambda: len(calm.of("reading")) >= 4, "readings of the first")
    world.board.do("pin", "pins", "17", "high")
    lively.wait("reading", device="door")
    before = len(lively.of("reading", device="climate"))
    world.board.do("chip", "climate", "temperature=60")
    until(lambda: len(lively.of("reading", device="climate")) > before, "a jump beyond the dead band")
    assert presence(world)["activeTasks"] == 2
    assert {event["device"] for event in calm.of("reading")} == {"climate"}
    at = [event["at"] for event in calm.of("reading")]
    assert min(b - a for a, b in pairwise(at[1:])) >= 800
    for session in (slow, fast):
        session.cancel()
        session.wait_for_terminal(LIMIT_S)
    until(lambda: presence(world)["activeTasks"] == 0, "no task in the presence state")


def test_without_a_limit_of_tasks(new_world: Callable[..., World], alice: Any) -> None:
    """`concurrency = 0`: more than the usual eight at once."""
    world = new_world(concurrency=0)
    world.start()
    sessions = [pipe(alice, {"streams": ["control"]}) for _ in range(10)]
    until(lambda: working(world) == 10, "ten sessions")
    until(lambda: presence(world)["activeTasks"] == 10, "ten tasks in the presence state")
    assert presence(world)["concurrency"] == 0
    for session in sessions:
        session.cancel()
    for session in sessions:
        assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"


def test_two_devices_under_one_name(twins: Callable[..., list[World]], alice: Any) -> None:
    """`instances = 2`: each task goes to one of them, and the other one serves when one has left."""
    a, b = twins(config=several('"request", "pipe"', 2), concurrency=1)
    assert a.daemon.ask("status")["instance"] != b.daemon.ask("status")["instance"]
    sessions: list[Any] = []
    streams: list[Any] = []
    for busy in (1, 2):
        # The network chooses by what the devices last said of themselves: each has its say before the next.
        sessions.append(pipe(alice, {"streams": ["control"]}))
        streams.append(stream(sessions[-1], "control"))
        until(
            lambda busy=busy: sum(presence(world)["activeTasks"] for world in (a, b)) == busy,
            f"{busy} in the presence states",
        )
    assert (working(a), working(b)) == (1, 1)
    for one in streams:
        one.wait("reading", device="climate")
        seqs = [event["seq"] for event in list(one.events)]
        assert seqs == list(range(1, len(seqs) + 1))
    for session in sessions:
        session.cancel()
        session.wait_for_terminal(LIMIT_S)
    a.daemon.stop()
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"


def test_a_broadcast_is_answered_by_who_has_room(twins: Callable[..., list[World]], alice: Any) -> None:
    """`instances = 0`: every device takes a task that it has room for; the full one says nothing."""
    a, b = twins(config=slow_bus(several('"request"', 0)), concurrency=1)
    session = question(alice, {"op": "read", "devices": ["climate"]})
    channel = a.net.net.task(session.task_id).channel

    def said(kind: str, where: str) -> list[Any]:
        return [r.body for r in a.net.net.publishes(where) if r.body["type"] == kind]

    until(lambda: len(said("artifact", channel)) == 2, "an answer of each")
    a.board.do("fault", "i2c1", "stuck")
    # The first is stuck in this one, the second answers it.
    assert question(alice, {"op": "read", "devices": ["climate"]}).terminal["state"] == "completed"
    session = question(alice, {"op": "read", "devices": ["door"]})
    a.board.do("heal")
    assert session.terminal["state"] == "completed"
    channel = a.net.net.task(session.task_id).channel
    assert len(said("artifact", channel)) == 1
    assert all("error" not in body for body in said("terminal", channel))
    assert any(e["event"] == "task_refused" and not e["targeted"] for e in a.daemon.events())
    assert b.daemon.logged("joined")
