"""Fixtures for whoever watches the daemon from the network's side: the stand-in, and official callers."""

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
