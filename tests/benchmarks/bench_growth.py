"""How costs grow with devices, sessions, what waits in the outbox, and days of life: none faster than linear.

    python tests/benchmarks/bench_growth.py [--json FILE] [--pictures DIR] [--full] [--smoke]

Devices are sensors on two simulated I2C buses, read once a second. Sessions are of official callers with one
stream at 2 events a second. The backlog is that of `bench_backlog`: a million events, with `--full` ten. The
days are in the files that a start finds: ten devices read every 5 s, a hundred commands a day.
`grows` is the exponent between the two largest sizes: 1 is linear, 0 is constant.
"""

import asyncio
import math
import sys
import time
from pathlib import Path
from typing import Any

from bench_backlog import measure as backlog
from bench_footprint import TEN_DEVICES_TOML, TICK_S
from bench_measure import cpu_s, machine, memory_mb, note, parser, save, table, threads
from bench_picture import draw
from bench_rig import Numbers, Ours, Receiver, Rig, until

from device_agent.config.models import HistoryConfig
from device_agent.store.history.history_file import DAY_MS, HistoryFile
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread
from support.aged_history import fill

DEVICES, SESSIONS, BACKLOG = (1, 10, 50, 100, 200), (1, 8, 32, 128), (1_000, 10_000, 100_000, 1_000_000)
WORK_S = 10.0
DAYS = (1, 10, 100, 365)
COMMANDS_A_DAY = 100
START_LIMIT_S = 60.0
A_BUS = 100
FIRST_ADDRESS = 0x08

BUS = """
[buses.i2c{bus}]
kind = "i2c"
device = "/dev/i2c-{bus}"
"""
SENSOR = """
[devices.s{n}]
driver = "i2c-registers"
bus = "i2c{bus}"
address = {address}
every_s = 1
points = {{ value = {{ register = 0, width_bits = 16 }} }}
"""


def work(ours: Ours, work_s: float) -> dict[str, float]:
    """Per cent of a core, memory and threads, of a daemon that is left alone."""
    before_s, begun_s = cpu_s(ours.pid), time.monotonic()
    time.sleep(work_s)
    share = (cpu_s(ours.pid) - before_s) / (time.monotonic() - begun_s)
    return {"cpu_percent": share * 100, "rss_mb": memory_mb(ours.pid)["rss_mb"], "threads": threads(ours.pid)}


