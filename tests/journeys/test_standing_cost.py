"""What a daemon that idles costs, in counts that no other load on the machine raises.

`make bench` has seconds and bytes of memory; modules are counted in `test_modules`."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.testing.network import NetworkThread
from support.deployment import World

SECONDS = 4.0
# One for each of four buses, the store, the log; one that looks up names.
THREADS_MAX = 10
DESCRIPTORS_MAX = 40
# Of the event loop: five readings a second (each waits for its bus), five looks at links and buses, and beats
# to the guard.
WAKES_MAX_HZ = 60
# Presence, the long-poll, and what proves that the link still works.
REQUESTS_MAX_HZ = 1
# What a minute of history takes, should it fall into this time.
BYTES_MAX = 50_000


def wakes(pid: int) -> int:
    """How often the thread of the event loop has waited for something."""
    lines = Path(f"/proc/{pid}/task/{pid}/status").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith("voluntary_ctxt_switches")]
    return int(found.split()[1])


def written_bytes(pid: int) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["write_bytes"])


@pytest.mark.slow
def test_what_idling_costs(new_world: Callable[..., World], net: NetworkThread) -> None:
    pid = new_world().start().process.pid
    assert len(os.listdir(f"/proc/{pid}/task")) <= THREADS_MAX
    assert len(os.listdir(f"/proc/{pid}/fd")) <= DESCRIPTORS_MAX
    time.sleep(1.0)  # what a start leaves to do
    wakes_before, requests_before, bytes_before = wakes(pid), len(net.net.requests()), written_bytes(pid)
    began_s = time.monotonic()
    time.sleep(SECONDS)
    woken, took_s = wakes(pid) - wakes_before, time.monotonic() - began_s
    assert woken / took_s <= WAKES_MAX_HZ
    assert (len(net.net.requests()) - requests_before) / took_s <= REQUESTS_MAX_HZ
    assert written_bytes(pid) - bytes_before <= BYTES_MAX
