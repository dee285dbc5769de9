"""What the runtime costs at rest and at work: memory, threads, descriptors, CPU, start, bytes on disk.

    python tests/benchmarks/bench_footprint.py [--json FILE] [--rounds N] [--smoke] [--alone]

Idle with ten devices on the simulated board (I2C, GPIO, serial, the host) over TLS, then with 1, 8 and 32
pipe sessions of one stream at 2 events a second. CPU and disk at 100 lines a second from a real serial port.
`cold`: from the start of the process to the first reading at a caller who asks when the agent is there.
`resumed`: from the start after SIGTERM to the next reading at a caller who stayed.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench_measure import (
    cpu_s,
    descriptors,
    disk_written_bytes,
    machine,
    median,
    memory_mb,
    note,
    parser,
    save,
    table,
    threads,
)
from bench_rig import LIMIT_S, LINES_TOML, Numbers, Ours, Receiver, Rig, Rival, until

# Sessions tick at this pace; a device of ours at its own configured one.
TICK_S = 0.5
LINES_HZ = 100
SETTLE_S = 3.0
DAY_S = 86_400

TEN_DEVICES_TOML = """
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[buses.meter]
kind = "serial"
port = "/dev/ttyUSB0"
[devices.climate]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 0.5
[devices.outside]
driver = "bme280"
bus = "i2c1"
address = 0x77
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
[devices.window]
driver = "gpio-input"
bus = "pins"
line = 18
[devices.rain]
driver = "gpio-input"
bus = "pins"
line = 19
count = true
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
[devices.fan]
driver = "gpio-output"
bus = "pins"
line = 22
safe = false
[devices.lamp]
driver = "gpio-output"
bus = "pins"
line = 23
safe = false
[devices.scale]
driver = "serial-lines"
bus = "meter"
format = "csv"
columns = ["weight"]
[devices.scale.points]
weight = {{ unit = "g" }}
[devices.board]
driver = "host"
[streams.readings]
direction = "outbound"
devices = ["climate"]
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rounds: int
    sessions: tuple[int, ...]
    settle_s: float
    work_s: float


FULL = Size(3, (1, 8, 32), SETTLE_S, 15.0)
SMOKE = Size(1, (1, 2), 0.5, 1.0)


def footprint(rival: Rival) -> dict[str, float]:
    pid = rival.pid
    return {**memory_mb(pid), "threads": threads(pid), "descriptors": descriptors(pid)}


# -- sessions -----------------------------------------------------------------------------------------------


def with_sessions(rig: Rig, rival: Rival, size: Size) -> list[dict[str, Any]]:
    """Idle, then with more and more sessions, then after they have ended."""
    time.sleep(size.settle_s)
    results = [{"rival": rival.name, "sessions": 0, "cpu_share": _cpu_share(rival, size), **footprint(rival)}]
    opened: list[Receiver] = []
    request = rival.request("ticks", every_s=TICK_S)
    for count in size.sessions:
        while len(opened) < count:
            numbers = Numbers()
            opened.append(rig.open(rival, request, numbers))
            until(lambda one=numbers: one.received, "the first reading of a session")
        time.sleep(size.settle_s)
        share = _cpu_share(rival, size)
        results.append({"rival": rival.name, "sessions": count, "cpu_share": share, **footprint(rival)})
        note(f"{rival.name} with {count} sessions: {results[-1]['rss_mb']:.1f} MB")
    for session in opened:
        session.close()
    time.sleep(size.settle_s)
    results.append({"rival": rival.name, "sessions": "ended", "cpu_share": None, **footprint(rival)})
    return results


def _cpu_share(rival: Rival, size: Size) -> float:
    before_s, begun_s = cpu_s(rival.pid), time.monotonic()
    time.sleep(size.work_s / 3)
    return (cpu_s(rival.pid) - before_s) / (time.monotonic() - begun_s)


def per_session(results: list[dict[str, Any]]) -> dict[str, float]:
    """What each further session costs, between the fewest and the most."""
    few, many = results[1], results[-2]
    more = many["sessions"] - few["sessions"]
    names = ("rss_mb", "own_mb", "threads", "descriptors")
    return {name: (many[name] - few[name]) / more for name in names}


# -- work ---------------------------------------------------------------------------------------------------


