"""The stand-in of the Sessions API, and a client on it."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from device_agent.network.sessions_api import SessionsApi
from device_agent.testing.network import DevNetwork


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork() as made:
        yield made


@pytest.fixture
async def pool() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
def api(net: DevNetwork, pool: aiohttp.ClientSession) -> SessionsApi:
    return SessionsApi(net.api_base_url, "bk_farm", lambda: pool)
