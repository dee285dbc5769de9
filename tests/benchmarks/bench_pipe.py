"""How soon an edge reaches a caller and a command its pin, and the rate of one stream; both runtimes.

    python tests/benchmarks/bench_pipe.py [--json FILE] [--rounds N] [--smoke] [--alone]

Latency: an input of the simulated board changes, one edge at a time after a rest; the clock stops in the
official caller's iterator. Both links have the round trip, so the network alone costs one.
Rate: numbered lines on a serial port, as many as go through; the device's link has the round trip.
The floor of each is a bare loop, which sends the same and keeps nothing (`bench_bare`).
"""

import json
import os
import queue
import random
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from bench_measure import cpu_s, machine, median, note, parser, percentile, save, table, tally
from bench_rig import (
    BARE,
    CONTROL,
    EDGES_TOML,
    LAMPS,
    LIMIT_S,
    LINES_TOML,
    OFFICIAL,
    PINS,
    BareLoop,
    Numbers,
    Official,
    Ours,
    Rig,
    Rival,
    moved_s,
)

LATENCY_RTT_MS = (0, 60)
RATE_RTT_MS = (0, 40, 150)
EDGES = 30
REST_S = (0.15, 0.35)
FLAT_OUT_S = 6.0
WARM_UP_S = 1.5
# Lines on their way at once: above what the fastest of the rivals has in flight, below any overflow.
WINDOW = 10_000
LINES_AT_ONCE = 100
BUNDLE_EVENTS = 50


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rounds: int
    edges: int
    flat_out_s: float
    latency_rtt_ms: tuple[int, ...]
    rate_rtt_ms: tuple[int, ...]


FULL = Size(3, EDGES, FLAT_OUT_S, LATENCY_RTT_MS, RATE_RTT_MS)
SMOKE = Size(1, 3, 1.0, (0,), (0,))


# -- latency ------------------------------------------------------------------------------------------------


class Edges:
    """Waits for the event that says a level."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[tuple[bool, float]] = queue.SimpleQueue()

    def __call__(self, event: dict[str, Any], at_s: float) -> None:
        if event.get("kind") == "reading":
            self._arrived.put((event["values"]["active"], at_s))

    def wait(self, level: bool) -> float:
        """When the event with this level arrived."""
        while True:
            active, at_s = self._arrived.get(timeout=LIMIT_S)
            if active is level:
                return at_s


def edge_latency(rig: Rig, rival: Rival, request: dict[str, Any], board: Ours, edges: int) -> list[float]:
    """Milliseconds from the change of the pin to the caller's iterator."""
    set_pin = board.pin(PINS[rival.name])
    arrived = Edges()
    session = rig.open(rival, request, arrived)
    arrived.wait(False)
    time.sleep(1.0)  # the stream is settled and idle
    latencies = []
    for index in range(edges):
        level = index % 2 == 0
        time.sleep(random.uniform(*REST_S))
        begun_s = time.monotonic()
        set_pin(level)
        latencies.append((arrived.wait(level) - begun_s) * 1000)
    session.close()
    return latencies


def latencies(
    rig: Rig, ours: Ours, official: Official | None, bare: BareLoop | None, size: Size
) -> list[dict[str, Any]]:
    """All rounds, the rivals in turn."""
    assert ours.board is not None
    work: list[tuple[str, Rival, dict[str, Any]]] = [(ours.name, ours, ours.request("edges"))]
    if official is not None:
        place = {"board": str(ours.board.socket), "line": PINS[OFFICIAL]}
        plain = official.request("edges", **place)
        work.append((OFFICIAL, official, plain))
        quick = official.request("edges", **place, options={"max_latency_ms": 20})
        work.append((f"{OFFICIAL}, max_latency_ms=20", official, quick))
    if bare is not None:
        place = {"board": str(ours.board.socket), "line": PINS[BARE]}
        work.append((BARE, bare, bare.request("edges", **place)))
    results = []
    for rtt_ms in size.latency_rtt_ms:
        rig.rtt(rtt_ms, rtt_ms)
        taken: dict[str, list[list[float]]] = defaultdict(list)
        for turn in range(size.rounds):
            for name, rival, request in work:
                taken[name].append(edge_latency(rig, rival, request, ours, size.edges))
                note(f"latency rtt {rtt_ms} round {turn + 1} {name}: p50 {median(taken[name][-1]):.1f} ms")
        for name, rounds in taken.items():
            results.append(_latency(name, rtt_ms, rounds))
    rig.rtt(0)
    return results


def _latency(name: str, rtt_ms: int, rounds: list[list[float]]) -> dict[str, Any]:
    every = [value for one in rounds for value in one]
    return {
        "rival": name,
        "rtt_ms": rtt_ms,
        "edges": len(every),
        "p50_ms": median(percentile(one, 0.5) for one in rounds),
        "p99_ms": percentile(every, 0.99),
        "max_ms": max(every),
        "above_rtt_p50_ms": median(percentile(one, 0.5) for one in rounds) - rtt_ms,
    }


