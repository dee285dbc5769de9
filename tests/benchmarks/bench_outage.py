"""What a connected caller loses while the device's link is dead, and how soon it hears again.

    python tests/benchmarks/bench_outage.py [--full] [--json FILE] [--rounds N] [--smoke] [--alone]

A sensor says 20 numbered lines a second on a serial port, before, during and after. `refused`: connections
are refused and the open ones cut. `silent`: every request is swallowed and never answered. Only the device's
link is dead; the caller stays. A port's buffer holds what its reader does not take, and drops what no longer
fits, as a wire does. `--full`: 60 s as in the project's goals, otherwise 10 s.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench_measure import machine, median, note, parser, save, table, tally
from bench_rig import LINES_TOML, Numbers, Rig, Rival

RATE_HZ = 20
BEFORE_S = 5.0
AFTER_S = 20.0
# How long after the last line something may still come.
DRAIN_LIMIT_S = 90.0
QUIET_S = 8.0
KINDS = ("refused", "silent")


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rounds: int
    outage_s: float
    before_s: float = BEFORE_S
    after_s: float = AFTER_S
    kinds: tuple[str, ...] = KINDS


SMOKE = Size(1, 1.0, 1.0, 2.0, ("refused",))


class Metronome:
    """Sends one numbered line every 50 ms, whatever becomes of it."""

    def __init__(self, rival: Rival) -> None:
        self._rival = rival
        self._ended = threading.Event()
        self.said: list[int] = []
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def _tell(self) -> None:
        source = self._rival.source
        n = source.sent[-1] + 1 if source.sent else 0
        next_s = time.monotonic()
        while not self._ended.wait(max(0.0, next_s - time.monotonic())):
            source.send([n])
            self.said.append(n)
            n += 1
            next_s += 1 / RATE_HZ

    def end(self) -> list[int]:
        """Stop; all numbers that were said, taken by the port or not."""
        self._ended.set()
        self._thread.join()
        return self.said


def outage(rig: Rig, rival: Rival, kind: str, size: Size) -> dict[str, Any]:
    """One outage in one session."""
    numbers = Numbers()
    session = rig.open(rival, rival.request("lines"), numbers)
    time.sleep(1.5)
    sensor = Metronome(rival)
    time.sleep(size.before_s)
    _cut(rig, rival.link, kind)
    time.sleep(size.outage_s)
    _mend(rig, rival.link, kind)
    back_s, before = time.monotonic(), len(numbers.at_s)
    time.sleep(size.after_s)
    said = sensor.end()
    _wait_quiet(numbers, said)
    session.close()
    after = numbers.at_s[before:]
    lost = sorted(set(said) - {n for n, _ in numbers.received})
    return {
        **tally(said, numbers.received),
        "late": sum(late for _, late in numbers.received),
        "receiving_again_s": after[0] - back_s if after else None,
        "first_live_s": _first_live_s(numbers, before, back_s),
        "lost_range": [lost[0], lost[-1]] if lost else None,
    }


def _first_live_s(numbers: Numbers, before: int, back_s: float) -> float | None:
    """Until something that is not old news arrived."""
    for (_, late), at_s in zip(numbers.received[before:], numbers.at_s[before:], strict=False):
        if not late:
            return at_s - back_s
    return None


def _cut(rig: Rig, link: str, kind: str) -> None:
    if kind == "refused":
        rig.net.call("refuse", link=link)
    else:
        rig.net.call("add_fault", kind="blackhole", link=link)


def _mend(rig: Rig, link: str, kind: str) -> None:
    if kind == "refused":
        rig.net.call("accept", link=link)
    else:
        rig.net.call("heal")


def _wait_quiet(numbers: Numbers, said: list[int]) -> None:
    """Until all has come, or nothing came for a while."""
    deadline_s = time.monotonic() + DRAIN_LIMIT_S
    wanted = set(said)
    while time.monotonic() < deadline_s:
        if wanted <= {n for n, _ in numbers.received}:
            return
        if time.monotonic() - max([*numbers.at_s[-1:], deadline_s - DRAIN_LIMIT_S]) > QUIET_S:
            return
        time.sleep(0.2)


def show(results: list[dict[str, Any]]) -> None:
    head = ["link", "outage s", "runtime", "said", "lost", "dup", "disorder", "late", "receiving again s"]
    members = ["kind", "outage_s", "rival", "sent", "lost", "duplicated", "out_of_order", "late"]
    rows = [[entry[name] for name in members] + [_seconds(entry)] for entry in results]
    table("An outage of the device's link at 20 events a second; the caller stays", head, rows)


def _seconds(entry: dict[str, Any]) -> str:
    known = [value for value in entry["receiving_again_s"] if value is not None]
    missed = len(entry["receiving_again_s"]) - len(known)
    text = f"{median(known):.2f} (max {max(known):.2f})" if known else ""
    return f"{text} never in {missed}".strip() if missed else text


def _together(kind: str, size: Size, name: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums of what was counted; the times one by one."""
    counted = ("sent", "lost", "duplicated", "out_of_order", "late")
    return {
        "kind": kind,
        "outage_s": size.outage_s,
        "rival": name,
        **{one: sum(each[one] for each in rounds) for one in counted},
        "receiving_again_s": [one["receiving_again_s"] for one in rounds],
        "first_live_s": [one["first_live_s"] for one in rounds],
        "lost_ranges": [one["lost_range"] for one in rounds],
    }


def _fresh(rig: Rig, name: str, *, alone: bool) -> Iterator[Rival]:
    """The rivals as new processes: one that an outage has left deaf must not spoil the next round."""
    yield rig.ours(LINES_TOML, agent=f"ours_{name}")
    if not alone:
        yield rig.official(agent=f"official_{name}")


def main(words: list[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--full", action="store_true", help="outages of 60 s")
    given = options.parse_args(words)
    size = SMOKE if given.smoke else Size(given.rounds or 2, 60.0 if given.full else 10.0)
    began = machine()
    results = []
    with Rig() as rig:
        for kind in size.kinds:
            taken: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for turn in range(size.rounds):
                for rival in _fresh(rig, f"{kind}_{turn}", alone=given.alone):
                    got = outage(rig, rival, kind, size)
                    rival.stop()
                    taken[rival.name].append(got)
                    note(f"{kind} {size.outage_s:g} s round {turn + 1} {rival.name}: lost {got['lost']}")
            results += [_together(kind, size, name, rounds) for name, rounds in taken.items()]
    show(results)
    save(given.json, began, {"outage": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