def with_devices(rig: Rig, count: int, work_s: float) -> dict[str, Any]:
    config = "".join(BUS.format(bus=bus) for bus in range(1, 2 + (count - 1) // A_BUS))
    for n in range(count):
        config += SENSOR.format(n=n, bus=1 + n // A_BUS, address=FIRST_ADDRESS + n % A_BUS)
    ours = rig.ours(config.replace("{", "{{").replace("}", "}}"), agent=f"devices_{count}", simulated=True)
    start_s = cpu_s(ours.pid)
    result = {"devices": count, "start_cpu_s": start_s, **work(ours, work_s)}
    ours.stop()
    note(f"{count} devices: {result['cpu_percent']:.1f} % of a core, {result['rss_mb']:.1f} MB")
    return result


def with_sessions(rig: Rig, sizes: tuple[int, ...], work_s: float) -> list[dict[str, Any]]:
    ours = rig.ours(TEN_DEVICES_TOML, agent="sessions", simulated=True)
    opened: list[Receiver] = []
    results = []
    for count in sizes:
        while len(opened) < count:
            numbers = Numbers()
            opened.append(rig.open(ours, ours.request("ticks", every_s=TICK_S), numbers))
            until(lambda numbers=numbers: numbers.received, "the first reading of a session")
        results.append({"sessions": count, **work(ours, work_s)})
        note(
            f"{count} sessions: {results[-1]['cpu_percent']:.1f} % of a core, {results[-1]['rss_mb']:.1f} MB"
        )
    for session in opened:
        session.close()
    ours.stop()
    return results


def fill_history(path: Path, days: int, now_ms: int) -> None:
    usual = HistoryConfig()
    file = HistoryFile(path, keep_ms=round(usual.keep_days * DAY_MS), max_bytes=usual.max_bytes)
    fill(file, ["climate", *(f"climate_{n}" for n in range(1, 10))], days, now_ms)
    file.close()


async def fill_journal(path: Path, days: int, now_ms: int) -> None:
    thread = StoreThread()
    journal = Journal(path, thread, lambda: now_ms)
    await journal.open()
    for n in range(days * COMMANDS_A_DAY):
        at_ms = now_ms - (days - n // COMMANDS_A_DAY) * DAY_MS
        journal.actuation(at_ms, "session of user:alice", "valve", "on=True", "done")
        if n % 1000 == 999:
            await journal.flushed()
    await journal.close()
    await thread.close()


def with_days(rig: Rig, sizes: tuple[int, ...], work_s: float) -> list[dict[str, Any]]:
    ours = rig.ours(TEN_DEVICES_TOML, agent="days", simulated=True)
    results = []
    for days in sizes:
        ours.process.kill()
        ours.process.wait()
        history, journal = (ours.folder / "state" / name for name in ("history.db", "journal.db"))
        for path in (*history.parent.glob("history.db*"), *history.parent.glob("journal.db*")):
            path.unlink()
        now_ms = time.time_ns() // 1_000_000
        fill_history(history, days, now_ms)
        asyncio.run(fill_journal(journal, days, now_ms))
        sizes_mb = {path.stem + "_mb": path.stat().st_size / 1e6 for path in (history, journal)}
        ours.start()
        ours.ready()
        start = {"start_s": time.monotonic() - ours.started_s, "start_cpu_s": cpu_s(ours.pid)}
        asked_s = time.monotonic()
        span = {"from": now_ms - days * DAY_MS, "to": now_ms, "every_s": days * 864}
        answer = ours.daemon.ask("history", devices=["climate"], format="json", **span)
        assert answer
        start["history_answer_s"] = time.monotonic() - asked_s
        results.append({"days": days, **sizes_mb, **start, **work(ours, work_s)})
        note(f"{days} days: {results[-1]}")
    ours.stop()
    return results


def grows(entries: list[dict[str, Any]], by: str, what: str) -> float | None:
    """The exponent between the two largest sizes."""
    if len(entries) < 2 or min(entry[what] for entry in entries[-2:]) <= 0:
        return None
    before, after = entries[-2:]
    return math.log(after[what] / before[what]) / math.log(after[by] / before[by])


def show(results: dict[str, list[dict[str, Any]]], pictures: Path | None) -> None:
    for by, entries in results.items():
        by = "events" if by == "backlog" else by
        members = list(entries[0])
        growth = ["grows", *(grows(entries, by, what) for what in members[1:])]
        table(f"Growth with {by}", members, [[*entry.values()] for entry in entries] + [growth])
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            lines = {what: [(entry[by], entry[what]) for entry in entries] for what in members[1:]}
            draw(pictures / f"growth-{by}.svg", f"Growth with {by}", by, "", lines)


def main(words: list[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--pictures", type=Path, metavar="DIR", help="draw them there")
    options.add_argument("--full", action="store_true", help="ten million events, too")
    given = options.parse_args(words)
    sizes = ((1, 2), (1, 2), (1_000,)) if given.smoke else (DEVICES, SESSIONS, BACKLOG)
    days = (1, 10) if given.smoke else DAYS
    work_s = 0.5 if given.smoke else WORK_S
    if given.full:
        sizes = (*sizes[:2], (*sizes[2], 10_000_000))
    began = machine()
    results: dict[str, list[dict[str, Any]]] = {}
    with Rig() as rig:
        results["devices"] = [with_devices(rig, count, work_s) for count in sizes[0]]
        results["sessions"] = with_sessions(rig, sizes[1], work_s)
        results["days"] = with_days(rig, days, work_s)
    results["backlog"] = []
    for count in sizes[2]:
        with Rig() as rig:
            results["backlog"].append(backlog(rig, count))
    show(results, given.pictures)
    save(given.json, began, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
