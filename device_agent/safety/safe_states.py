"""Keeps every actuator within its limits, and brings it to safe in all the moments of design section 7.

Who may drive is the executor's affair; what happens after is decided here, under the driver, whoever asked.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from device_agent.background import BackgroundTasks
from device_agent.devices.context import Context
from device_agent.devices.device import Device, WriteResult
from device_agent.errors import AgentError, Interlocked, Rejected
from device_agent.records import DeviceState, Reading, ReadingSubscriber, Status, Step, Value
from device_agent.safety.conditions import Conditions
from device_agent.safety.limits import Interlocks, Limits
from device_agent.store.journal.safe_transitions import SafeTransition

log = structlog.get_logger("safety")

# An actuator that does not obey is told again this often, until it does or is lost.
AGAIN_S = 0.2
# How long a changed configuration, or the end of a session, waits for actuators that do not obey.
LEAVE_LIMIT_S = 5.0


class SafeStates(ReadingSubscriber):
    """Owns the limits, the timers and the unfinished plans of all actuators."""

    def __init__(self, context: Context, may_move: Callable[[], None]) -> None:
        """`may_move` raises Rejected while nothing may move (the emergency stop)."""
        self._devices = context.devices
        self._journal = context.journal
        self._clock = context.clock
        self._obey_stop = may_move
        self._stopping = False
        self._background = BackgroundTasks("safety")
        self._driven_by: dict[str, str] = {}
        self._being_made_safe: set[str] = set()
        self._leaving: set[str] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._plans: dict[str, asyncio.Task[Any]] = {}
        self._interlocks = Interlocks()
        self._conditions = Conditions(context.devices)
        self._left: dict[str, Limits] = {}
        self.limits: dict[str, Limits] = {}

    # -- devices ----------------------------------------

    def adopt(self, device: Device) -> None:
        """Look after this device from now on."""
        name = device.name
        self._leaving.discard(name)
        self._turns[name] = asyncio.Lock()
        before = self._left.pop(name, None)
        self._interlocks.forget(name)
        if device.is_actuator:
            now_s = self._clock.monotonic_s()
            limits = self.limits[name] = Limits(
                name, device.config, device.safe_values, self._interlocks, now_s
            )
            if before is not None:
                limits.inherit(before)

    async def recall(self) -> None:
        """Limits go on where an earlier process left them."""
        for transition in await self._journal.transitions(self._clock.boot, self._clock.monotonic_s()):
            if transition.device in self.limits:
                self.limits[transition.device].recall([transition])

    async def leave(self, names: Iterable[str], why: str) -> None:
        """Make devices safe, all at once, and look after them no more; from now on nothing moves them. One
        that does not obey in time is left to its closing and to the guard."""
        gone = list(names)
        self._leaving |= set(gone)
        moving = [name for name in gone if name in self.limits]
        for name, safe in (await self.all_safe(why, LEAVE_LIMIT_S, moving)).items():
            if not safe:
                log.error("not_made_safe_at_reload", device=name)
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()
            self._left[name] = self.limits.pop(name)
        for name in gone:
            self._driven_by.pop(name, None)

    def forget(self, name: str) -> None:
        """The device that `leave` was called for does not come back."""
        self._left.pop(name, None)
        self._leaving.discard(name)
        self._interlocks.forget(name)

    # -- driving ----------------------------------------

    def may_move(self, device: str) -> None:
        """Raises Rejected while it may not be moved, whoever asks; also on a bus's thread."""
        self._obey_stop()
        if device in self._leaving:
            raise Rejected("device_offline", f"the configuration of {device} changes now: it stays safe")
        if self._stopping:
            raise Rejected("device_offline", "the agent is stopping: everything is safe and stays so")

    def refuse_from_now_on(self) -> None:
        """Call it before the last safe state: nothing that still waits may move anything after it."""
        self._stopping = True

    def turn(self, device: str) -> asyncio.Lock:
        """Commands of one device go one after the other."""
        return self._turns[device]

    def check(self, device: str, values: Mapping[str, Value], *, claim: bool = True) -> None:
        """Raises Rejected with the rule and the wait that remains.

        What passed holds its interlocks from now on (`claim`): `settle` after the write, whatever came of it.
        """
        if device in self.limits:
            self.limits[device].check(values, self._clock.monotonic_s())
            if self.limits[device].leaves_safe(values):
                self._conditions.check(device)
            if claim:
                self.limits[device].claim(values)

    def settle(self, device: str) -> None:
        """A write that `check` allowed is over or never began."""
        if device in self.limits:
            self.limits[device].settle()

    async def write(
        self, device: Device, values: Mapping[str, Value], may_begin: Callable[[], None]
    ) -> WriteResult:
        """Write and account for it. Raises as `Device.write`."""
        self._stop_plan(device.name)
        written = await device.write(values, may_begin=may_begin)
        self.applied(device.name, {**values, **written.read_back})
        return written

    def applied(self, device: str, values: Mapping[str, Value]) -> None:
        """These values were set."""
        if device in self.limits:
            self._note(device, self.limits[device].applied(values, self._clock.monotonic_s()))
            self.watch([device])

    def mark_unknown(self, device: str) -> None:
        """Something may have moved, in part or in whole: it counts as away until it is known to be safe."""
        if device in self.limits:
            self._note(device, self.limits[device].mark_unknown(self._clock.monotonic_s()))

    def _note(self, device: str, transitions: list[SafeTransition]) -> None:
        if transitions:
            self._journal.note_transitions(self._clock.boot, transitions)
            self._arm(device)

    # -- what devices report ----------------------------------------

    def on_reading(self, reading: Reading) -> None:
        """Those that may be away only while this device says what it said until now."""
        self.watch(self._conditions.depend_on(reading.device))

    def on_status(self, status: Status) -> None:
        """A lost actuator counts as what it was until it is opened again, which makes it safe."""
        name = status.device
        if status.state is DeviceState.ONLINE:
            if name in self.limits:
                self.applied(name, self._devices[name].safe_values)
        else:
            self._stop_plan(name)
            self._driven_by.pop(name, None)
        self.watch(self._conditions.depend_on(name))

    def watch(self, names: Iterable[str] | None = None) -> None:
        """Those of these (of all without names) that are away although a condition does not hold: safe."""
        for name in self.away(self.limits if names is None else names):
            try:
                self._conditions.check(name)
            except Interlocked as broken:
                self.spawn_safe(name, broken.message)

    def driven(self, device: str, holder: str) -> None:
        """Who drove it last: the end of that session brings it back to safe."""
        self._driven_by[device] = holder

    def left_away_by_other(self, device: str, holder: str) -> bool:
        """Whether somebody else who is still there drove it last, and left it away from safe."""
        driver = self._driven_by.get(device)
        return driver is not None and driver != holder and bool(self.away([device]))

    def driven_by(self, holder: str) -> list[str]:
        """What this one drove last and is away from safe."""
        return self.away([name for name, who in self._driven_by.items() if who == holder])

    def leaves_as_it_is(self, holder: str) -> None:
        """Who drove is gone and what it set stays, within its limits."""
        for name in [name for name, who in self._driven_by.items() if who == holder]:
            del self._driven_by[name]

    def away(self, devices: Iterable[str]) -> list[str]:
        """Which of these are not at their safe values."""
        return [name for name in devices if name in self.limits and self.limits[name].away]

    # -- plans: what goes on after the answer ----------------------------------------

    def start_plan(self, device: Device, steps: list[Step], after_s: float) -> None:
        """Carry out the rest of an action after this time; a newer command takes its place."""
        self._stop_plan(device.name)
        self._plans[device.name] = self._background.spawn(
            f"plan {device.name}", self._plan(device, steps, after_s)
        )

    def _stop_plan(self, device: str) -> None:
        task = self._plans.pop(device, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _plan(self, device: Device, steps: list[Step], after_s: float) -> None:
        await asyncio.sleep(after_s)
        for step in steps:
            async with self._turns[device.name]:
                try:
                    self.check(device.name, step.values)
                    written = await device.write(step.values, may_begin=lambda: self.may_move(device.name))
                    self.applied(device.name, {**step.values, **written.read_back})
                    self._journal_plan(device.name, step)
                except Exception as error:  # noqa: BLE001 - whatever its driver raises, it must not stay as it is
                    log.error("plan_stopped", device=device.name, error=_told(error))
                    await self.make_safe(device.name, f"plan stopped: {_told(error)}")
                    return
            if step.for_s is not None:
                await asyncio.sleep(step.for_s)

    def _journal_plan(self, device: str, step: Step) -> None:
        what = ", ".join(f"{name}={value!r}" for name, value in step.values.items())
        now_ms = self._clock.now_ms()
        self._journal.actuation(now_ms, "device-agent", device, what[:500], "done", "goes on after a command")

    # -- safe ----------------------------------------

    async def make_safe(self, name: str, why: str) -> bool:
        """One device to its safe state; tried until it obeys or is lost (then opening makes it safe)."""
        device = self._devices[name]
        self._stop_plan(name)
        result, said = "offline", ""
        while device.online:
            try:
                await device.safe()
                result = "done"
                break
            except Exception as error:  # noqa: BLE001 - whatever its driver raises, it is told again
                result = f"failed: {_told(error)}"
                if said != result:
                    said = result
                    log.error("not_made_safe", device=name, why=why, error=_told(error))
                await asyncio.sleep(AGAIN_S)
        if result == "done":
            self.applied(name, device.safe_values)
        self._driven_by.pop(name, None)
        self._journal.actuation(self._clock.now_ms(), "device-agent", name, "safe", result, why)
        log.info("made_safe", device=name, why=why, result=result)
        return result == "done"

    def spawn_safe(self, name: str, why: str) -> None:
        """Begin to make a device safe, once at a time. One that is lost becomes so when it is opened."""
        if name not in self._being_made_safe and self._devices[name].online:
            self._being_made_safe.add(name)
            self._background.spawn(f"safe {name}", self._make_safe_once(name, why))

    async def _make_safe_once(self, name: str, why: str) -> None:
        try:
            await self.make_safe(name, why)
        finally:
            # In the same step: a command that ends right after it may be in doubt, and be made safe anew.
            self._being_made_safe.discard(name)

    async def all_safe(self, why: str, limit_s: float, only: Iterable[str] | None = None) -> dict[str, bool]:
        """Every actuator (or only these), all buses at once; a stuck bus delays no other."""
        names = list(self.limits if only is None else only)
        jobs = {name: self._background.spawn(f"safe {name}", self.make_safe(name, why)) for name in names}
        if jobs:
            await asyncio.wait(jobs.values(), timeout=limit_s)
        return {name: job.done() and not job.cancelled() and bool(job.result()) for name, job in jobs.items()}

    async def end_of_session(self, holder: str, *, honour_hold: bool = True) -> None:
        """What it drove last goes to safe, unless it is configured to hold; one that does not obey in time
        is told again after this has returned."""
        driven = [name for name, who in self._driven_by.items() if who == holder]
        holding = [n for n in driven if honour_hold and getattr(self._devices[n].config, "hold", False)]
        for name in holding:
            self._driven_by.pop(name, None)
        await self.all_safe("session ended", LEAVE_LIMIT_S, [n for n in driven if n not in holding])

    def _arm(self, name: str) -> None:
        """(Re)start the timer of `max_on_s`."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        deadline_s = self.limits[name].deadline_s()
        if deadline_s is None:
            return
        delay_s = max(0.0, deadline_s - self._clock.monotonic_s())
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, self._too_long, name)

    def _too_long(self, name: str) -> None:
        self.spawn_safe(name, "max_on_s")

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await self._background.close()


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, AgentError) else f"{type(error).__name__} in the driver: {error}"
