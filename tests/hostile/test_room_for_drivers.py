"""Whoever may only read opens sessions for a month, as many as there are: drivers and stops come in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.testing.network import NetworkThread
from support.callers import pipe, question, result, stream
from support.deployment import CONFIG, World
from support.waiting import LIMIT_S

PLACES = 8  # `agent.concurrency`


def test_a_reader_with_many_sessions_keeps_no_driver_out(world: World, alice: Any, mallory: Any) -> None:
    for _ in range(PLACES // 2):
        reader = pipe(mallory, {"streams": ["open"]}, 43_200)
        stream(reader, "open").wait("control", about="session")
    refused = pipe(mallory, {"streams": ["open"]}, 43_200).wait_for_terminal(LIMIT_S)
    assert refused["state"] == "failed"
    assert refused["error"] == "agent_at_capacity"

    control = stream(pipe(alice, {"streams": ["control"]}), "control")
    assert control.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    assert result(question(alice, {"op": "stop"}))["state"] == "done"


def test_drivers_who_take_every_place_keep_no_stop_out(
    world: World, alice: Any, caller: Callable[..., Any]
) -> None:
    """Nor does the network, which sends nothing to an agent that it takes to be full."""
    bob = caller("bob")
    for _ in range(PLACES):
        session = pipe(bob, {"streams": ["control"]}, 43_200)
        stream(session, "control").wait("control", about="session")
    refused = pipe(alice, {"streams": ["control"]}).wait_for_terminal(LIMIT_S)
    assert (refused["state"], refused["error"]) == ("failed", "agent_at_capacity")
    assert result(question(alice, {"op": "stop"}))["state"] == "done"
    assert world.daemon.ask("status")["emergency_stop"]["latched"] is True


def test_sessions_alone_leave_room_for_a_stop(
    net: NetworkThread, tmp_path: Path, alice: Any, mallory: Any, caller: Callable[..., Any]
) -> None:
    """Without requests a stop comes by a session: readers hold all places, then so do those who may drive."""
    config = CONFIG.replace("concurrency =", 'task_kinds = ["pipe"]\nconcurrency =')
    with World(tmp_path, net, config=config, concurrency=2) as world:
        world.start()
        for _ in range(2):
            stream(pipe(mallory, {"streams": ["telemetry"]}, 43_200), "telemetry").wait("reading")
        bob = caller("bob")
        stream(pipe(bob, {"streams": ["control"]}, 43_200), "control").wait("control", about="session")
        for client in (bob, mallory):
            refused = pipe(client, {"streams": ["control"]}).wait_for_terminal(LIMIT_S)
            assert (refused["state"], refused["error"]) == ("failed", "agent_at_capacity")
        hers = stream(pipe(alice, {"streams": ["control"]}), "control")
        assert hers.command(kind="stop", id="1")["state"] == "done"
        assert world.daemon.ask("status")["emergency_stop"]["latched"] is True
