"""From an event to the safe level on the board: how long each kind takes, medians of several runs.

    python tests/benchmarks/bench_safety.py [--rounds N] [--json FILE] [--smoke]

The instant of the event is taken here (for link loss, from when the stand-in went silent), the instant of the
level is the board's own record; both are CLOCK_MONOTONIC.
"""

import signal
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from bench_measure import machine, note, parser, save, table
from bench_rig import Ours, Rig

from support.callers import Listening
from support.waiting import LIMIT_S, until

LINE, SAFE = 27, 0
GRACE_S = 1.0
MAX_ON_S = 0.5

VALVE_TOML = f"""
[safety]
lease_idle_s = 60
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = {LINE}
safe = false
[devices.pump]
driver = "gpio-output"
bus = "pins"
line = 22
safe = false
max_on_s = {MAX_ON_S}
[streams.readings]
direction = "bidirectional"
devices = ["valve", "pump"]
link_loss_grace_s = {GRACE_S}
[access]
drive = "anyone"
"""


class Actor:
    """A caller's session that drives, and the board's record of what came of it."""

    def __init__(self, rig: Rig, ours: Ours) -> None:
        self.rig = rig
        self.ours = ours
        self._number = 0
        self.session: Any = None
        self.heard: Any = None

    def drive(self, device: str) -> int:
        """In a new session, away from safe; how long the record is then."""
        self.session = self.rig.client.send_message(agent_name=self.ours.agent, task_kind="pipe", duration=30)
        heard = self.heard = Listening(self.session.wait_for_stream("readings", timeout=LIMIT_S))
        heard.wait("control", about="session")
        self._number += 1
        ack = heard.command(kind="set", id=f"b{self._number}", device=device, values={"on": True})
        assert ack["state"] == "done", ack
        return self._length()

    def _length(self) -> int:
        assert self.ours.board is not None
        return len(self.ours.board.record())

    def safe_at_s(self, since: int, line: int = LINE) -> float:
        """When the line was at its safe level, first after that place in the record."""
        board = self.ours.board
        assert board is not None

        def found() -> list[dict[str, Any]]:
            entries = board.record()[since:]
            return [
                e for e in entries if e.get("line") == line and e["level"] == SAFE and e["by"] == "daemon"
            ]

        return float(until(found, "the safe level")[0]["t"])

    def end(self) -> None:
        self.session.cancel()
        self.session.wait_for_terminal(LIMIT_S)


def session_end(actor: Actor) -> float:
    """From the caller's cancel, over the network, to the level."""
    since = actor.drive("valve")
    began_s = time.monotonic()
    actor.session.cancel()
    taken_s = actor.safe_at_s(since) - began_s
    actor.session.wait_for_terminal(LIMIT_S)
    return taken_s


def emergency_stop(actor: Actor) -> float:
    """From the question at the control socket to the level."""
    since = actor.drive("valve")
    began_s = time.monotonic()
    actor.ours.daemon.ask("estop")
    taken_s = actor.safe_at_s(since) - began_s
    actor.ours.daemon.ask("release")
    actor.end()
    return taken_s


def stop_event(actor: Actor) -> float:
    """From a caller's `stop`, over the network, to the level."""
    since = actor.drive("valve")
    began_s = time.monotonic()
    actor.heard.stream.write({"kind": "stop", "id": f"stop{since}"})
    taken_s = actor.safe_at_s(since) - began_s
    actor.ours.daemon.ask("release")
    actor.end()
    return taken_s


def max_on(actor: Actor) -> float:
    """How much later than `max_on_s` after the line left safe."""
    since = actor.drive("pump") - 1
    board = actor.ours.board
    assert board is not None
    back_s = actor.safe_at_s(since, 22)
    entries = [e for e in board.record() if e.get("line") == 22]
    left_s = [e["t"] for e in entries if e["level"] != SAFE and e["t"] < back_s][-1]
    actor.end()
    return float(back_s - left_s - MAX_ON_S)


def link_loss(actor: Actor) -> float:
    """From the silence of the network to the level, with its grace of 1 s in it."""
    since = actor.drive("valve")
    began_s = time.monotonic()
    actor.rig.net.call("add_fault", kind="blackhole", link=actor.ours.link)
    taken_s = actor.safe_at_s(since) - began_s
    actor.rig.net.call("heal")
    actor.end()
    return taken_s


def stopped(actor: Actor) -> float:
    """From SIGTERM to the level; the daemon is started again."""
    since = actor.drive("valve")
    began_s = time.monotonic()
    actor.ours.process.send_signal(signal.SIGTERM)
    taken_s = actor.safe_at_s(since) - began_s
    actor.ours.process.wait(LIMIT_S)
    actor.ours.start()
    actor.ours.ready()
    actor.end()
    return taken_s


EVENTS: dict[str, Callable[[Actor], float]] = {
    "session end": session_end,
    "emergency stop": emergency_stop,
    "emergency stop by a caller's event": stop_event,
    f"max_on_s, beyond its {MAX_ON_S:g} s": max_on,
    f"link loss, with its grace of {GRACE_S:g} s": link_loss,
    "SIGTERM": stopped,
}


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    rounds = 1 if given.smoke else given.rounds or 7
    began = machine()
    results = []
    with Rig() as rig:
        actor = Actor(rig, rig.ours(VALVE_TOML, simulated=True, rate_hz=0))
        for name, measure in EVENTS.items():
            taken_ms = []
            for turn in range(rounds):
                taken_ms.append(measure(actor) * 1000)
                note(f"{name} round {turn + 1}: {taken_ms[-1]:.1f} ms")
            results.append(
                {
                    "event": name,
                    "rounds": rounds,
                    "median_ms": statistics.median(taken_ms),
                    "worst_ms": max(taken_ms),
                }
            )
    table(
        "From event to safe level",
        ("event", "rounds", "median ms", "worst ms"),
        [[entry[key] for key in ("event", "rounds", "median_ms", "worst_ms")] for entry in results],
    )
    save(given.json, began, {"safety": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
