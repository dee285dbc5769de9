"""Asks the network for its time: proves the link, and learns the clock, while nothing else is sent."""

import asyncio
import random
from collections.abc import Callable

import structlog

from device_agent.errors import NetworkError
from device_agent.network.blocks.clients import Clients
from device_agent.network.connectivity import Connectivity

log = structlog.get_logger("network")

IDLE_S = 0.5
DOWN_S = 3.0
SHORTEST_LIMIT_S = 0.2
SHORTEST_WAIT_S = 0.1


def probe_interval_s(connectivity: Connectivity, proof_s: float | None) -> float | None:
    """How old the last answer may get; None while nothing has to be asked.

    `proof_s`: how often the link has to be proven because actuators depend on it. Without that, the network
    is asked while it does not answer (requests from before the loss wait to learn that it is back), until
    its time is known, and before our own clock has drifted.
    """
    if proof_s is not None:
        return proof_s / 3
    return None if connectivity.up and connectivity.time_is_fresh else DOWN_S


async def probe(
    connectivity: Connectivity, clients: Clients, need_proof_s: Callable[[], float | None]
) -> None:
    """Until cancelled."""
    while True:
        interval_s = probe_interval_s(connectivity, need_proof_s())
        if interval_s is None or not clients.ready:
            await asyncio.sleep(IDLE_S)
            continue
        silent = connectivity.silent_s() > interval_s
        if silent or not connectivity.up or not connectivity.time_is_fresh:
            try:
                await clients.control.ping(max(SHORTEST_LIMIT_S, interval_s))
            except NetworkError as error:
                log.debug("probe_failed", error=str(error))
        await asyncio.sleep(random.uniform(0.5, 1.0) * max(SHORTEST_WAIT_S, interval_s / 2))