# -- commands ---------------------------------------------------------------------------------------------


def command_latency(
    rig: Rig, rival: Rival, request: dict[str, Any], board: Ours, count: int
) -> tuple[list[float], list[float]]:
    """Milliseconds from the caller's write to the pin, and to the ack in the caller's iterator."""
    assert board.board is not None
    part = {"partId": "request", "contentType": "application/json", "text": json.dumps(request)}
    session = rig.client.send_message(
        agent_name=rival.agent, request_parts=[part], task_kind="pipe", duration=30
    )
    reference = session.wait_for_stream(CONTROL, timeout=LIMIT_S)
    # The caller sends at once: by itself it would wait for a quarter of a second.
    os.environ["STREAM_MAX_LATENCY_MS"] = "1"
    stream = reference.open()
    del os.environ["STREAM_MAX_LATENCY_MS"]
    acks: queue.SimpleQueue[tuple[dict[str, Any], float]] = queue.SimpleQueue()

    def hear() -> None:
        for event in stream.events():
            if event.get("kind") == "ack":
                acks.put((event, time.monotonic()))

    threading.Thread(target=hear, daemon=True).start()
    time.sleep(1.5)  # both ends have subscribed
    pin_ms, ack_ms = [], []
    for n in range(count):
        time.sleep(random.uniform(*REST_S))
        level, seen, begun_s = n % 2 == 0, len(board.board.record()), time.monotonic()
        # An id is carried out once.
        id_ = f"n{time.monotonic_ns()}"
        stream.write({"kind": "set", "id": id_, "device": "lamp", "values": {"on": level}})
        ack, at_s = acks.get(timeout=LIMIT_S)
        assert ack["state"] == "done", ack
        ack_ms.append((at_s - begun_s) * 1000)
        pin_ms.append((moved_s(board.board, seen, LAMPS[rival.name]) - begun_s) * 1000)
    session.cancel()
    session.wait_for_terminal(LIMIT_S)
    return pin_ms, ack_ms


def commands(
    rig: Rig, ours: Ours, official: Official | None, bare: BareLoop | None, size: Size
) -> list[dict[str, Any]]:
    """All rounds, the rivals in turn."""
    assert ours.board is not None
    work: list[tuple[str, Rival, dict[str, Any]]] = [(ours.name, ours, {"streams": [CONTROL]})]
    if official is not None:
        place = {"board": str(ours.board.socket), "line": LAMPS[OFFICIAL]}
        work.append((OFFICIAL, official, official.request("orders", **place)))
    if bare is not None:
        place = {"board": str(ours.board.socket), "line": LAMPS[BARE]}
        work.append((BARE, bare, bare.request("orders", **place)))
    results = []
    for rtt_ms in size.latency_rtt_ms:
        rig.rtt(rtt_ms, rtt_ms)
        for name, rival, request in work:
            rounds = [command_latency(rig, rival, request, ours, size.edges) for _ in range(size.rounds)]
            pins, acks = ([value for one in rounds for value in one[kind]] for kind in (0, 1))
            entry = {"rival": name, "rtt_ms": rtt_ms, "commands": len(pins)}
            for what, times in (("pin", pins), ("ack", acks)):
                entry |= {f"{what}_p50_ms": median(times), f"{what}_p99_ms": percentile(times, 0.99)}
            results.append(entry)
            note(f"commands rtt {rtt_ms} {name}: pin {entry['pin_p50_ms']:.1f} ms")
    rig.rtt(0)
    return results


# -- rate ---------------------------------------------------------------------------------------------------


class Feeder:
    """Sends numbered lines as fast as the caller gets them, with a window of lines on their way."""

    def __init__(self, rival: Rival, numbers: Numbers) -> None:
        self._rival = rival
        self._numbers = numbers
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self.first = len(rival.source.sent)
        self._thread.start()

    def _feed(self) -> None:
        source = self._rival.source
        n = source.sent[-1] + 1 if source.sent else 0
        before = len(self._numbers.received)
        while not self._ended.is_set():
            on_their_way = len(source.sent) - self.first - (len(self._numbers.received) - before)
            if on_their_way < WINDOW and source.send(range(n, n + LINES_AT_ONCE)):
                n += LINES_AT_ONCE
            else:
                self._ended.wait(0.001)

    def end(self) -> list[int]:
        """Stop; the numbers that were sent."""
        self._ended.set()
        self._thread.join()
        return self._rival.source.sent[self.first :]


