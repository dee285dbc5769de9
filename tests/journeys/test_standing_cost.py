"""What a daemon costs that idles, and one that is told much at once, in counts that no other load raises.

`make bench` has seconds and bytes of memory; modules are counted in `test_modules`."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, stream
from support.deployment import World
from support.waiting import until

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
# Instructions a second of an idle daemon's own code, its interpreter's with it: twice what it takes.
INSTRUCTIONS_MAX_HZ = 60_000_000
# Lines that a serial port says at once, and what they become.
LINES = 400
EVENTS_A_MESSAGE = 20
# On the wire: a part of a large message is Base64.
EVENT_BYTES_MAX = 240
# What another device of the same stream says meanwhile, each in a message of its own.
CLIMATE_HZ = 5


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


def instructions(pid: int, seconds: float) -> int | None:
    """How many a process executes in this time; None where they cannot be counted."""
    if shutil.which("perf") is None:
        return None
    words = ["perf", "stat", "-x;", "-e", "instructions:u", "-p", str(pid), "sleep", str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    counted = done.stderr.strip().rpartition("\n")[2].partition(";")[0]
    return int(counted) if counted.isdigit() else None


@pytest.mark.slow
def test_how_many_instructions_idling_takes(new_world: Callable[..., World]) -> None:
    if instructions(os.getpid(), 0) is None:
        pytest.skip("this machine counts no instructions: it takes perf, and a processor that lets it")
    pid = new_world().start().process.pid
    time.sleep(1.0)  # what a start leaves to do
    counted = instructions(pid, SECONDS)
    assert counted is not None
    assert counted / SECONDS <= INSTRUCTIONS_MAX_HZ


def sent(net: NetworkThread) -> list[str]:
    """The messages of the agent's streams so far, each part of a large one for itself."""
    return [record.raw for record in net.net.publishes() if record.channel.startswith("stream.")]


@pytest.mark.slow
def test_what_is_said_at_once_goes_in_few_messages(
    new_world: Callable[..., World], net: NetworkThread, alice: Any
) -> None:
    world = new_world()
    world.start()
    assert world.board is not None
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    control.wait("reading", device="climate")
    before, began_s = len(sent(net)), time.monotonic()
    world.board.do("feed", "meter", "\\n" + "W 12.5\\n" * LINES)
    said = {"weight": 12.5, "setpoint": 0}
    until(lambda: len(control.of("reading", device="scale", values=said)) == LINES, "all that was said")
    messages = sent(net)[before:]
    others = CLIMATE_HZ * (time.monotonic() - began_s) + 1
    assert len(messages) <= LINES / EVENTS_A_MESSAGE + others
    assert sum(map(len, messages)) <= EVENT_BYTES_MAX * (LINES + others)
    session.cancel()
