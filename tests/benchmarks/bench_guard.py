"""How soon every actuator is safe after the daemon was killed or stopped, and what the guard costs.

    python tests/benchmarks/bench_guard.py [--json FILE] [--rounds N] [--smoke]

The real daemon and its guard on a simulated board: two lines, a port expander on I2C, a serial instrument, an
MQTT plug, all away from safe. The clock starts before the signal and stops when the board saw the change.
"""

import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_measure import cpu_s, machine, median, memory_mb, note, parser, save, table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.guarded_daemon import LAMP, VALVE, Scene  # noqa: E402
from support.waiting import until  # noqa: E402

TIMEOUT_S = 1.0
IDLE_S = 5.0
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
WHERE: dict[str, dict[str, Any]] = {
    "valve (gpio)": {"bus": "pins", "line": VALVE},
    "lamp (gpio)": {"bus": "pins", "line": LAMP},
    "relays (i2c)": {"bus": "i2c1", "device": "relays"},
    "scale (serial)": {"bus": "meter"},
    "plug (mqtt)": {"bus": "broker", "topic": "plug/set"},
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rounds: int
    idle_s: float


def takeover(scene: Scene, how: str) -> dict[str, float]:
    """Milliseconds from the signal to safe, by actuator."""
    scene.drive()
    seen = len(scene.board.record())
    began_s = time.monotonic()
    scene.daemon.process.send_signal(SIGNALS[how])

    def news() -> list[dict[str, Any]]:
        return [entry for entry in scene.board.record()[seen:] if entry["by"] == "guard"]

    def safe_s() -> dict[str, float]:
        found = {}
        for name, members in WHERE.items():
            times = [e["t"] for e in news() if all(e.get(k) == v for k, v in members.items())]
            if times:
                found[name] = max(times)
        return found

    times = until(lambda: len(safe_s()) == len(WHERE) and safe_s(), "everything safe")
    if how == "killed":
        scene.daemon.process.wait()
    else:
        scene.thaw()
        scene.daemon.kill()
    return {name: (at_s - began_s) * 1000 for name, at_s in times.items()}


def cost(scene: Scene, idle_s: float) -> dict[str, Any]:
    """The guard's memory and its share of a core, with a daemon that beats."""
    pid = scene.guard()
    began_s, used_s = time.monotonic(), cpu_s(pid)
    time.sleep(idle_s)
    share = (cpu_s(pid) - used_s) / (time.monotonic() - began_s)
    return {**memory_mb(pid), "cpu_percent": share * 100}


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    size = Size(1, 0.5) if given.smoke else Size(given.rounds or 10, IDLE_S)
    began = machine()
    results: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    for how in SIGNALS:
        with tempfile.TemporaryDirectory() as folder, Scene(Path(folder), TIMEOUT_S) as scene:
            taken = []
            for turn in range(size.rounds):
                scene.start()
                if not costs:
                    costs.append(cost(scene, size.idle_s))
                taken.append(takeover(scene, how))
                note(f"{how} round {turn + 1}: all safe after {max(taken[-1].values()):.1f} ms")
        for name in WHERE:
            times = [one[name] for one in taken]
            results.append({"how": how, "actuator": name, "ms": times})
    rows = [(r["how"], r["actuator"], median(r["ms"]), max(r["ms"])) for r in results]
    table(f"signal to safe, ms (guard_timeout_s = {TIMEOUT_S:g})", ("how", "actuator", "p50", "worst"), rows)
    row = [costs[0][name] for name in ("rss_mb", "own_mb", "cpu_percent")]
    table("the guard", ("resident MB", "of its own MB", "CPU %"), [row])
    save(given.json, began, {"takeover": results, "cost": costs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