def at_work(rig: Rig, rival: Rival, size: Size) -> dict[str, Any]:
    """CPU and disk at 100 lines a second."""
    numbers = Numbers()
    session = rig.open(rival, rival.request("lines"), numbers)
    ended = threading.Event()

    def feed() -> None:
        n, next_s = 0, time.monotonic()
        while not ended.wait(max(0.0, next_s - time.monotonic())):
            rival.source.send([n])
            n, next_s = n + 1, next_s + 1 / LINES_HZ

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    until(lambda: len(numbers.received) > LINES_HZ // 2, "readings")
    time.sleep(size.settle_s)  # what a new session writes down once is not what work costs
    begun_s, count = time.monotonic(), len(numbers.received)
    cpu_before_s, disk_before = cpu_s(rival.pid), disk_written_bytes(rival.pid)
    time.sleep(size.work_s)
    took_s = time.monotonic() - begun_s
    written = disk_written_bytes(rival.pid) - disk_before
    result = {
        "rival": rival.name,
        "events_per_s": (len(numbers.received) - count) / took_s,
        "cpu_share": (cpu_s(rival.pid) - cpu_before_s) / took_s,
        "disk_bytes": written,
        "disk_mb_a_day": written / took_s * DAY_S / 1e6,
    }
    ended.set()
    feeding.join()
    session.close()
    return result


# -- start --------------------------------------------------------------------------------------------------


def cold_start_s(rig: Rig, make: Callable[[], Rival]) -> float:
    """From the process's start to the first reading at a caller who asks as soon as the agent is there."""
    rival = make()
    numbers = Numbers()
    session = rig.open(rival, rival.request("ticks", every_s=0.05), numbers)
    until(lambda: numbers.at_s, "the first reading")
    session.close()
    rival.stop()
    return numbers.at_s[0] - rival.started_s


def _fresh(rig: Rig, like: Rival, turn: int) -> Callable[[], Rival]:
    """Starts a runtime that the network has never seen."""
    if isinstance(like, Ours):
        return lambda: rig.ours(TEN_DEVICES_TOML, agent=f"ours_new_{turn}", simulated=True, devices=False)
    return lambda: rig.official(agent=f"official_new_{turn}")


def resumed_start_s(rig: Rig, rival: Ours) -> float:
    """From the start after SIGTERM to the next reading at a caller who stayed."""
    numbers = Numbers()
    session = rig.open(rival, rival.request("ticks"), numbers)
    until(lambda: numbers.received, "the first reading")
    rival.process.send_signal(signal.SIGTERM)
    rival.process.wait(LIMIT_S)
    time.sleep(0.5)  # what was under way has arrived
    before = len(numbers.at_s)
    rival.start()
    until(lambda: len(numbers.at_s) > before, "a reading after the start")
    session.close()
    return numbers.at_s[before] - rival.started_s


# -- all ----------------------------------------------------------------------------------------------------


def show(results: dict[str, Any]) -> None:
    members = ["rival", "sessions", "rss_mb", "pss_mb", "own_mb", "threads", "descriptors", "cpu_share"]
    head = ["runtime", "sessions", "RSS MB", "PSS MB", "own MB", "threads", "fds", "CPU share"]
    table("Memory, threads and descriptors", head, [[e[m] for m in members] for e in results["sessions"]])
    members = ["rss_mb", "own_mb", "threads", "descriptors"]
    rows = [[name, *(costs[m] for m in members)] for name, costs in results["per_session"].items()]
    table("Each further session", ["runtime", "RSS MB", "own MB", "threads", "fds"], rows)
    members = ["rival", "events_per_s", "cpu_share", "disk_bytes", "disk_mb_a_day"]
    head = ["runtime", "events/s at the caller", "CPU share", "bytes to disk", "MB a day"]
    table("100 events a second, link up", head, [[e[m] for m in members] for e in results["work"]])
    rows = [[e["rival"], e["start"], median(e["s"]), min(e["s"]), max(e["s"])] for e in results["start"]]
    table("Start to first reading at a caller, s", ["runtime", "start", "median", "min", "max"], rows)


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    size = SMOKE if given.smoke else FULL
    rounds = given.rounds or size.rounds
    began = machine()
    results: dict[str, Any] = {"sessions": [], "per_session": {}, "work": [], "start": []}
    with Rig() as rig:
        board = rig.ours(TEN_DEVICES_TOML, agent="ours_ten", simulated=True, tls=True)
        rivals: list[Rival] = [board] + ([] if given.alone else [rig.official()])
        for rival in rivals:
            taken = with_sessions(rig, rival, size)
            results["sessions"] += taken
            results["per_session"][rival.name] = per_session(taken)
        for rival in rivals:
            times = [cold_start_s(rig, _fresh(rig, rival, turn)) for turn in range(rounds)]
            results["start"].append({"rival": rival.name, "start": "cold", "s": times})
        times = [resumed_start_s(rig, board) for _ in range(rounds)]
        results["start"].append({"rival": board.name, "start": "resumed", "s": times})
        for rival in [rig.ours(LINES_TOML, agent="ours_lines"), *rivals[1:]]:
            results["work"].append(at_work(rig, rival, size))
    show(results)
    save(given.json, began, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
