"""Deployments with a stream that all callers share; Alice may drive, Mallory may only read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread, Settings
from device_agent.testing.network.channels import PublishedMessage
from support.callers import alice, caller, network
from support.deployment import AGENT, World, new_world
from support.guarded_daemon import new_scene, scene
from support.mosquitto import broker
from support.outages import outage

OPEN = """
[streams.open]
direction = "bidirectional"
affinity = "shared"
devices = ["valve"]
"""


@pytest.fixture
def net() -> Iterator[NetworkThread]:
    """A network of its own for each test: what it still caches of a shared stream reaches the next one."""
    with network(Settings(safety_grace_s=5.0, hold_s=20.0, auto_register=True)) as host:
        yield host


@pytest.fixture
def world(net: NetworkThread, tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, net, more=OPEN) as made:
        made.start()
        yield made


@pytest.fixture
def mallory(caller: Callable[..., Any]) -> Any:
    return caller("mallory")


@pytest.fixture
def publish(world: World) -> Callable[..., None]:
    """Puts a text on a stream's channel, as sent by whom it says: `publish("open", text, "user_alice")`."""

    def send(stream_id: str, raw: str, sender: str) -> None:
        def now() -> None:
            wire = world.net.net.wire
            meta_raw = f'{{"sender":"{sender}-stream-0001"}}'
            meta = {"sender": f"{sender}-stream-0001"}
            channel, timetoken = f"stream.{AGENT}.{stream_id}", wire.clock.timetoken()
            wire.hubs["playground"].publish(
                PublishedMessage(channel, raw, f"{sender}-stream-0001", timetoken, meta_raw, meta)
            )

        world.net.call(now)

    return send
