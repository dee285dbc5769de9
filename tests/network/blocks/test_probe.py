"""When the network is asked for its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from device_agent.network.blocks import probe as module
from device_agent.network.blocks.probe import is_asked, probe
from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock
from support.fake_pubsub import UNREACHABLE, FakePubSub


@pytest.fixture
def idle(connectivity: Connectivity, clock: SteppedClock) -> Connectivity:
    """Up, with a known time."""
    connectivity.time_sample(clock.now_ms(), clock.monotonic_s(), clock.monotonic_s())
    return connectivity


def test_an_idle_agent_asks_for_nothing(idle: Connectivity):
    assert not is_asked(idle)


def test_it_asks_while_the_network_does_not_answer(idle: Connectivity):
    idle.lost("no answer")
    assert is_asked(idle)


def test_it_asks_until_the_time_is_known_and_before_the_clock_has_drifted(
    connectivity: Connectivity, clock: SteppedClock
):
    assert is_asked(connectivity)
    connectivity.time_sample(clock.now_ms(), clock.monotonic_s(), clock.monotonic_s())
    assert not is_asked(connectivity)
    clock.step(601)
    assert is_asked(connectivity)


@asynccontextmanager
async def probing(connectivity: Connectivity, client: FakePubSub) -> AsyncIterator[SimpleNamespace]:
    clients = SimpleNamespace(ready=True, control=client)
    task = asyncio.create_task(probe(connectivity, clients))  # type: ignore[arg-type]
    try:
        yield clients
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), "it ended by itself"


@pytest.fixture(autouse=True)
def short_waits_between_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.001)
    monkeypatch.setattr(module, "DOWN_S", 0.004)


async def test_it_asks_again_after_a_failure(connectivity: Connectivity):
    client = FakePubSub()
    client.answers.extend([UNREACHABLE] * 3)
    async with probing(connectivity, client):
        await client.until(lambda: client.pings == 5)


async def test_nothing_is_asked_before_there_is_a_client(connectivity: Connectivity):
    client = FakePubSub()
    async with probing(connectivity, client) as clients:
        clients.ready = False
        pings = client.pings
        await asyncio.sleep(0.02)
        assert client.pings == pings
        clients.ready = True
        await client.until(lambda: client.pings > pings)
