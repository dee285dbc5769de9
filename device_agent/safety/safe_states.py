"""Keeps every actuator within its limits, and makes it safe whenever it has to be (docs/safety.md).

Who may drive is decided by the executor; what follows is decided here, whoever drove.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog

from device_agent.background import BackgroundTasks, Backoff
from device_agent.devices.context import Context
from device_agent.devices.device import Device
from device_agent.errors import AgentError, Interlocked
from device_agent.records import DeviceState, Reading, ReadingSubscriber, Status, Step, Value
from device_agent.safety.conditions import Conditions
from device_agent.safety.limits import Interlocks, Limits
from device_agent.safety.permit import Motion, MotionPermit
from device_agent.store.journal.safe_transitions import SafeTransition

log = structlog.get_logger("safety")

# An actuator that does not obey is tried again after this, until it does; one that is lost is opened again.
AGAIN_S = 0.2
AGAIN_MAX_S = 1.0
# How long a changed configuration, or the end of a session, waits for actuators that do not obey.
LEAVE_LIMIT_S = 5.0


class SafeStates(ReadingSubscriber):
    """For each actuator: its limits, who drove it last, the timer of `max_on_s`, and the steps that follow a
    command after its answer."""

    def __init__(self, context: Context, permit: MotionPermit) -> None:
        self._devices = context.devices
        self._journal = context.journal
        self._clock = context.clock
        self._permit = permit
        self._background = BackgroundTasks("safety")
        self._driven_by: dict[str, str] = {}
        self._being_made_safe: set[str] = set()
        self._next_tries: dict[str, asyncio.Future[bool]] = {}
        """What comes of making it safe, while it did not obey and the next try is to come."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._follow_ups: dict[str, asyncio.Task[Any]] = {}
        self._interlocks = Interlocks()
        self._conditions = Conditions(context.devices)
        self._left: dict[str, Limits] = {}
        """Of devices whose configuration changes now."""
        self.limits: dict[str, Limits] = {}

    @property
    def unreached(self) -> dict[str, str]:
        """Why each of these is not in its safe state, though it was tried."""
        return self._permit.unreached

    # -- devices ----------------------------------------

    def adopt(self, device: Device) -> None:
        """Look after a device that is new, or has a new configuration: its limits go on counting."""
        name = device.name
        self._permit.end_change(name)
        self._locks[name] = asyncio.Lock()
        before = self._left.pop(name, None)
        self._interlocks.forget(name)
        if device.is_actuator:
            self._conditions.adopt(device)
            now_s = self._clock.monotonic_s()
            limits = Limits(name, device.config, device.safe_values, self._interlocks, now_s)
            self.limits[name] = limits
            if before is not None:
                limits.inherit(before)

    async def recall(self) -> None:
        """Limits go on where an earlier process left them."""
        for transition in await self._journal.transitions(self._clock.boot, self._clock.monotonic_s()):
            if transition.device in self.limits:
                self.limits[transition.device].recall([transition])

    async def leave(self, names: Iterable[str], why: str) -> None:
        """Make devices safe, all at once, before they are closed; from now on nothing moves them.

        One that does not obey in time is left to its closing and to the guard.
        """
        gone = list(names)
        self._permit.begin_change(gone)
        moving = [name for name in gone if name in self.limits]
        for name, safe in (await self.all_safe(why, LEAVE_LIMIT_S, moving)).items():
            if not safe:
                log.error("not_made_safe_at_reload", device=name)
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()
            self._left[name] = self.limits.pop(name)
            self._conditions.forget(name)
        for name in gone:
            self._driven_by.pop(name, None)

    def forget(self, name: str) -> None:
        """The device that `leave` was called for does not come back."""
        self._left.pop(name, None)
        self._permit.end_change(name)
        self._interlocks.forget(name)

    # -- driving ----------------------------------------

    @asynccontextmanager
    async def exclusive(self, device: str) -> AsyncIterator[None]:
        """Commands of one device go one after the other; what `check` claimed ends with them."""
        async with self._locks[device]:
            try:
                yield
            finally:
                if device in self.limits:
                    self.limits[device].settle()

    def check(self, device: str, values: Mapping[str, Value], *, claim: bool = True) -> None:
        """Raises Rejected with the rule and the wait that remains.

        With `claim`, what is allowed holds its interlocks from now on, before it is written; call it within
        `exclusive`.
        """
        if device in self.limits:
            self.limits[device].check(values, self._clock.monotonic_s())
            if self.limits[device].leaves_safe(values):
                self._conditions.check(device)
            if claim:
                self.limits[device].claim(values)

    async def write(
        self, device: Device, values: Mapping[str, Value], motion: Motion, *, urgent: bool = False
    ) -> dict[str, Value]:
        """Write, if the permit confirms it on the bus's thread, and account for it. As `Device.write`.

        What would have followed an earlier command is cancelled.
        """
        self._cancel_follow_up(device.name)
        may_begin = partial(self._permit.confirm, motion)
        read_back = await device.write(values, may_begin=may_begin, urgent=urgent)
        self.applied(device.name, {**values, **read_back})
        return read_back

    def applied(self, device: str, values: Mapping[str, Value]) -> None:
        """These values were set."""
        if device in self.limits:
            self._note(device, self.limits[device].applied(values, self._clock.monotonic_s()))
            self.enforce_conditions([device])

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
        """Other devices may be away only while this one has certain values."""
        if names := self._conditions.depend_on(reading.device):
            self.enforce_conditions(names)

    def on_status(self, status: Status) -> None:
        """A lost actuator counts as what it was until it is opened again, which makes it safe."""
        name = status.device
        if status.state is DeviceState.ONLINE:
            if name in self.limits:
                self.applied(name, self._devices[name].safe_values)
            # Being opened has made it safe: a later try would undo what is commanded from here on.
            if (outcome := self._next_tries.get(name)) is not None and not outcome.done():
                outcome.set_result(True)
        else:
            self._cancel_follow_up(name)
            self._driven_by.pop(name, None)
        self.enforce_conditions(self._conditions.depend_on(name))

    def enforce_conditions(self, names: Iterable[str] | None = None) -> None:
        """Make safe which of these (of all, without names) are away although a condition does not hold."""
        for name in self.away(self.limits if names is None else names):
            try:
                self._conditions.check(name)
            except Interlocked as broken:
                self.spawn_safe(name, broken.message)

    # -- who drove last ----------------------------------------

    def note_driver(self, device: str, holder: str) -> None:
        """It drives the device now: the end of its session makes it safe."""
        self._driven_by[device] = holder

    def driver(self, device: str) -> str | None:
        """Who drove it last, as far as he is still there."""
        return self._driven_by.get(device)

    def forget_driver(self, holder: str) -> None:
        """It is gone, and what it set stays, within its limits."""
        for name in self._last_driven_by(holder):
            del self._driven_by[name]

    def away_by_other(self, device: str, holder: str) -> bool:
        """Whether somebody else who is still there drove it last, and left it away from safe."""
        driver = self._driven_by.get(device)
        return driver is not None and driver != holder and bool(self.away([device]))

    def driven_by(self, holder: str) -> list[str]:
        """What it drove last and is away from safe."""
        return self.away(self._last_driven_by(holder))

    def _last_driven_by(self, holder: str) -> list[str]:
        return [name for name, who in self._driven_by.items() if who == holder]

    def away(self, devices: Iterable[str]) -> list[str]:
        """Which of these are not at their safe values."""
        return [name for name in devices if name in self.limits and self.limits[name].away]

    # -- what follows a command after its answer ----------------------------------------

    def follow_up(self, device: Device, steps: list[Step], after_s: float) -> None:
        """Carry out these steps of a command after this time, unless a newer command comes."""
        self._cancel_follow_up(device.name)
        self._follow_ups[device.name] = self._background.spawn(
            f"follow_up {device.name}", self._follow_up(device, steps, after_s)
        )

    def _cancel_follow_up(self, device: str) -> None:
        task = self._follow_ups.get(device)
        if task is not None and task is not asyncio.current_task():
            del self._follow_ups[device]
            task.cancel()

    async def _follow_up(self, device: Device, steps: list[Step], after_s: float) -> None:
        await asyncio.sleep(after_s)
        for step in steps:
            async with self.exclusive(device.name):
                try:
                    self.check(device.name, step.values)
                    await self.write(device, step.values, Motion(device.name))
                except Exception as error:  # noqa: BLE001 - whatever its driver raises, it must not stay as it is
                    log.error("follow_up_failed", device=device.name, error=_sentence(error))
                    self.spawn_safe(device.name, f"plan stopped: {_sentence(error)}")
                    return
                what = ", ".join(f"{name}={value!r}" for name, value in step.values.items())
                self._record(device.name, what[:500], "done", "goes on after a command")
            if step.for_s is not None:
                await asyncio.sleep(step.for_s)

    # -- safe ----------------------------------------

    async def make_safe(self, name: str, why: str) -> bool:
        """One device to its safe state, tried until it obeys; one that is lost is opened for it.

        Returns whether it is safe now; False if the device was removed. No limit of its own: who cannot wait
        asks `all_safe`.
        """
        self._cancel_follow_up(name)
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        safe = False
        try:
            safe = await self._until_safe(name, why, outcome)
            return safe
        finally:
            if not outcome.done():
                outcome.set_result(safe)

    async def _until_safe(self, name: str, why: str, outcome: asyncio.Future[bool]) -> bool:
        device = self._devices[name]
        backoff, logged = Backoff(AGAIN_S, AGAIN_MAX_S, jitter=0.0), ""
        while self._devices.get(name) is device:
            try:
                if not outcome.done():
                    await device.safe()
                    self.applied(name, device.safe_values)
                    self._driven_by.pop(name, None)
                self.unreached.pop(name, None)
                self._record(name, "safe", "done", why)
                log.info("made_safe", device=name, why=why)
                return True
            except Exception as error:  # noqa: BLE001 - whatever its driver raises, it is tried again
                if self._devices.get(name) is not device:
                    break  # what it stands for now was opened anew
                if not logged:
                    self._record(name, "safe", f"failed: {_sentence(error)}", why)
                self.unreached[name] = _sentence(error)
                if logged != _sentence(error):
                    logged = _sentence(error)
                    log.error("not_made_safe", device=name, why=why, error=logged)
            # Whoever else asks meanwhile waits for the next try too; one under way may be too early for them.
            if (other := self._next_tries.get(name)) is not None:
                return await asyncio.shield(other)
            self._next_tries[name] = outcome
            try:
                await asyncio.wait([outcome], timeout=backoff.next_s())
            finally:
                del self._next_tries[name]
        return False

    def spawn_safe(self, name: str, why: str) -> None:
        """Begin to make a device safe, unless that has begun."""
        if name not in self._being_made_safe:
            self._being_made_safe.add(name)
            self._background.spawn(f"safe {name}", self._make_safe_once(name, why))

    async def _make_safe_once(self, name: str, why: str) -> None:
        try:
            await self.make_safe(name, why)
        finally:
            # In the same step: a command that ends right after it may be in doubt, and be made safe anew.
            self._being_made_safe.discard(name)

    async def all_safe(self, why: str, limit_s: float, only: Iterable[str] | None = None) -> dict[str, bool]:
        """Every actuator, or only these: all buses at once, so that a stuck one delays no other.

        Returns after `limit_s` at the latest, by device whether it is safe now; they are tried on after that.
        One that was lost at its safe values is not waited for.
        """
        names = list(self.limits if only is None else only)
        jobs = {name: self._background.spawn(f"safe {name}", self.make_safe(name, why)) for name in names}
        if waits := [jobs[n] for n in names if self._devices[n].online or self.away([n])]:
            await asyncio.wait(waits, timeout=limit_s)
        return {name: job.done() and not job.cancelled() and bool(job.result()) for name, job in jobs.items()}

    async def end_of_session(self, holder: str, *, honour_hold: bool = True) -> None:
        """What it drove last goes to safe, unless it is configured to hold. Returns as `all_safe`."""
        driven = self._last_driven_by(holder)
        holding = [n for n in driven if honour_hold and getattr(self._devices[n].config, "hold", False)]
        for name in holding:
            self._driven_by.pop(name, None)
        await self.all_safe("session ended", LEAVE_LIMIT_S, [n for n in driven if n not in holding])

    def _record(self, device: str, what: str, result: str, why: str) -> None:
        self._journal.actuation(self._clock.now_ms(), "device-agent", device, what, result, why)

    def _arm(self, name: str) -> None:
        """(Re)start the timer of `max_on_s`."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        deadline_s = self.limits[name].deadline_s()
        if deadline_s is None:
            return
        delay_s = max(0.0, deadline_s - self._clock.monotonic_s())
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(delay_s, self.spawn_safe, name, "max_on_s")

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await self._background.close()


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, AgentError) else f"{type(error).__name__} in the driver: {error}"
