"""The stand-in in a thread, worlds, and official callers."""

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from world import World

from device_agent.testing.network import NetworkThread, Settings
from device_agent.testing.network.sdk import sdk_environment


@pytest.fixture(scope="session", autouse=True)
def _collected() -> Iterator[None]:
    """The official client leaves sockets to the garbage collector; here its warnings are not errors."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module")
def net() -> Iterator[NetworkThread]:
    """One network for the tests of a module."""
    settings = Settings(safety_grace_s=5.0, hold_s=20.0, auto_register=True)
    with NetworkThread(settings=settings) as host, pytest.MonkeyPatch.context() as patch:
        for name, value in sdk_environment(host.net.cdm_url, host.net.pubnub_origin, "bk_alice").items():
            patch.setenv(name, value)
        yield host


@pytest.fixture
def new_world(net: NetworkThread, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a world with other options than usual."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(tmp_path, net, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture(scope="module")
def world(net: NetworkThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running daemon that the tests of a module share."""
    with World(tmp_path_factory.mktemp("world"), net) as made:
        made.start()
        yield made


@pytest.fixture
def caller(net: NetworkThread) -> Iterator[Callable[..., Any]]:
    """Makes official callers: `caller("alice")`."""
    from blocks_network import TaskClient

    clients: list[Any] = []

    def make(name: str = "alice") -> Any:
        clients.append(TaskClient.create(billing_mode="free", api_key=f"bk_{name}"))
        return clients[-1]

    yield make
    for client in clients:
        client.destroy()
    # What the official client left open is collected here, where its warnings are not taken for errors.
    gc.collect()


@pytest.fixture
def alice(caller: Callable[..., Any]) -> Any:
    return caller("alice")
