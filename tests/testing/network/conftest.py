"""The stand-in in a thread, and the official SDK against it on both sides."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread, Settings
from device_agent.testing.network.sdk import sdk_environment
from support.callers import network
from support.official_client import official_sockets
from support.official_provider import LIMIT_S, Provider, StartProvider, make_card


@pytest.fixture(scope="module")
def net() -> Iterator[NetworkThread]:
    """One network for the tests of a module; tasks start when their caller listens."""
    with network(Settings(safety_grace_s=1.0, hold_s=20.0, dispatch_when_watched_s=5.0)) as host:
        yield host


@pytest.fixture(scope="module")
def start_provider(net: NetworkThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProvider]:
    """Starts official providers and waits until they have joined."""
    started: list[Provider] = []

    def start(agent: str, concurrency: int = 8, **runtime: Any) -> Provider:
        provider = Provider(net, tmp_path_factory.mktemp(agent), make_card(agent, concurrency, **runtime))
        started.append(provider)
        net.run(net.net.wait_joined(agent, timeout_s=LIMIT_S))
        return provider

    yield start
    for provider in started:
        provider.stop()


@pytest.fixture(scope="module")
def worker(start_provider: StartProvider) -> Provider:
    """An official provider with room for eight tasks."""
    return start_provider("worker")


@pytest.fixture
def client(net: NetworkThread) -> Iterator[Any]:
    """An official caller, alice."""
    from blocks_network import TaskClient

    with TaskClient.create(billing_mode="free", api_key="bk_alice") as found:
        yield found
    gc.collect()
