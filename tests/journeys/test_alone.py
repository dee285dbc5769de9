"""Journeys that need a daemon, and so an agent name, of their own."""

from collections.abc import Callable
from typing import Any

from support.callers import pipe, stream
from support.deployment import AGENT, World, send, start_of
from support.waiting import LIMIT_S, until


def test_at_capacity_is_refused_and_the_rest_goes_on(new_world: Callable[..., World], alice: Any) -> None:
    world = new_world(concurrency=1)
    world.start()
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    control.wait("control", about="session")
    start = start_of(world, session)
    send(world, {**start, "taskId": "one-too-many"})
    channel = f"u.{start.get('orgId') or start['ownerId']}.one-too-many"
    until(lambda: world.net.net.publishes(channel, refused=True), "a terminal")
    assert world.net.net.publishes(channel, refused=True)[0].body["error"] == "agent_at_capacity"
    assert control.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_switch_of_the_environment(new_world: Callable[..., World], alice: Any) -> None:
    world = new_world()
    world.start()
    world.net.call(world.net.net.switch_environment, AGENT, "network")
    world.daemon.wait_logged("environment_switched")
    until(lambda: world.net.net.presence("network"), "presence on the other key set")
