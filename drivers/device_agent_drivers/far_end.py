"""A far end that may be reset by opening its port, as most Arduinos are: what comes until it listens."""

from collections.abc import Iterator
from time import monotonic

from device_agent.driver import SerialBus

CHUNK_BYTES = 4096
# A microcontroller is through its boot loader, and has said so, within this after the port was opened.
READY_LIMIT_S = 8.0
# What it was saying when the port was opened, and it was reset, comes no later.
RESET_S = 2.0


def arrivals(bus: SerialBus, limit_s: float) -> Iterator[tuple[float, bytes]]:
    """What arrives in this time from now on, with the seconds until then; b"" at its end."""
    began_s = monotonic()
    while (left_s := began_s + limit_s - monotonic()) > 0:
        chunk = bus.read(1, left_s) + bus.read(CHUNK_BYTES, 0.0)
        yield monotonic() - began_s, chunk
