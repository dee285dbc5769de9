"""A start with a million events waiting: first live reading, memory, drain rate; bytes that an outage writes.

    python tests/benchmarks/bench_backlog.py [--json FILE] [--smoke]

A session's daemon is killed while its link refuses. The events are put into its outbox on disk. It starts
again, the link accepts, and a sensor says 20 lines a second; the caller has stayed. Goals: first live reading
1.5 s after the start at most, 60 MB resident.
"""

import sys
import time
from typing import Any

from bench_measure import disk_written_bytes, machine, memory_mb, note, parser, save, table
from bench_outage import Metronome
from bench_rig import LINES_TOML, Numbers, Ours, Rig, until

from device_agent.messages import events
from device_agent.records import Reading
from device_agent.store.outbox.event import Event
from device_agent.store.outbox.outbox_file import Commit, OutboxFile

MILLION, SMOKE = 1_000_000, 5_000
AT_ONCE = 20_000
DRAIN_S = 15.0
TOML = '[outbox]\nmax_bytes = "4 GB"\ncommit_interval_s = 1.0\n[history]\nenabled = false\n' + LINES_TOML


def fill(ours: Ours, count: int) -> int:
    """Put events into the outbox of a daemon that is dead; the size of the file."""
    path = ours.folder / "state" / "outbox.db"
    file = OutboxFile(path)
    found = file.open()
    row = max(found.rows, key=lambda one: one.next_seq)
    id_, at_ms = found.last_id, time.time_ns() // 1_000_000
    for start in range(0, count, AT_ONCE):
        inserts = []
        for n in range(start, min(start + AT_ONCE, count)):
            id_ += 1
            draft = events.reading(Reading("meter", at_ms, {"n": -1 - n, "flow": 10.5}), "0a1b2c3d")
            data = draft.numbered(row.next_seq)
            inserts.append((row.name, Event(id_, data, row.next_seq, at_ms, "reading", "meter", 0.0)))
            row.next_seq += 1
        row.seq_reserved = row.next_seq + AT_ONCE
        file.commit(Commit([row], inserts, [], []))
    file.close()
    return path.stat().st_size


def measure(rig: Rig, count: int) -> dict[str, Any]:
    ours = rig.ours(TOML, rate_hz=0)
    numbers = Numbers()
    session = rig.open(ours, ours.request("lines"), numbers)
    sensor = Metronome(ours)
    until(lambda: numbers.received, "a reading")
    rig.net.call("refuse", link=ours.link)
    written, waiting = disk_written_bytes(ours.pid), int(ours.daemon.ask("status")["outbox"]["events"])
    time.sleep(6.0)
    outage = disk_written_bytes(ours.pid) - written
    events_then = int(ours.daemon.ask("status")["outbox"]["events"]) - waiting
    ours.process.kill()
    ours.process.wait()
    size_bytes = fill(ours, count)
    note(f"{count} events wait in {size_bytes / 1e6:.0f} MB")
    before = len(numbers.received)
    rig.net.call("accept", link=ours.link)
    ours.start()
    started_s = time.monotonic()
    until(lambda: any(not late for _, late in numbers.received[before:]), "a live reading", 60)
    first = next(i for i, (_, late) in enumerate(numbers.received[before:], before) if not late)
    at_first_mb = memory_mb(ours.pid)["rss_mb"]
    begun_s, then, most_mb = time.monotonic(), len(numbers.received), at_first_mb
    while time.monotonic() - begun_s < DRAIN_S and len(numbers.received) - before < count:
        time.sleep(0.2)
        most_mb = max(most_mb, memory_mb(ours.pid)["rss_mb"])
    rate = (len(numbers.received) - then) / (time.monotonic() - begun_s)
    sensor.end()
    session.close()
    return {
        "events": count,
        "first_live_s": numbers.at_s[first] - started_s,
        "rss_at_first_mb": at_first_mb,
        "rss_most_mb": most_mb,
        "drained_per_s": rate,
        "outage_bytes_per_event": outage / max(1, events_then),
    }


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    began = machine()
    with Rig() as rig:
        result = measure(rig, SMOKE if given.smoke else MILLION)
    head = ["events", "first live s", "RSS then MB", "RSS most MB", "drained/s", "disk B/event, link down"]
    table("A start with a backlog", head, [list(result.values())])
    save(given.json, began, {"backlog": [result]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