def flat_out(rig: Rig, rival: Rival, request: dict[str, Any], duration_s: float) -> dict[str, Any]:
    """One session, lines without a rest; figures of the time after the warm-up."""
    numbers = Numbers()
    session = rig.open(rival, request, numbers)
    time.sleep(1.5)  # the caller has subscribed
    feeder = Feeder(rival, numbers)
    time.sleep(WARM_UP_S)
    begun_s, count, cpu_before_s = time.monotonic(), len(numbers.received), cpu_s(rival.pid)
    time.sleep(duration_s)
    cpu_used_s = cpu_s(rival.pid) - cpu_before_s
    events, took_s = len(numbers.received) - count, time.monotonic() - begun_s
    sent = feeder.end()
    _drained(numbers, sent)
    session.close()
    return {
        "events_per_s": events / took_s,
        "cpu_s_per_1000_bundles": cpu_used_s / max(events, 1) * BUNDLE_EVENTS * 1000,
        "cpu_share": cpu_used_s / took_s,
        "event_bytes": len(json.dumps(numbers.first, separators=(",", ":"))),
        **tally(sent, numbers.received),
    }


def _drained(numbers: Numbers, sent: list[int]) -> None:
    """Wait until all has come, or nothing more comes."""
    last = -1
    while len(numbers.received) != last and numbers.received[-1:] != [(sent[-1], False)]:
        last = len(numbers.received)
        time.sleep(2.0)


def rates(rig: Rig, rivals: list[Rival], size: Size) -> list[dict[str, Any]]:
    results = []
    for rtt_ms in size.rate_rtt_ms:
        rig.rtt(rtt_ms)
        taken: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for turn in range(size.rounds):
            for rival in rivals:
                got = flat_out(rig, rival, rival.request("lines"), size.flat_out_s)
                taken[rival.name].append(got)
                note(f"rate rtt {rtt_ms} round {turn + 1} {rival.name}: {got['events_per_s']:,.0f} events/s")
        for name, rounds in taken.items():
            results.append({"rival": name, "rtt_ms": rtt_ms, **_together(rounds)})
    rig.rtt(0)
    return results


def _together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of what was measured, sums of what was counted."""
    counted = ("sent", "lost", "duplicated", "out_of_order")
    return {
        name: (sum if name in counted else median)([one[name] for one in rounds]) for name in rounds[0]
    } | {"rounds_events_per_s": [round(one["events_per_s"]) for one in rounds]}


# -- all ----------------------------------------------------------------------------------------------------


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    head = ["rtt ms", "runtime", "p50 ms", "p99 ms", "max ms", "p50 above rtt", "edges"]
    members = ["rtt_ms", "rival", "p50_ms", "p99_ms", "max_ms", "above_rtt_p50_ms", "edges"]
    table("Idle edge → the official caller's iterator", head, _rows(results["latency"], members))
    members = ["rtt_ms", "rival", "pin_p50_ms", "pin_p99_ms", "ack_p50_ms", "ack_p99_ms", "commands"]
    head = ["rtt ms", "runtime", "pin p50 ms", "pin p99 ms", "ack p50 ms", "ack p99 ms", "commands"]
    table("The official caller's command → the pin, and → its ack", head, _rows(results["commands"], members))
    head = ["rtt ms", "runtime", "events/s", "ratio", "CPU s per 1000 × 50", "CPU", "lost", "dup", "disorder"]
    rows = []
    for entry in results["rate"]:
        rival = [e for e in results["rate"] if e["rtt_ms"] == entry["rtt_ms"] and e["rival"] == OFFICIAL]
        ratio = f"{entry['events_per_s'] / rival[0]['events_per_s']:.1f} ×" if rival else None
        cpu = f"{entry['cpu_share']:.0%}"
        counts = [entry[name] for name in ("lost", "duplicated", "out_of_order")]
        cost = entry["cpu_s_per_1000_bundles"]
        rows.append([entry["rtt_ms"], entry["rival"], entry["events_per_s"], ratio, cost, cpu, *counts])
    table("Sustained events a second on one stream, from a serial port", head, rows)


def _rows(entries: list[dict[str, Any]], members: list[str]) -> list[list[Any]]:
    return [[entry[name] for name in members] for entry in entries]


def main(words: list[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--only", choices=("latency", "commands", "rate"), help="one of them")
    given = options.parse_args(words)
    size = SMOKE if given.smoke else FULL
    if given.rounds:
        size = Size(given.rounds, size.edges, size.flat_out_s, size.latency_rtt_ms, size.rate_rtt_ms)
    began = machine()
    results: dict[str, list[dict[str, Any]]] = {"latency": [], "commands": [], "rate": []}
    with Rig() as rig:
        official = None if given.alone else rig.official()
        bare = BareLoop(rig, official) if official else None
        if given.only != "rate":
            board = rig.ours(EDGES_TOML, agent="ours_edges", simulated=True)
            if given.only != "commands":
                results["latency"] = latencies(rig, board, official, bare, size)
            if given.only != "latency":
                results["commands"] = commands(rig, board, official, None if given.smoke else bare, size)
        if given.only in (None, "rate"):
            lines: list[Rival] = [rig.ours(LINES_TOML, agent="ours_lines", rate_hz=0)]
            floor = None if given.smoke else bare
            others: list[Rival] = [rival for rival in (official, floor) if rival is not None]
            results["rate"] = rates(rig, lines + others, size)
    show(results)
    save(given.json, began, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
