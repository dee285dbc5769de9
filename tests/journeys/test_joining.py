"""Joining under trouble: nothing on the network ends the process; only a person's decision slows it down."""

from collections.abc import Callable
from typing import Any

import pytest
from world import AGENT, World, question, result, until

pytestmark = [
    pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def fault(world: World, kind: str, path: str, **options: Any) -> None:
    world.net.call(lambda: world.net.net.add_fault(kind, path, **options))


def test_the_config_document_is_kept_for_a_start_without_it(
    new_world: Callable[..., World], alice: Any
) -> None:
    world = new_world()
    world.start()
    assert world.daemon.stop() == 0
    fault(world, "status", "/config.json", status=503)
    daemon = world.start()
    assert any(entry["event"] == "config_document_cached" for entry in daemon.events())
    world.net.call(world.net.net.heal)
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    daemon.stop()


def test_errors_of_every_step_of_joining_are_outlived(new_world: Callable[..., World], alice: Any) -> None:
    world = new_world()
    fault(world, "status", "/config.json", status=500, count=2)
    fault(world, "reset", "/api/v1/registry/*", count=2)
    fault(world, "status", "*/auth/agent/connect", status=503, count=2)
    fault(world, "status", "/v2/subscribe/*", status=502, body="<html>", count=2)
    world.start()
    world.net.call(world.net.net.heal)
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    world.daemon.stop()


def test_forced_offline_neither_ends_the_process_nor_makes_it_knock(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.start()
    world.daemon.stop()
    net = world.net.net
    world.net.call(net.force_offline, AGENT)
    daemon = world.start(joined=False)
    daemon.wait_logged("not_allowed")
    until(lambda: daemon.device("climate")["state"] == "online", "sampling goes on")
    assert "connect" in daemon.ask("status")["link"]["trouble"]
    knocks = [r for r in net.requests() if r.path.endswith("/auth/agent/connect") and r.status == 403]
    assert len(knocks) == 1
    assert daemon.stop() == 0
    world.net.call(net.allow_online, AGENT)
