"""An HTTP server that answers from a script, and the daemon's connections to it."""

from collections.abc import AsyncIterator

import pytest

from device_agent.network.blocks.http import Http
from device_agent.network.connectivity import Connectivity
from support.fake_backend import FakeBackend


@pytest.fixture
async def backend() -> AsyncIterator[FakeBackend]:
    async with FakeBackend() as made:
        yield made


@pytest.fixture
async def http(connectivity: Connectivity) -> AsyncIterator[Http]:
    made = Http(connectivity)
    yield made
    await made.close()
