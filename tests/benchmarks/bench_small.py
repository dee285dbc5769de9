"""A small board: a tenth of a core and 512 MB (a control group), ten sensors, two sessions, page, backlog.

    python tests/benchmarks/bench_small.py [--json FILE] [--share 0.1] [--smoke]

The daemon and its guard are in the group, the board, the network and the caller are not. 100 000 events wait
on disk and drain while two sessions listen, a browser asks the page once a second, and an actuator is driven.
Judged: sensors that were not read for more than two periods, takeovers by the guard, the time from a command
to the pin, how long the event loop kept the control socket waiting. Needs root, for the control group.
"""

import os
import socket
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench_backlog import fill
from bench_measure import cpu_s, machine, median, memory_mb, note, parser, percentile, save, table
from bench_rig import Ours, Rig, moved_s, until

from support.callers import Listening
from support.waiting import LIMIT_S

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 10_000
MEMORY_BYTES = 512_000_000
BACKLOG, WORK_S = 100_000, 60.0
START_LIMIT_S = 120.0
LINE = 27

SENSOR = """
[devices.s{n}]
driver = "i2c-registers"
bus = "i2c1"
address = {address}
every_s = 1
points = {{ value = {{ register = 0, width_bits = 16 }} }}
"""
TOML = """
[outbox]
max_bytes = "1 GB"
[page]
listen = "{page}"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.lamp]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
[streams.readings]
direction = "outbound"
affinity = "shared"
devices = [{names}]
[streams.control]
direction = "bidirectional"
devices = ["lamp"]
[access]
drive = "anyone"
"""


class Group:
    """A control group of version 2 or 1, with a share of one core."""

    def __init__(self, share: float) -> None:
        name, quota_us = f"bench-{os.getpid()}", int(share * PERIOD_US)
        if (GROUPS / "cgroup.controllers").exists():
            (GROUPS / "cgroup.subtree_control").write_text("+cpu +memory")
            self.folders = [GROUPS / name]
            limits = [{"cpu.max": f"{quota_us} {PERIOD_US}", "memory.max": f"{MEMORY_BYTES}"}]
            self._usage = self.folders[0] / "cpu.stat"
        else:
            self.folders = [GROUPS / part / name for part in ("cpu", "memory", "cpuacct")]
            cpu = {"cpu.cfs_period_us": f"{PERIOD_US}", "cpu.cfs_quota_us": f"{quota_us}"}
            limits = [cpu, {"memory.limit_in_bytes": f"{MEMORY_BYTES}"}, {}]
            self._usage = self.folders[2] / "cpuacct.usage"
        for folder, files in zip(self.folders, limits, strict=True):
            folder.mkdir()
            for file, value in files.items():
                (folder / file).write_text(value)

    def cpu_ms(self) -> float:
        """CPU time of all that are in the group so far."""
        text = self._usage.read_text()
        return int(text) / 1e6 if text[0].isdigit() else int(text.split()[1]) / 1e3

    @contextmanager
    def joined(self) -> Iterator[None]:
        """What is started inside is in the group."""
        self._enter(self.folders)
        try:
            yield
        finally:
            self._enter([folder.parent for folder in self.folders])

    @staticmethod
    def _enter(folders: list[Path]) -> None:
        for folder in folders:
            (folder / "cgroup.procs").write_text(f"{os.getpid()}")

    def close(self) -> None:
        for folder in self.folders:
            until(lambda folder=folder: not (folder / "cgroup.procs").read_text(), "the end of the group")
            folder.rmdir()


class Samples:
    """When each sensor was read, as its events say; only what is not late."""

    def __init__(self) -> None:
        self.at_ms: dict[str, list[int]] = defaultdict(list)
        self.events = 0

    def __call__(self, event: dict[str, Any], at_s: float) -> None:
        if event.get("kind") == "reading":
            self.events += 1
            self.at_ms[event["device"]].append(event["at"])

    def longest_s(self, since_ms: int) -> float:
        """The longest time between two samples of one sensor, late events included."""
        times = [
            sorted({at for at in one if at >= since_ms})
            for name, one in self.at_ms.items()
            if name != "meter"
        ]
        return max((b - a for one in times for a, b in pairwise(one)), default=0) / 1000


class Small(Ours):
    """The daemon, from its second start on in the group."""

    def __init__(self, rig: Rig, group: Group) -> None:
        self.group: Group | None = None
        self._later = group
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.page = f"127.0.0.1:{probe.getsockname()[1]}"
        names = ", ".join(f'"s{n}"' for n in range(10))
        config = TOML.format(page=self.page, names=names)
        config += "".join(SENSOR.format(n=n, address=0x20 + n) for n in range(10))
        super().__init__(
            rig, config.replace("{", "{{").replace("}", "}}"), agent="ours_small", simulated=True
        )

    def start(self) -> None:
        if self.group is None:
            super().start()
            self.group = self._later
        else:
            with self.group.joined():
                super().start()

    def ready(self) -> None:
        until(lambda: self.daemon.logged("joined"), "joined", START_LIMIT_S)
        until(self._online, "devices online", START_LIMIT_S)

    def stop(self) -> None:
        """In order: the guard of one that was killed goes on."""
        self.process.terminate()
        try:
            self.process.wait(START_LIMIT_S)
        finally:
            super().stop()


