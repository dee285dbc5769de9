"""The running demo: what its caller sees, weather and door, and what a person does to them."""

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from device_agent.cli.call_client import AgentCaller, AgentSession, SessionEnd, hush, sdk, use_local_network
from device_agent.cli.demo_world import (
    AGENT,
    CLIMATE,
    DOOR,
    DOOR_LINE,
    KEY,
    LINK_GRACE_S,
    ROWS,
    TANK,
    VALVE,
    TableRow,
    World,
)
from device_agent.cli.point_table import Trace
from device_agent.cli.show import mapping, value_text
from device_agent.errors import AgentError

LOG_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Note:
    """An entry of the log. `style` is a colour's name."""

    at_s: float
    text: str
    style: str = ""


class View:
    """Takes the session's events; reports what they mean through `on_note`."""

    def __init__(self, on_note: Callable[[Note], None] | None = None) -> None:
        self.traces = {(row.device, row.point): Trace() for row in ROWS}
        self.states: dict[str, str] = {}
        self.notes: deque[Note] = deque(maxlen=LOG_LENGTH)
        self.readings = 0
        self.late = 0
        self.late_at_s = 0.0
        self.verified = 0
        self.ack_at_s = 0.0
        self.ack_ms = 0.0
        self.lost = 0
        self.sent: dict[str, tuple[float, bool]] = {}
        self._on_note = on_note
        self._last_seq = 0
        self._held: set[int] = set()

    def note(self, text: str, style: str = "") -> None:
        """Add a line to the log."""
        note = Note(time.monotonic(), text, style)
        self.notes.append(note)
        if self._on_note is not None:
            self._on_note(note)

    def trace(self, device: str, point: str) -> Trace:
        return self.traces[device, point]

    @property
    def missing(self) -> int:
        """How many sequence numbers up to the newest have not arrived (yet)."""
        return self._last_seq - len(self._held) if self._held else 0

    # -- in ----------------------------------------

    def take(self, event: Mapping[str, Any], at_s: float) -> None:
        """One event of the session."""
        seq = event.get("seq")
        if isinstance(seq, int):
            self._last_seq = max(self._last_seq, seq)
            self._held.add(seq)
        match event.get("kind"):
            case "reading":
                self._reading(event, at_s)
            case "status":
                self._status(event)
            case "ack":
                self._ack(event, at_s)
            case "gap":
                self.lost += int(event.get("count") or 0)
                self.note(f"{event.get('count')} readings were lost: {event.get('reason')}", "red")

    def _reading(self, event: Mapping[str, Any], at_s: float) -> None:
        self.readings += 1
        late = event.get("late") is True
        if late:
            if at_s - self.late_at_s > 5:
                self.note("the first of the waiting readings has arrived, marked late", "green")
            self.late += 1
            self.late_at_s = at_s
        for point, value in mapping(event.get("values")).items():
            trace = self.traces.get((str(event.get("device")), point))
            if trace is None or (late and at_s - trace.at_s < 5):
                continue  # an old value does not go over a new one
            before = trace.value
            trace.take(value, at_s)
            if event.get("device") == DOOR and isinstance(before, bool) and before is not value:
                self._door(bool(value), time.time() - event.get("at", 0) / 1000)

    def _door(self, opened: bool, age_s: float) -> None:
        if age_s > 3:
            self.note(
                f"the door {'opened' if opened else 'closed'} {age_s:.0f} s ago, while the link was cut"
            )
        else:
            act = "opens" if opened else "closes"
            self.note(f"the door {act}: an edge on pin {DOOR_LINE}, sent at once")

    def _status(self, event: Mapping[str, Any]) -> None:
        device, state = str(event.get("device")), str(event.get("state"))
        before = self.states.get(device, "online")
        self.states[device] = state
        if state != "online":
            reason = str(event.get("reason") or "").replace("_", " ")
            self.note(f"the caller is told: {device} is {state}{reason and f' ({reason})'}", "yellow")
        elif before != "online":
            self.note(f"the caller is told: {device} is online again", "green")

    def _ack(self, event: Mapping[str, Any], at_s: float) -> None:
        sent_s, wanted = self.sent.pop(str(event.get("id")), (at_s, False))
        self.ack_at_s, self.ack_ms = at_s, (at_s - sent_s) * 1000
        act = "open" if wanted else "close"
        if event.get("state") == "done":
            seen = ", read back from the pin" if event.get("verified") is True else ""
            self.verified += event.get("verified") is True
            if event.get("verified") is True:
                trace = self.traces[VALVE, "on"]
                trace.value, trace.at_s = mapping(event.get("applied")).get("on"), at_s
            self.note(f"ack: {act} valve: done{seen}, {self.ack_ms:.0f} ms", "green")
        else:
            fault = mapping(event.get("error"))
            why = fault.get("message", "no reason given")
            self.note(f"ack: {act} valve: {event.get('state')} ({why})", "red")


