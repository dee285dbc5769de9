"""Fixtures for whoever watches the daemon from the network's side: the stand-in, and official callers."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.official_client import official_sockets

from device_agent.testing.network import NetworkThread, Settings
from device_agent.testing.network.sdk import sdk_environment


@pytest.fixture(scope="module")
def net() -> Iterator[NetworkThread]:
    """One network for the tests of a module."""
    settings = Settings(safety_grace_s=5.0, hold_s=20.0, auto_register=True)
    with (
        official_sockets(),
        NetworkThread(settings=settings) as host,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in sdk_environment(host.net.cdm_url, host.net.pubnub_origin, "bk_alice").items():
            patch.setenv(name, value)
        yield host


@pytest.fixture
def caller(net: NetworkThread) -> Iterator[Callable[..., Any]]:
    """Makes official callers: `caller("alice")`."""
    from blocks_network import TaskClient

    def make(name: str = "alice") -> Any:
        clients.append(TaskClient.create(billing_mode="free", api_key=f"bk_{name}"))
        return clients[-1]

    clients: list[Any] = []
    yield make
    for client in clients:
        client.destroy()
    gc.collect()


@pytest.fixture
def alice(caller: Callable[..., Any]) -> Any:
    return caller("alice")