class Visitor(threading.Thread):
    """A browser with the page open: it listens to updates, and looks again once a second."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self.looks = 0
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        updates = urllib.request.urlopen(f"http://{self._address}/api/updates", timeout=LIMIT_S)
        with updates:
            while not self.ended.wait(1.0):
                with urllib.request.urlopen(
                    f"http://{self._address}/api/describe", timeout=LIMIT_S
                ) as answer:
                    self.looks += bool(answer.read())


def commands(ours: Small, heard: Listening, until_s: float) -> dict[str, list[float]]:
    """Milliseconds from the caller's write to `pin` and to `ack`, and to answers at the control `socket`.

    `cpu` is what the group had of the processor from the write to the ack: what no other load makes longer.
    """
    assert ours.board is not None
    assert ours.group is not None
    took: dict[str, list[float]] = {"pin": [], "ack": [], "socket": [], "cpu": []}
    number = 0
    while time.monotonic() < until_s:
        number += 1
        on, seen, cpu_before_ms = number % 2 == 1, len(ours.board.record()), ours.group.cpu_ms()
        begun_s = time.monotonic()
        heard.stream.write({"kind": "set", "id": f"c{number}", "device": "lamp", "values": {"on": on}})
        heard.wait("ack", id=f"c{number}")
        took["ack"].append((time.monotonic() - begun_s) * 1000)
        took["cpu"].append(ours.group.cpu_ms() - cpu_before_ms)
        took["pin"].append((moved_s(ours.board, seen, LINE) - begun_s) * 1000)
        for _ in range(5):
            begun_s = time.monotonic()
            ours.daemon.ask("nothing")
            took["socket"].append((time.monotonic() - begun_s) * 1000)
            time.sleep(0.2)
    return took


def shares(took: dict[str, list[float]]) -> dict[str, float]:
    """Of the first command, which comes while sessions and page are still opened, and of all others; of the
    slowest of these, how much of the processor the group had until its ack."""
    first = {f"first_command_to_{what}_ms": took[what].pop(0) for what in ("pin", "ack")}
    took["cpu"].pop(0)
    worst = max(range(len(took["pin"])), key=took["pin"].__getitem__)
    return {
        **first,
        "command_to_pin_p50_ms": median(took["pin"]),
        "command_to_pin_p90_ms": percentile(took["pin"], 0.9),
        "command_to_pin_max_ms": took["pin"][worst],
        "cpu_until_that_ack_ms": took["cpu"][worst],
        "command_to_ack_p50_ms": median(took["ack"]),
        "cpu_to_ack_p50_ms": median(took["cpu"]),
        "cpu_to_ack_max_ms": max(took["cpu"]),
        "control_socket_p50_ms": median(took["socket"]),
        "control_socket_p99_ms": percentile(took["socket"], 0.99),
    }


def measure(rig: Rig, group: Group, backlog: int, work_s: float) -> dict[str, Any]:
    ours = Small(rig, group)
    try:
        return judged(rig, ours, backlog, work_s)
    finally:
        ours.stop()


def judged(rig: Rig, ours: Small, backlog: int, work_s: float) -> dict[str, Any]:
    rig.joined(ours)
    ours.ready()
    samples = Samples()
    reading = rig.open(ours, {"streams": ["readings"]}, samples)
    session = rig.client.send_message(agent_name=ours.agent, task_kind="pipe", duration=30)
    heard = Listening(session.wait_for_stream("control", timeout=LIMIT_S))
    until(lambda: len(samples.at_ms) == 10, "all sensors")
    ours.process.kill()
    ours.process.wait()
    fill(ours, backlog)
    note(f"{backlog} events wait; a start in the group")
    ours.start()
    ours.ready()
    ready_s, began_ms = time.monotonic() - ours.started_s, time.time() * 1000
    note(f"all devices online after {ready_s:.1f} s")
    visitor, events, cpu_before_s = Visitor(ours.page), samples.events, cpu_s(ours.pid)
    took = commands(ours, heard, time.monotonic() + work_s)
    status = ours.daemon.ask("status")
    result = {
        "share_of_a_core": (cpu_s(ours.pid) - cpu_before_s) / work_s,
        "rss_mb": memory_mb(ours.pid)["rss_mb"],
        "start_to_online_s": ready_s,
        "drained": samples.events - events,
        "left": status["outbox"]["events"],
        "loop_lag_max_ms": status["loop_lag_s"] * 1000,
        "longest_between_samples_s": samples.longest_s(began_ms),
        "takeovers": sum(entry["event"] == "guard_takes_over" for entry in ours.daemon.events()),
        "page_looks": visitor.looks,
        **shares(took),
    }
    visitor.ended.set()
    reading.close()
    session.cancel()
    return result


def main(words: list[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--share", type=float, default=0.1, help="of one core")
    given = options.parse_args(words)
    # The caller writes at once; by itself it would wait for a quarter of a second.
    os.environ["STREAM_MAX_LATENCY_MS"] = "1"
    began = machine()
    try:
        group = Group(1.0 if given.smoke else given.share)
    except OSError as error:
        note(f"left out: no control group can be made here ({error}); it takes root")
        save(given.json, began, {"small": [{"left_out": str(error)}]})
        return 0
    try:
        with Rig() as rig:
            result = measure(rig, group, *((2_000, 3.0) if given.smoke else (BACKLOG, WORK_S)))
    finally:
        group.close()
    table(f"A board with {given.share:g} of a core and 512 MB", ["what", "measured"], result.items())
    save(given.json, began, {"small": [result]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
