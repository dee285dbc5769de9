"""A week of sessions in little time: nothing grows, nothing is lost.

Callers come and go, the link is cut, sensors fail, the configuration is read again; one session lasts through
all of it. `DEVICE_AGENT_SOAK_MIN` is how long the soak goes on, in minutes.
"""

import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import Listening, pipe, stream
from support.deployment import World
from support.outages import SEED, accept, accounted, fault, outbox_grows, refuse
from support.waiting import LIMIT_S, until

SOAK_S = 60 * float(os.environ.get("DEVICE_AGENT_SOAK_MIN", "25"))
# What a process may grow by between the second quarter of the time and the last: caches fill, nothing else.
GROWTH_MB = 2.0
LONG_MIN = 240


@pytest.fixture
def weekly(net: NetworkThread, tmp_path: Path) -> Any:
    """A world whose daemon has a link of its own; callers stay on the good one."""
    name = f"device-{tmp_path.name}"
    net.run(net.net.open_link(name))
    with World(tmp_path, net, link=name) as world:
        world.link = name  # type: ignore[attr-defined]
        world.start()
        yield world
        net.call(net.net.heal)
        accept(world)
        world.daemon.stop()


class Week:
    """Rounds of a caller's visit, each with a mishap."""

    def __init__(self, world: Any, client: Any, rng: random.Random) -> None:
        self._world = world
        self._client = client
        self._rng = rng
        self.samples: list[tuple[float, int, int]] = []
        self.mishaps: dict[str, int] = {}
        self.events = 0

    def open(self, every_s: float, minutes: int) -> tuple[Any, Listening]:
        session = pipe(self._client, {"streams": ["control"], "every_s": every_s}, duration=minutes)
        heard = stream(session, "control")
        heard.wait("reading", device="climate", limit_s=60)
        return session, heard

    def close(self, session: Any, heard: Listening) -> None:
        session.terminate()
        session.wait_for_terminal(LIMIT_S * 3)
        accounted(heard)
        assert not heard.of("gap"), heard.of("gap")
        self.events += len(heard.events)

    def round(self, lasting: Listening) -> None:
        session, heard = self.open(0.1, 30)
        mishap = self._rng.choice(["refuse", "silent", "sensor", "reload", "errors", "tokens", "none"])
        self.mishaps[mishap] = self.mishaps.get(mishap, 0) + 1
        self._happen(mishap)
        for one in (heard, lasting):
            self._goes_on(one)
        self.close(session, heard)
        self._sample()

    def _happen(self, mishap: str) -> None:
        world, rng = self._world, self._rng
        match mishap:
            case "refuse":
                refuse(world)
                outbox_grows(world, rng.randrange(20, 120))
                accept(world)
            case "silent":
                rule = fault(world, "blackhole")
                outbox_grows(world, rng.randrange(20, 80))
                world.net.call(world.net.net.heal, rule.fault_id)
            case "sensor":
                kind = rng.choice(["nack", "unplug"])
                world.board.do("fault", "i2c1", kind, "--for", "1", "--device", "climate")
            case "reload":
                world.daemon.process.send_signal(signal.SIGHUP)
            case "errors":
                fault(world, rng.choice(["status", "reset", "reset_mid_body", "lose_ack"]), count=3)
            case "tokens":
                world.net.call(world.net.net.revoke_tokens, "stream_provider")

    def _goes_on(self, heard: Listening) -> None:
        """Live readings again, and nothing missing."""
        until(lambda: self._world.daemon.ask("status")["outbox"]["events"] < 10, "the backlog is gone", 120)
        last = max(event["seq"] for event in heard.events)
        until(lambda: max(event["seq"] for event in heard.events) > last + 3, "live readings", 120)
        until(lambda: _whole(heard), "all numbers", 60)

    def _sample(self) -> None:
        pid = self._world.daemon.process.pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        threads, descriptors = (len(os.listdir(f"/proc/{pid}/{what}")) for what in ("task", "fd"))
        self.samples.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, threads, descriptors))


def _whole(heard: Listening) -> bool:
    numbers = [event["seq"] for event in list(heard.events)]
    return len(numbers) == max(numbers) - min(numbers) + 1


def quarter(samples: list[Any], number: int) -> list[Any]:
    size = len(samples) // 4
    return samples[number * size : (number + 1) * size]


def test_some_hours(weekly: Any, alice: Any) -> None:
    print(f"seed {SEED} (repeat with DEVICE_AGENT_SEED={SEED})")
    week = Week(weekly, alice, random.Random(SEED))
    session, lasting = week.open(0.5, 30)
    for _ in range(2):
        week.round(lasting)
    week.close(session, lasting)


@pytest.mark.soak
def test_a_week(weekly: Any, alice: Any) -> None:
    print(f"seed {SEED} (repeat with DEVICE_AGENT_SEED={SEED})")
    week = Week(weekly, alice, random.Random(SEED))
    session, lasting = week.open(0.5, LONG_MIN)
    ends_s = time.monotonic() + SOAK_S
    while time.monotonic() < ends_s:
        week.round(lasting)
    week.close(session, lasting)
    early, late = quarter(week.samples, 1), quarter(week.samples, 3)
    (rss_before, threads_before, fds_before), (rss, threads, fds) = (
        [statistics.median(values) for values in zip(*some, strict=True)] for some in (early, late)
    )
    print(f"{len(week.samples)} sessions, {week.events} events accounted for, mishaps {week.mishaps}")
    print(f"RSS {rss_before:.1f} -> {rss:.1f} MB, threads {threads_before} -> {threads}")
    print(f"descriptors {fds_before} -> {fds}")
    assert rss - rss_before < GROWTH_MB
    assert threads <= threads_before
    assert fds <= fds_before + 1
