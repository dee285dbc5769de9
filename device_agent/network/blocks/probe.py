"""Asks the network for its time: proves the link, and learns the clock, while nothing else is sent."""

import asyncio
import random

import structlog

from device_agent.errors import NetworkError
from device_agent.network.blocks.clients import Clients
from device_agent.network.connectivity import Connectivity

log = structlog.get_logger("network")

IDLE_S = 0.5
DOWN_S = 3.0


def is_asked(connectivity: Connectivity) -> bool:
    """While the network does not answer (requests from before the loss wait to learn that it is back), until
    its time is known, and before our own clock has drifted."""
    return not connectivity.up or not connectivity.time_is_fresh


async def probe(connectivity: Connectivity, clients: Clients) -> None:
    """Until cancelled."""
    while True:
        if not clients.ready or not is_asked(connectivity):
            await asyncio.sleep(IDLE_S)
            continue
        try:
            await clients.control.ping(DOWN_S)
        except NetworkError as error:
            log.debug("probe_failed", error=str(error))
        await asyncio.sleep(random.uniform(0.5, 1.0) * DOWN_S / 2)
