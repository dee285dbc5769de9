"""What one caller's flood costs another's commands: how long they take with and without it, from the question
to the answer, and whether the guard ever missed the daemon.

    python tests/benchmarks/bench_flood.py [--rounds N] [--json FILE] [--smoke]

The flood comes from a process of its own, by the official client, over a session of somebody who may only
read. The owner's commands come by the control socket, and so by nothing that the flood could hold up but the
daemon; Alice's come over the network, whose stand-in and client are slowed down by the flood too. The flooder
has the lowest priority. Where others want the cores, the kernel's share of a delay is shown beside it: how
long meanwhile the threads that it passes (the daemon's, this one) were ready and not on a core.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_measure import machine, note, parser, percentile, save, table
from bench_rig import Ours, Rig
from bench_safety import VALVE_TOML

from support.callers import Listening
from support.waiting import LIMIT_S, until

CONFIG = VALVE_TOML.replace('drive = "anyone"', 'drive = ["user:user_alice"]').replace("max_on_s = 0.5", "")
BETWEEN_S = 0.02
COMMANDS = 100

FLOOD = """
import sys
from blocks_network import TaskClient
client = TaskClient.create(billing_mode="free", api_key="bk_mallory")
session = client.send_message(agent_name=sys.argv[1], task_kind="pipe", duration=30)
stream = session.wait_for_stream("readings", timeout=60).open()
event = {
    "many small ones": {"kind": "fly", "id": "x" * 100},
    "refused commands": {"kind": "set", "id": "x" * 100, "device": "valve", "values": {"on": True}},
    "nested lists": {"kind": "set", "id": "x", "device": "valve", "values": {"on": [[]] * 7000}},
}[sys.argv[2]]
print("open", flush=True)
while True:
    stream.write(event)
"""
FLOODS = ("many small ones", "refused commands", "nested lists")


@contextmanager
def flood(ours: Ours, what: str) -> Iterator[None]:
    if not what:
        yield
        return
    words = ["nice", "-n", "19", sys.executable, "-c", FLOOD, ours.agent, what]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        assert sender.stdout.readline() == b"open\n"
        try:
            time.sleep(1.0)  # until what it sends has come through
            yield
        finally:
            sender.kill()


def waited_ms(pids: Iterable[int]) -> float:
    """How long the main threads of these processes waited for a core so far."""
    return sum(int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) for pid in pids) / 1e6


def taken_ms(command: Callable[[int], Any], count: int, pids: Iterable[int]) -> list[tuple[float, float]]:
    """How long each took, and how long of it the processes waited for a core."""
    taken = []
    for number in range(count):
        before_ms, began_s = waited_ms(pids), time.monotonic()
        assert command(number)["state"] == "done"
        taken.append(((time.monotonic() - began_s) * 1000, waited_ms(pids) - before_ms))
        time.sleep(BETWEEN_S)
    return taken


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    count, rounds = (10, 1) if given.smoke else (COMMANDS, given.rounds or 2)
    began = machine()
    results: list[dict[str, Any]] = []
    with Rig() as rig:
        ours = rig.ours(CONFIG, simulated=True, rate_hz=0)
        session = rig.client.send_message(agent_name=ours.agent, task_kind="pipe", duration=30)
        heard = Listening(session.wait_for_stream("readings", timeout=LIMIT_S))
        heard.wait("control", about="session")
        senders: dict[str, Callable[[int], Any]] = {
            "the owner": lambda n: ours.daemon.ask("set", device="pump", values={"on": n % 2 == 0}),
            "Alice": lambda n: heard.command(
                kind="set", id=f"{time.monotonic_ns()}", device="valve", values={"on": n % 2 == 0}
            ),
        }
        pids = (ours.daemon.process.pid, os.getpid())
        for what in ("", *FLOODS[: 1 if given.smoke else None]):
            taken: dict[str, list[tuple[float, float]]] = {who: [] for who in senders}
            with flood(ours, what):
                for _ in range(rounds):
                    for who, command in senders.items():
                        taken[who] += taken_ms(command, count, pids)
            for who, pairs in taken.items():
                times = [took for took, _ in pairs]
                entry = {"flood": what or "none", "who": who, "commands": len(times), "max_ms": max(times)}
                entry |= {f"p{share}_ms": percentile(times, share / 100) for share in (50, 99)}
                entry["p99_without_waits_ms"] = percentile([took - waited for took, waited in pairs], 0.99)
                entry["takeovers"] = ours.daemon.ask("status")["guard"]["takeovers"]
                results.append(entry)
                note(f"{entry}")
        until(lambda: ours.daemon.ask("status")["guard"]["up"], "the guard")
    keys = ("flood", "who", "commands", "p50_ms", "p99_ms", "max_ms", "p99_without_waits_ms", "takeovers")
    table("Commands beside a flood", keys, [[entry[key] for key in keys] for entry in results])
    save(given.json, began, {"flood": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
