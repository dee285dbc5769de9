"""The daemon's side of the guard: keeps one running, hands over how each actuator is made safe, beats.

It also notices when the daemon itself has stood still: then nothing is known of any actuator, nothing may be
driven, and everything is made safe first.
"""

import asyncio
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import structlog

from device_agent.background import BackgroundTasks, Backoff
from device_agent.bus.recipe import Recipe
from device_agent.devices.actuator_hooks import ActuatorHooks
from device_agent.devices.context import Context
from device_agent.driver import Driver
from device_agent.errors import BusHeld
from device_agent.guard import PROTOCOL
from device_agent.safety.guard_connection import GuardConnection, GuardGone, Message, ask_guard, find_or_start
from device_agent.safety.leases import Leases
from device_agent.safety.permit import MotionPermit
from device_agent.safety.safe_recorder import open_and_record, open_and_watch, recorded
from device_agent.safety.safe_states import SafeStates

log = structlog.get_logger("guard")

# Beats in one guard_timeout_s: three may come late before the fourth is missed.
BEATS = 4
# A guard that has not answered for this long hangs; a slow board needs a second or two to start one.
GUARD_LIMIT_S = 10.0
AGAIN_FIRST_S = 0.2
AGAIN_MAX_S = 10.0
LOST_LIMIT_S = 0.3
# Below what one message may be (`guard.channel`).
KEEP_MAX_BYTES = 100_000
RULE_MAX = 500
# No call that moves something takes longer without being unknown, which counts as away from safe.
CALM_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class GuardSettings:
    folder: Path
    """Where its socket is, or will be made."""
    timeout_s: float
    """After so long without a beat the guard acts (`guard_timeout_s`)."""
    log_style: str
    stop_device: str | None = None
    stop_active: bool = True
    """The emergency stop's input, and the level at which it is pressed."""


def _sees_holders(driver: Driver[Any, Any]) -> bool:
    return bool(getattr(getattr(driver.bus, "inner", None), "sees_holders", True))


