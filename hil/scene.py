"""The agent of the scenarios: what every rig may have, of which a rig gives what is wired to it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rigs import LevelChange, Rig

from device_agent.testing.network import NetworkThread
from support.callers import Listening, pipe, stream
from support.deployment import World
from support.processes import Daemon
from support.waiting import LIMIT_S, SLOWNESS, until

DEBOUNCE_S = 0.05
GRACE_S = 2.0 * SLOWNESS

HEAD = """
[agent]
name = "greenhouse_7"
display_name = "Greenhouse 7"
description = "The device under test."
organization = "Example Farm"
tags = ["greenhouse"]
task_kinds = ["pipe"]

[network]
cdm_url = "{cdm_url}"
pubnub_origin = "{origin}"
pubnub_tls = false
publish_rate_hz = 0

[state]
directory = "{folder}/state"

[access]
drive = ["user:user_alice"]
"""

PARTS = {
    "sensor": """
[buses.i2c1]
kind = "i2c"
device = "{i2c}"
timeout_s = 0.5
[devices.sensor]
driver = "{sensor}"
bus = "i2c1"
address = {address}
every_s = 0.2
""",
    "gpio": """
[buses.pins]
kind = "gpio"
chip = "{chip}"
""",
    "door": f"""
[devices.door]
driver = "gpio-input"
bus = "pins"
line = {{door}}
debounce_s = {DEBOUNCE_S}
""",
    "relay": """
[devices.relay]
driver = "gpio-output"
bus = "pins"
line = {relay}
active_low = true
safe = false
""",
    "serial": """
[buses.meter]
kind = "serial"
port = "{port}"
baud = {baud}
[devices.scale]
driver = "serial-lines"
bus = "meter"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+) g$'
[devices.scale.points]
weight = {{ unit = "g", low = -1000, high = 1000 }}
""",
}
DEVICES = {"sensor": "sensor", "door": "door", "relay": "relay", "serial": "scale"}


def configuration(rig: Rig) -> str:
    """A template for the agent of this rig."""
    has = rig.abilities()
    parts = [name for name in PARTS if name in has or (name == "gpio" and has & {"door", "relay"})]
    devices = [device for ability, device in DEVICES.items() if ability in has]
    direction = "bidirectional" if "relay" in has else "outbound"
    streams = (
        f'\n[streams.control]\ndirection = "{direction}"\n'
        f"devices = {devices}\nlink_loss_grace_s = {GRACE_S}\n"
    )
    return HEAD + "".join(PARTS[name] for name in parts) + streams


class Scene:
    """The daemon at work on a rig, and the session of an official caller."""

    def __init__(self, world: World, rig: Rig, link: str, client: Any) -> None:
        self.world = world
        self.rig = rig
        self.link = link
        running = bool(world.daemons) and world.daemon.process.poll() is None
        self.daemon: Daemon = world.daemon if running else world.start()
        if "serial" in rig.abilities():
            self.until(self._scale_is_heard, "the scale understood")
        self.session = pipe(client)
        self.events: Listening = stream(self.session, "control")
        self.wait("control", about="session")

    # -- what the caller sees ----------------------------------------

    def wait(self, kind: str, **members: Any) -> dict[str, Any]:
        """The first event like this."""
        return self.events.wait(kind, **members)

    def of(self, kind: str, **members: Any) -> list[dict[str, Any]]:
        return self.events.of(kind, **members)

    def after(self, mark: int, kind: str, **members: Any) -> list[dict[str, Any]]:
        """Those of `of` that came after the first `mark` events."""
        later = {id(event) for event in list(self.events.events)[mark:]}
        return [event for event in self.of(kind, **members) if id(event) in later]

    @property
    def mark(self) -> int:
        """How many events the caller has by now."""
        return len(self.events.events)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return until(condition, what)

    def fresh(self, device: str) -> dict[str, Any]:
        """A reading of the device that came after this call."""
        mark = self.mark
        self.until(lambda: self.after(mark, "reading", device=device), f"a reading of {device}")
        return self.after(mark, "reading", device=device)[0]

    def switch(self, on: bool, id_: str) -> dict[str, Any]:
        """Command the relay; the first ack. An id is remembered for a day, so it is the session's own."""
        values, ttl_ms = {"on": on}, round(5000 * SLOWNESS)
        return self.events.command(kind="set", id=self.own(id_), device="relay", values=values, ttl_ms=ttl_ms)

    def own(self, id_: str) -> str:
        return f"{self.session.task_id} {id_}"

    def _scale_is_heard(self) -> bool:
        """A device that talks by itself is online once it was understood."""
        self.rig.feed(b"W 0 g\n")
        return bool(self.daemon.device("scale")["state"] == "online")

    def weigh(self, weight: float) -> None:
        """The scale says this, as often as it takes (a port that is just being opened loses bytes)."""

        def seen() -> bool:
            self.rig.feed(f"W {weight} g\n".encode())
            time.sleep(0.02)
            return any(e["values"]["weight"] == weight for e in self.of("reading", device="scale"))

        self.until(seen, f"the weight {weight}")

    # -- what must be true at the end ----------------------------------------

    def check_nothing_lost(self) -> None:
        """Every number of the stream came, none twice; no gap was reported."""
        assert not self.of("gap")
        numbers = [event["seq"] for event in list(self.events.events)]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
        live = [event["seq"] for event in list(self.events.events) if not event.get("late")]
        assert live == sorted(live), "live events in another order than their numbers"

    def check_no_bug(self) -> None:
        """Faults of the hardware are no exceptions of the program."""
        bugs = [entry for daemon in self.world.daemons for entry in daemon.events() if "exception" in entry]
        assert not bugs, bugs[0]

    def end(self) -> None:
        """The caller ends the session."""
        self.session.cancel()
        assert self.session.wait_for_terminal(LIMIT_S)["state"] == "canceled"
        self.check_nothing_lost()
        self.check_no_bug()


@contextmanager
def stage(rig: Rig, net: NetworkThread, folder: Path, link: str) -> Iterator[World]:
    """A board, and a daemon yet to be started; `link` is the network's port that the daemon alone uses."""
    net.run(net.net.open_link(link))
    world = World(folder, net, config=configuration(rig), link=link, simulated=rig.simulated, **rig.options())
    with world, rig.running(world.board):
        yield world


def held(record: Sequence[LevelChange], debounce_s: float, present: bool) -> list[bool] | None:
    """The changes from `present` that held for `debounce_s`; None where one may have held for about as long.

    The last one is taken to hold.
    """
    changes: list[bool] = []
    for change, later in zip(record, [*record[1:], None], strict=True):
        held_s = float("inf") if later is None else later.t_s - change.t_s
        at_least_s = held_s - (0.0 if later is None else later.before_s)
        if at_least_s < 1.5 * debounce_s and held_s + change.before_s > 0.7 * debounce_s:
            return None
        if held_s > debounce_s and change.level is not present:
            present = change.level
            changes.append(present)
    return changes
