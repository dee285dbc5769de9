"""How soon every actuator is safe after the daemon was killed or stopped, or the emergency stop's contact
closed while it hangs; and what the guard costs.

    python tests/benchmarks/bench_guard.py [--json FILE] [--rounds N] [--smoke]

The real daemon and its guard on a simulated board: two lines, a port expander on I2C, a serial instrument, an
MQTT plug, all away from safe. The clock starts before the signal and stops when the board saw the change. The
contact is measured by the board's record alone, on an idle machine and with two processes that burn the CPU.
What the guard is not allowed is said: take it as root and as an ordinary user.
"""

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_measure import cpu_s, machine, median, memory_mb, note, parser, save, table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.guarded_daemon import AWAY, BUTTON, LAMP, VALVE, VALVE_SAFE, Scene  # noqa: E402
from support.waiting import until  # noqa: E402

TIMEOUT_S = 1.0
PATIENT_S = 60.0
BURN = "while True: pass"
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


def turns(pid: int) -> int:
    """How often this process has waited."""
    return int(Path(f"/proc/{pid}/status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])


def contact(scene: Scene) -> float:
    """Milliseconds from the contact of the emergency stop to the valve at safe, while the daemon hangs."""
    seen = len(scene.board.record())
    scene.freeze()
    scene.press()

    def at_s(**members: Any) -> float:
        found = [e["t"] for e in scene.board.record()[seen:] if members.items() <= e.items()]
        return float(found[0]) if found else 0.0

    valve = {"line": VALVE, "level": VALVE_SAFE, "by": "guard"}
    safe_s = until(lambda: at_s(**valve), "the valve at safe")
    closed_s = at_s(line=BUTTON, by="stimulus")
    scene.press(pressed=False)
    seen_at = turns(scene.guard())
    until(lambda: turns(scene.guard()) > seen_at + 3, "the guard has seen the contact open")
    scene.thaw()
    until(lambda: scene.daemon.ask("status")["emergency_stop"]["latched"], "the latch")
    scene.daemon.ask("release")
    return (safe_s - closed_s) * 1000


def contacts(rounds: int) -> list[dict[str, Any]]:
    """By how busy the machine is."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Scene(Path(folder), PATIENT_S) as scene:
        scene.start()
        slow = scene.daemon.ask("status")["guard"]["slow"]
        for burners in (0, 2):
            burning = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(burners)]
            try:
                taken = []
                for turn in range(rounds):
                    until(
                        lambda: (
                            scene.daemon.ask("set", device="valve", values=AWAY["valve"])["state"] == "done"
                        ),
                        "the valve on",
                    )
                    taken.append(contact(scene))
                    note(f"contact, {burners} burners, round {turn + 1}: {taken[-1]:.1f} ms")
            finally:
                for process in burning:
                    process.kill()
                    process.wait()
            found.append({"burners": burners, "slow": slow, "ms": taken})
    return found


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
    stops = contacts(2 if given.smoke else 3 * size.rounds)
    rows = [(r["burners"], median(r["ms"]), max(r["ms"]), r["slow"] or "nothing") for r in stops]
    table("contact of the stop to safe, ms, daemon stopped", ("burners", "p50", "worst", "not allowed"), rows)
    row = [costs[0][name] for name in ("rss_mb", "own_mb", "cpu_percent")]
    table("the guard", ("resident MB", "of its own MB", "CPU %"), [row])
    save(given.json, began, {"takeover": results, "contact": stops, "cost": costs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