def number_text(row: TableRow, value: Any) -> str:
    """A value as the table shows it."""
    if value is None:
        return "-"
    if row.device == DOOR:
        return "open" if value else "closed"
    if row.device == VALVE:
        return "OPEN" if value else "closed"
    if isinstance(value, int | float):
        return f"{value:.{row.digits}f}"
    return value_text(value)


OPEN_LIMIT_S = 60.0
SESSION_MIN = 720
STATUS_EVERY_S = 0.4
WORLD_EVERY_S = 0.25
TANK_EVERY_S = 1.0
DOOR_PERIOD_S, DOOR_OPEN_S = 13.0, 3.0


class Nature:
    """Weather, a door, water that runs while the valve is open. Moves the board's chips as time passes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._began_s = self._then_s = time.monotonic()
        self._tank_s = 0.0
        self._door = False
        self._humidity = 47.0
        self._water = 18.0

    def step(self, valve_open: bool) -> None:
        now_s = time.monotonic()
        passed_s, self._then_s = now_s - self._then_s, now_s
        t = now_s - self._began_s
        self._humidity += ((72.0 if valve_open else 47.0) - self._humidity) * (1 - math.exp(-passed_s / 12))
        self._water = max(0.0, min(20.0, self._water + passed_s * (-0.15 if valve_open else 0.03)))
        quantities = {
            "temperature": 22 + 1.6 * math.sin(t / 7) + 0.25 * math.sin(t * 1.9) - (self._humidity - 47) / 20,
            "humidity": self._humidity + 0.4 * math.sin(t * 1.3),
            "pressure": 1013.2 + 0.8 * math.sin(t / 20),
        }
        self._world.board("set", CLIMATE, quantities)
        if now_s - self._tank_s >= TANK_EVERY_S:
            self._tank_s = now_s
            weight = round(self._water + 0.01 * math.sin(t * 3), 2)
            self._world.board("set", TANK, {"weight": weight})
        door = t % DOOR_PERIOD_S > DOOR_PERIOD_S - DOOR_OPEN_S
        if door != self._door:
            self._door = door
            self._world.board("pin", "pins", DOOR_LINE, door)


class Play:
    """Everything that runs. `step` is called about ten times a second and never waits long."""

    def __init__(self, world: World, session: AgentSession, view: View) -> None:
        self.world = world
        self.session = session
        self.view = view
        self.unplugged = False
        self.cut_at_s = 0.0
        self.restored_at_s = 0.0
        self.unplugged_at_s = 0.0
        self.status: Mapping[str, Any] = {}
        self.valve_open = False
        self._safe_said = False
        self._nature = Nature(world)
        self._status_s = self._world_s = 0.0

    def step(self) -> None:
        """Take new events, move the world, check daemon and pin. Raises AgentError."""
        while (item := self.session.get(0)) is not None:
            if isinstance(item, SessionEnd):
                raise AgentError(f"the session has ended: {item.state} {item.reason}".rstrip())
            if isinstance(item.payload, dict):
                self.view.take(item.payload, item.at_s)
        now_s = time.monotonic()
        if now_s - self._world_s >= WORLD_EVERY_S:
            self._world_s = now_s
            self._look_at_pin()
            self._nature.step(self.valve_open)
        if now_s - self._status_s >= STATUS_EVERY_S:
            self._status_s = now_s
            self.status = self.world.status() or {}

    def _look_at_pin(self) -> None:
        before, self.valve_open = self.valve_open, bool(self.world.valve_open())
        if before and not self.valve_open and self.world.cut and not self._safe_said:
            self._safe_said = True
            self.view.note(
                f"{LINK_GRACE_S} s without link: the daemon has closed the valve by itself", "yellow"
            )

    # -- what the daemon says of itself ----------------------------------------

    @property
    def waiting(self) -> int:
        """Events that the daemon keeps until the link is back."""
        return int(self.status.get("outbox", {}).get("events", 0))

    @property
    def devices_well(self) -> tuple[int, int]:
        devices = self.status.get("devices", [])
        return sum(device["state"] == "online" for device in devices), len(devices)

    # -- what a person does ----------------------------------------

    def toggle_valve(self) -> None:
        """A command from the caller; its ack comes as an event."""
        # A command that is still under way counts as carried out: two quick keys open and close.
        under_way = [wanted for _, wanted in self.view.sent.values()]
        wanted = not (under_way[-1] if under_way else self.valve_open)
        id_ = secrets.token_hex(4)
        self.view.sent[id_] = time.monotonic(), wanted
        self.view.note(f"the caller asks: {'open' if wanted else 'close'} the valve", "cyan")
        command = {"kind": "set", "id": id_, "device": VALVE, "values": {"on": wanted}}
        self.session.write("live", command)

    def toggle_sensor(self) -> None:
        self.unplugged = not self.unplugged
        self.unplugged_at_s = time.monotonic()
        self.view.note(
            "somebody pulls out the climate sensor"
            if self.unplugged
            else "the climate sensor is plugged in again",
            "magenta",
        )
        self.world.board("fault", "i2c1", "unplug" if self.unplugged else "replug", None, CLIMATE)

    def toggle_link(self) -> None:
        if self.world.cut:
            self.world.restore_link()
            self.restored_at_s = time.monotonic()
            self.view.note("the link is back", "magenta")
        else:
            self._safe_said = False
            self.world.cut_link()
            self.cut_at_s = time.monotonic()
            self.view.note("somebody cuts the daemon's link to the network", "magenta")


class Starting:
    """Starts everything and reports each step. The caller loads while the processes start."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._failed: BaseException | None = None
        self._caller: AgentCaller | None = None

    def run(self) -> tuple[AgentCaller, AgentSession]:
        world = self._world
        self._say(f"a network of its own     on 127.0.0.1:{world.port}, nothing leaves this computer")
        self._say("a simulated board        sensors and a valve, on I2C, GPIO and a serial port")
        use_local_network(f"http://127.0.0.1:{world.port}")
        hush(world.log)
        thread = threading.Thread(target=self._load, name="caller-start", daemon=True)
        thread.start()
        world.wait_joined()
        self._say(f"the daemon               has joined the network as {AGENT}")
        thread.join(OPEN_LIMIT_S)
        if self._caller is None:
            raise self._failed or AgentError(f"the caller did not start within {OPEN_LIMIT_S:g} s")
        session = self._caller.open({}, SESSION_MIN)
        try:
            session.wait_open(OPEN_LIMIT_S)
        except BaseException:
            session.close()
            raise
        self._say("a caller                 on the official SDK has opened a session")
        return self._caller, session

    def _load(self) -> None:
        try:
            self._caller = AgentCaller(AGENT, KEY)
        except AgentError as error:
            self._failed = error


def load_sdk_early() -> None:
    """Raises AgentError where it is missing; else imports it beside what comes next."""
    import importlib.util

    if importlib.util.find_spec("blocks_network") is None:
        sdk()
    threading.Thread(target=sdk, name="sdk-import", daemon=True).start()
