"""Whoever may only read opens sessions for a month, as many as there are: drivers and stops come in."""

from collections.abc import Callable
from typing import Any

from support.callers import pipe, question, result, stream
from support.deployment import World
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