class GuardClient(ActuatorHooks):
    """Hands over how each actuator is made safe, and beats. `start` it before any device is opened, and call
    `bye` when all are safe at the end."""

    def __init__(
        self,
        context: Context,
        permit: MotionPermit,
        safe_states: SafeStates,
        leases: Leases,
        settings: GuardSettings,
        on_stop: Callable[[str], Awaitable[Any]],
    ) -> None:
        """`on_stop`: the guard has seen the emergency stop pressed; by whom."""
        self._devices = context.devices
        self._permit = permit
        self._safe_states = safe_states
        self._leases = leases
        self._journal = context.journal
        self._clock = context.clock
        self._settings = settings
        self._on_stop = on_stop
        self._timeout_s = settings.timeout_s
        self._guarded: set[str] = set()
        self._background = BackgroundTasks("guard")
        self._link: GuardConnection | None = None
        self._broken = asyncio.Event()
        self._ended: list[subprocess.Popen[bytes]] = []
        self._recipes: dict[str, list[Recipe]] = {}
        self._held: set[str] = set()
        """Devices whose lines the guard may hold although nobody has them open here."""
        self._acks: dict[str, asyncio.Future[None]] = {}
        self._beats = self._beats_answered = 0
        self._recovery = 0
        self._saying = threading.Lock()
        self._moved_s = -inf
        permit.standstill.before_motions(self._say_that_it_moves)
        self._started = self._stopped = False
        self._slow = ""
        self.restarts = 0
        self.takeovers = 0

    # -- connection ----------------------------------------

    async def start(self) -> None:
        """Find or start a guard. If that fails it is logged and tried again; the daemon goes on."""
        self._permit.standstill.beat()
        self._guarded = self._actuators()
        if not self._guarded:
            return
        self._started = True
        await self._connect()
        self._background.run_forever("link", self._keep_link)
        self._background.run_forever("beat", self._beat_forever)

    def _actuators(self) -> set[str]:
        return {name for name, device in self._devices.items() if device.is_actuator}

    async def follow(self) -> None:
        """The configuration changed, and with it the actuators."""
        before, self._guarded = self._guarded, self._actuators()
        for name in before - self._guarded:
            # Its line may be another device's now.
            self._held.discard(name)
            self._send({"op": "forget", "device": name})
        if not self._started:
            await self.start()

    async def bye(self, made_safe: Mapping[str, bool]) -> None:
        """The orderly end: what is not safe by now is the guard's to do. Nothing can be driven any more."""
        self._stopped = True
        self._permit.stop()
        self._permit.standstill.stop()
        await self._background.close()
        if self._link is not None:
            away = self._safe_states.away(self._guarded)
            safe = [name for name, done in made_safe.items() if done and name not in away]
            self._send({"op": "bye", "safe": safe})
            self._part("the daemon ends")

    async def until_gone(self, limit_s: float) -> None:
        """After `bye`: a child that has nothing left to do has ended when this returns."""
        ends_s = self._clock.monotonic_s() + limit_s
        while self._clock.monotonic_s() < ends_s:
            self._ended = [process for process in self._ended if process.poll() is None]
            if not self._ended:
                return
            await asyncio.sleep(0.01)

    def status(self) -> dict[str, Any]:
        """For `status`."""
        link = self._link
        return {
            "up": link is not None,
            "child": link is not None and link.process is not None,
            "restarts": self.restarts,
            "takeovers": self.takeovers,
            "devices": sorted(name for name in self._guarded if self._recipes.get(name)),
            "stop_input": bool(self._recipes.get(self._settings.stop_device or "")),
            "slow": "" if link is None else self._slow,
        }

    async def _keep_link(self) -> None:
        backoff, why = Backoff(AGAIN_FIRST_S, AGAIN_MAX_S, jitter=0.0), ""
        while True:
            if self._link is None:
                await asyncio.sleep(backoff.next_s())
                why = await self._connect(why)
                continue
            backoff.reset()
            await self._broken.wait()
            self.restarts += 1

    async def _connect(self, logged: str = "") -> str:
        """Why there is no guard; "" when there is one. What was `logged` before is not logged again."""
        hello = {
            "op": "hello",
            "protocol": PROTOCOL,
            "timeout_s": self._timeout_s,
            "devices": sorted(self._guarded),
        }
        try:
            link, welcome = await find_or_start(self._settings.folder, hello, self._settings.log_style)
        except (GuardGone, OSError) as error:
            if str(error) != logged:
                log.error("no_guard", why=str(error), meaning="actuators stay as they are if the daemon dies")
            return str(error)
        self._link = link
        self._broken.clear()
        self._beats_answered = self._beats
        asyncio.get_running_loop().add_reader(link.fileno(), self._readable)
        if welcome is not None:
            self._take(welcome)
        for name in self._recipes:
            self._hand_over(name)
        self._beat()
        return ""

    def _part(self, why: str) -> None:
        """This link is over; a child that hangs is ended, so that it cannot act later."""
        link, self._link = self._link, None
        if link is None:
            return
        asyncio.get_running_loop().remove_reader(link.fileno())
        link.close()
        if link.process is not None:
            if not self._stopped:
                link.process.kill()
            self._ended.append(link.process)
        if not self._stopped:
            log.error("guard_lost", why=why, restarts=self.restarts)
        self._broken.set()

    # -- messages ----------------------------------------

    def _send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        if self._link is not None:
            try:
                self._link.send(message, fds)
            except GuardGone as error:
                self._part(str(error))

    def _readable(self) -> None:
        if self._link is None:
            return
        try:
            messages = self._link.drain()
        except GuardGone as error:
            self._part(str(error))
            return
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        match message["op"]:
            case "welcome":
                self._held |= set(message["held"])
                self._slow = message.get("slow", "")
                if self._slow:
                    log.info(
                        "guard_without_precedence",
                        why=self._slow,
                        meaning="it may act late when all processors are busy",
                    )
                self._note(message["report"])
                self._latch(message.get("stopped", ""))
            case "beat":
                self._beats_answered = message["n"]
            case "took":
                self._recover(message["why"])
                self._latch(message.get("stopped", ""))
            case "report":
                self._note(message["report"])
            case "lost":
                ack = self._acks.pop(message["device"], None)
                if ack is not None and not ack.done():
                    ack.set_result(None)
            case "refused":
                self._part(message["why"])

    def _latch(self, stopped: str) -> None:
        async def latch() -> None:
            await self._on_stop(f"the line of {stopped}")
            self._send({"op": "latched"})

        if stopped:
            self._background.spawn("stop", latch())

    def _note(self, report: list[dict[str, Any]]) -> None:
        """What the guard did belongs into the Journal."""
        for act in report:
            device, result, why = act["device"], act["result"], act["why"]
            self._journal.actuation(act["at_ms"], "guard", device, "safe", result, why[:RULE_MAX])
            log.warning("guard_made_safe", device=device, result=result, why=why)
        if report:
            self._send({"op": "noted", "count": len(report)})

    def _hand_over(self, name: str) -> None:
        recipes = self._recipes.get(name, [])
        if not recipes:
            return
        acts = [
            {
                "kind": recipe.kind,
                **recipe.members,
                "fd": recipe.fd >= 0,
                "hold": recipe.hold,
                "exclusive": recipe.exclusive,
            }
            for recipe in recipes
        ]
        message = {"op": "keep", "device": name, "place": self._devices[name].bus.name, "acts": acts}
        self._send(message, tuple(recipe.fd for recipe in recipes if recipe.fd >= 0))

    # -- beats ----------------------------------------

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(self._timeout_s / BEATS)
            self._readable()  # a guard that took over has said so: that is one event with our own gap
            gap_s = self._permit.standstill.silent_s()
            if gap_s > self._timeout_s and not self._is_calm():
                self._recover(f"the daemon stood still for {gap_s:.1f} s")
            self._permit.standstill.beat()
            self._beat()
            unanswered_s = (self._beats - self._beats_answered) * self._timeout_s / BEATS
            if unanswered_s > max(GUARD_LIMIT_S, 3 * self._timeout_s):
                self._part(f"it has not answered for {unanswered_s:.0f} s")
            self._ended = [process for process in self._ended if process.poll() is None]

    def _beat(self) -> None:
        if self._link is not None:
            self._beats += 1
            with self._saying:
                message = {"op": "beat", "n": self._beats, "calm": self._is_calm()}
                error = self._try_to_send(message)
            if error:
                self._part(error)

    def _is_calm(self) -> bool:
        """Whether everything is safe and nothing about to move: then the guard need not act on a silence."""
        rested_s = self._clock.monotonic_s() - self._moved_s
        return rested_s > CALM_AFTER_S and not self._safe_states.away(self._safe_states.limits)

    def _say_that_it_moves(self) -> None:
        """On the thread of a bus, before the write: no beat that says `calm` can come after this."""
        with self._saying:
            self._moved_s = self._clock.monotonic_s()
            self._try_to_send({"op": "moves"})

    def _try_to_send(self, message: Message) -> str:
        """Why it could not be sent; "" if it was."""
        link = self._link
        try:
            if link is not None:
                link.send(message)
        except GuardGone as error:
            return str(error)
        return ""

    def _recover(self, why: str) -> None:
        """The guard has acted, or may have: leases end, and nothing is driven before it is safe."""
        self.takeovers += 1
        self._recovery += 1
        self._permit.standstill.begin(self._guarded)
        self._leases.clear()
        log.critical("actuators_unknown", why=why)
        # From here on it is our work again, and a hang in the middle of it the guard's.
        self._send({"op": "back"})
        for name in self._guarded:
            self._background.spawn(f"safe {name}", self._make_safe(name, self._recovery, why))

    async def _make_safe(self, name: str, recovery: int, why: str) -> None:
        await self._safe_states.make_safe(name, why)
        if recovery == self._recovery:
            self._permit.standstill.end(name)

    # -- ActuatorHooks ----------------------------------------

    def handle(self, handle: Any) -> Any:
        return recorded(handle)

    def concerns(self, device: str, *, is_actuator: bool) -> bool:
        return is_actuator or device == self._settings.stop_device

    def open(self, device: str, driver: Driver[Any, Any]) -> list[Recipe]:
        """The guard lets go of a line when nothing else keeps it from being taken, and not before."""
        if device == self._settings.stop_device and not self._devices[device].is_actuator:
            return open_and_watch(device, driver, active=self._settings.stop_active)
        link = self._link
        if link is not None and device in self._held and not _sees_holders(driver):
            recipes = self._taken_over(link.path, device, driver)
        else:
            try:
                recipes = open_and_record(device, driver)
            except BusHeld:
                if link is None:
                    raise
                driver.close()  # what it has of the others
                recipes = self._taken_over(link.path, device, driver)
        if sum(len(repr(recipe.members)) for recipe in recipes) > KEEP_MAX_BYTES:
            log.warning("not_guarded", device=device, why="its way to safe is too long")
            return []
        return recipes

    def _taken_over(self, path: Path, device: str, driver: Driver[Any, Any]) -> list[Recipe]:
        ask_guard(path, "release", device)
        try:
            recipes = open_and_record(device, driver)
        except Exception:
            driver.close()
            ask_guard(path, "take back", device)
            raise
        self._held.discard(device)
        return recipes

    def opened(self, device: str, made: list[Recipe]) -> None:
        self._recipes[device] = made
        self._hand_over(device)

    async def closed(self, device: str) -> None:
        recipes = self._recipes.pop(device, [])
        if recipes and self._link is not None and not self._stopped:
            if device in self._guarded:
                self._held.add(device)
            ack = self._acks[device] = asyncio.get_running_loop().create_future()
            self._send({"op": "lost", "device": device})
            await asyncio.wait([ack], timeout=LOST_LIMIT_S)
        for recipe in recipes:
            recipe.close()
