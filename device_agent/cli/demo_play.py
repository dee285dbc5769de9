"""The demo at work: a caller's session, a world that moves by itself, and what a person does to both."""

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from device_agent.cli import demo_scene as scene
from device_agent.cli.call_client import Caller, Ended, Session
from device_agent.cli.call_sdk import hush, sdk, use_local_network
from device_agent.cli.demo_view import View
from device_agent.cli.demo_world import World
from device_agent.errors import AgentError

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
        self._world.board("set", scene.CLIMATE, quantities)
        if now_s - self._tank_s >= TANK_EVERY_S:
            self._tank_s = now_s
            weight = round(self._water + 0.01 * math.sin(t * 3), 2)
            self._world.board("set", scene.TANK, {"weight": weight})
        door = t % DOOR_PERIOD_S > DOOR_PERIOD_S - DOOR_OPEN_S
        if door != self._door:
            self._door = door
            self._world.board("pin", "pins", scene.DOOR_LINE, door)


class Play:
    """Everything that runs. `step` is called about ten times a second and never waits long."""

    def __init__(self, world: World, session: Session, view: View) -> None:
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
        """Take what has come, move the world, look at the daemon and the pin. Raises AgentError."""
        while (item := self.session.get(0)) is not None:
            if isinstance(item, Ended):
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
                f"{scene.LINK_GRACE_S} s without link: the daemon has closed the valve by itself", "yellow"
            )

    # -- what the daemon says of itself ----------------------------------------

    @property
    def link_up(self) -> bool:
        return bool(self.status.get("link", {}).get("up", True))

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
        # A command that is still under way counts as carried out: two quick keys are there and back.
        under_way = [wanted for _, wanted in self.view.sent.values()]
        wanted = not (under_way[-1] if under_way else self.valve_open)
        id_ = secrets.token_hex(4)
        self.view.sent[id_] = time.monotonic(), wanted
        self.view.note(f"the caller asks: {'open' if wanted else 'close'} the valve", "cyan")
        command = {"kind": "set", "id": id_, "device": scene.VALVE, "values": {"on": wanted}}
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
        self.world.board("fault", "i2c1", "unplug" if self.unplugged else "replug", None, scene.CLIMATE)

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
    """Brings everything up, with a word about each step. The caller loads while the processes start."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._failed: BaseException | None = None
        self._caller: Caller | None = None

    def run(self) -> tuple[Caller, Session]:
        world = self._world
        self._say(f"a network of its own     on 127.0.0.1:{world.port}, nothing leaves this computer")
        self._say("a simulated board        sensors and a valve, on I2C, GPIO and a serial port")
        use_local_network(f"http://127.0.0.1:{world.port}")
        hush(world.log)
        thread = threading.Thread(target=self._load, name="caller-start", daemon=True)
        thread.start()
        world.wait_joined()
        self._say(f"the daemon               has joined the network as {scene.AGENT}")
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
            self._caller = Caller(scene.AGENT, scene.KEY)
        except AgentError as error:
            self._failed = error


def load_sdk_early() -> None:
    """Raises AgentError where it is missing; else imports it beside what comes next."""
    import importlib.util

    if importlib.util.find_spec("blocks_network") is None:
        sdk()
    threading.Thread(target=sdk, name="sdk-import", daemon=True).start()
