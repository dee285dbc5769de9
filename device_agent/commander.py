"""A command's way to an actuator: known, allowed, in time, leased, within limits, journalled, done, answered.

At most once by `id`; in doubt `unknown`, and the actuator goes to safe. Everybody who drives comes through
here: sessions, requests, the command line.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.config import Config
from device_agent.device import Device
from device_agent.errors import AgentError, BusBusy, BusError, BusTimeout, DriverError, NoAnswer, Rejected
from device_agent.lives import Lives
from device_agent.network import Caller
from device_agent.records import Action, Step, Value
from device_agent.safety.leases import Leases
from device_agent.safety.limits import Interlocks, Limits
from device_agent.store.journal import Journal
from device_agent.words import Command, Do, Set, checked_value, checked_values

log = structlog.get_logger("command")

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who drives. `holder` is the task's id, or `local` for the command line on the device itself."""

    holder: str
    label: str
    caller: Caller

    @property
    def identities(self) -> frozenset[str]:
        named = [("org", self.caller.org), ("user", self.caller.user)]
        return frozenset(f"{kind}:{name}" for kind, name in named if name)

    @property
    def journal_key(self) -> str:
        """Whose ids these are: a caller's, over all its tasks."""
        return f"{self.caller.org}/{self.caller.user}" if self.holder != LOCAL else LOCAL


@dataclass(slots=True)
class _Attempt:
    """What a command came to, for the ack and the Journal."""

    state: str = "done"
    commanded: Mapping[str, Value] | None = None
    applied: Mapping[str, Value] | None = None
    verified: bool = False
    code: str = ""
    message: str = ""

    def members(self, id_: str) -> dict[str, Any]:
        ack: dict[str, Any] = {"id": id_, "state": self.state}
        if self.commanded is not None:
            ack["commanded"] = dict(self.commanded)
        if self.applied is not None:
            ack["applied"] = dict(self.applied)
        if self.state == "done":
            ack["verified"] = self.verified
        if self.code:
            ack["error"] = {"code": self.code, "message": self.message}
        return ack


class Commander:
    """Owns limits, leases and timers of all actuators."""

    def __init__(self, config: Config, devices: Mapping[str, Device], journal: Journal, clock: Clock) -> None:
        self._config = config
        self._devices = devices
        self._journal = journal
        self._clock = clock
        self.leases = Leases(config.safety.lease_idle_s)
        self.lives = Lives("commander")
        self._driven_by: dict[str, str] = {}
        self._being_made_safe: set[str] = set()
        self._turn = {name: asyncio.Lock() for name in devices}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._plans: dict[str, asyncio.Task[Any]] = {}
        interlocks = Interlocks()
        now_s = clock.monotonic_s()
        self.limits = {
            name: Limits(name, device.config, device.points, device.safe_values, interlocks, now_s)
            for name, device in devices.items()
            if device.is_actuator
        }
        for device in devices.values():
            device.on_lost = self._on_lost

    # -- commands ----------------------------------------

    async def execute(
        self,
        command: Command,
        actor: Actor,
        *,
        age_ms: float | None,
        devices: Collection[str] | None = None,
        strangers: Collection[Actor] = (),
        for_s: float | None = None,
    ) -> dict[str, Any]:
        """Carry out one command and return the members of its ack (without `at` and `seq`).

        `age_ms` is how old it was when it came, by the transport's clock (None: that clock is not known yet).
        `devices` bounds what this stream may name. `strangers` are others who might have sent it: on a shared
        stream nobody can tell, so all of them need the right. `for_s` puts a set back to safe after that.
        """
        arrived_s = self._clock.monotonic_s() - (age_ms or 0.0) / 1000
        key = actor.journal_key
        first = await self._journal.command_seen(key, command.id)
        if first is not None:
            return {**first, "repeated": True}
        attempt = _Attempt()
        begun = False
        try:
            device = self._checked_device(command, actor, devices, strangers)
            values, action, args = self._checked_words(command, device)
            if age_ms is None:
                raise Rejected(
                    "clock_unset", "the network's time is not known yet, so the age of a command is not"
                )
            deadline_s = arrived_s + command.ttl_ms / 1000
            self._in_time(deadline_s, command)
            async with self._turn[device.name]:
                self._checked_moment(device, actor, values, action)
                attempt.commanded = values if values is not None else args
                begun = True
                await self._journal.begin_command(key, command.id, command.model_dump(), self._clock.now_ms())
                await self._perform(attempt, command, device, actor, values, action, args, deadline_s, for_s)
        except Rejected as rejected:
            attempt.state, attempt.code, attempt.message = "rejected", rejected.code, rejected.message
        ack = attempt.members(command.id)
        if begun or attempt.state != "rejected":
            self._journal.finish_command(key, command.id, ack)
        self._record(command, actor, attempt)
        return ack

    def may_drive(self, actor: Actor, device: str) -> bool:
        """Whether the owner's access rules let this actor drive the device."""
        return actor.holder == LOCAL or self._config.access.allows("drive", device, actor.identities)

    def _checked_device(
        self,
        command: Command,
        actor: Actor,
        devices: Collection[str] | None,
        strangers: Collection[Actor],
    ) -> Device:
        device = self._devices.get(command.device)
        if device is None or (devices is not None and command.device not in devices):
            known = ", ".join(sorted(devices if devices is not None else self._devices)) or "none"
            raise Rejected(
                "unknown_device", f"there is no device {command.device!r} here; there are: {known}"
            )
        for who in (actor, *strangers):
            if not self.may_drive(who, device.name):
                raise Rejected("not_allowed", f"the owner's access rules do not let you drive {device.name}")
        return device

    def _checked_words(
        self, command: Command, device: Device
    ) -> tuple[dict[str, Value] | None, Action | None, dict[str, Value]]:
        if isinstance(command, Set):
            return checked_values(command.values, device.points, device.name), None, {}
        actions = {action.name: action for action in device.driver_class.actions}
        action = actions.get(command.action)
        if action is None:
            known = ", ".join(sorted(actions)) or "none"
            raise Rejected(
                "invalid_value", f"{device.name} has no action {command.action!r}; it has: {known}"
            )
        arguments = {argument.name: argument for argument in action.arguments}
        for name in command.args:
            if name not in arguments:
                raise Rejected("invalid_value", f"action {action.name} takes no argument {name!r}")
        args: dict[str, Value] = {}
        for name, argument in arguments.items():
            if name in command.args:
                args[name] = checked_value(command.args[name], argument, f"{action.name}.{name}")
            elif argument.required:
                raise Rejected("invalid_value", f"action {action.name} needs the argument {name!r}")
        return None, action, args

    def _in_time(self, deadline_s: float, command: Command) -> None:
        late_s = self._clock.monotonic_s() - deadline_s
        if late_s > 0:
            raise Rejected(
                "expired", f"came {late_s * 1000:.0f} ms after its ttl_ms of {command.ttl_ms} had run out"
            )

    def _checked_moment(
        self, device: Device, actor: Actor, values: Mapping[str, Value] | None, action: Action | None
    ) -> None:
        if not device.online:
            raise Rejected("device_offline", f"device {device.name} is {device.state} ({device.reason})")
        now_s = self._clock.monotonic_s()
        if action is None or action.moves:
            self.leases.check(device.name, actor.holder, now_s)
        if values is not None and device.name in self.limits:
            self.limits[device.name].check(values, now_s)

    async def _perform(
        self,
        attempt: _Attempt,
        command: Command,
        device: Device,
        actor: Actor,
        values: dict[str, Value] | None,
        action: Action | None,
        args: dict[str, Value],
        deadline_s: float,
        for_s: float | None,
    ) -> None:
        def may_begin() -> None:
            self._in_time(deadline_s, command)

        self._stop_plan(device.name)
        try:
            if values is not None:
                await self._write(attempt, device, values, may_begin)
                if for_s is not None:
                    self._start_plan(device, actor, [Step(device.safe_values)], for_s)
            else:
                assert action is not None
                steps = await device.do(action.name, args, may_begin=may_begin)
                if steps:
                    await self._first_step(attempt, device, actor, steps, may_begin)
                if not action.moves:
                    return
        except BusTimeout as error:
            attempt.state, attempt.code, attempt.message = "unknown", "bus_timeout", str(error)
            log.error("outcome_unknown", device=device.name, error=str(error))
            if values is not None and device.name in self.limits:
                self.limits[device.name].applied(values, self._clock.monotonic_s())
            self.spawn_safe(device.name, "unknown outcome")
            return
        except (BusError, DriverError) as error:
            attempt.state, attempt.message = "failed", str(error)
            offline = isinstance(error, NoAnswer) or getattr(error, "reason", "") in ("unplugged", "absent")
            attempt.code = (
                "bus_timeout" if isinstance(error, BusBusy) else "device_offline" if offline else "internal"
            )
            return
        except AgentError:
            raise
        except Exception as error:
            log.exception("driver_failed", device=device.name)
            attempt.state, attempt.code, attempt.message = (
                "failed",
                "internal",
                f"{type(error).__name__} in the driver",
            )
            return
        self._driven_by[device.name] = actor.holder
        self.leases.take(device.name, actor.holder, actor.label, self._clock.monotonic_s())

    async def _write(
        self, attempt: _Attempt, device: Device, values: Mapping[str, Value], may_begin: Callable[[], None]
    ) -> None:
        written = await device.write(values, may_begin=may_begin)
        attempt.applied = {name: written.read_back.get(name, value) for name, value in values.items()}
        attempt.verified = all(
            name in written.read_back and _same(written.read_back[name], value)
            for name, value in values.items()
        )
        if device.name in self.limits:
            self.limits[device.name].applied(attempt.applied, self._clock.monotonic_s())
            self._arm(device.name)
        if any(name in written.read_back for name in values) and not attempt.verified:
            attempt.state, attempt.code = "failed", "internal"
            attempt.message = f"read back {dict(written.read_back)} after setting {dict(values)}"

    # -- plans: what goes on after the ack ----------------------------------------

    async def _first_step(
        self,
        attempt: _Attempt,
        device: Device,
        actor: Actor,
        steps: list[Step],
        may_begin: Callable[[], None],
    ) -> None:
        first, rest = steps[0], steps[1:]
        if device.name in self.limits:
            self.limits[device.name].check(first.values, self._clock.monotonic_s())
        await self._write(attempt, device, first.values, may_begin)
        if rest and first.for_s is not None:
            self._start_plan(device, actor, rest, first.for_s)

    def _start_plan(self, device: Device, actor: Actor, steps: list[Step], after_s: float) -> None:
        task = self.lives.spawn(f"plan {device.name}", self._plan(device, actor, steps, after_s))
        self._plans[device.name] = task

    def _stop_plan(self, device: str) -> None:
        """A newer command takes the place of what an older one still had to do."""
        task = self._plans.pop(device, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _plan(self, device: Device, actor: Actor, steps: list[Step], after_s: float) -> None:
        await asyncio.sleep(after_s)
        for step in steps:
            async with self._turn[device.name]:
                try:
                    self.limits[device.name].check(step.values, self._clock.monotonic_s())
                    await device.write(step.values, may_begin=_always)
                    self.limits[device.name].applied(step.values, self._clock.monotonic_s())
                    self._arm(device.name)
                except (Rejected, BusError, DriverError) as error:
                    log.error("plan_stopped", device=device.name, error=str(error))
                    await self.make_safe(device.name, f"plan stopped: {error}")
                    return
            if step.for_s is not None:
                await asyncio.sleep(step.for_s)

    # -- safe ----------------------------------------

    async def make_safe(self, name: str, why: str) -> bool:
        """One device to its safe state; tried until it obeys or is lost (then opening makes it safe)."""
        device = self._devices[name]
        self._stop_plan(name)
        result = "offline"
        while device.online:
            try:
                await device.safe()
                result = "done"
                break
            except (BusError, DriverError) as error:
                result = f"failed: {error}"
                log.error("not_made_safe", device=name, why=why, error=str(error))
                await asyncio.sleep(0.2)
        if name in self.limits:
            self.limits[name].applied(device.safe_values, self._clock.monotonic_s())
            self._arm(name)
        self._driven_by.pop(name, None)
        self._journal.actuation(self._clock.now_ms(), "device-agent", name, "safe", result, why)
        log.info("made_safe", device=name, why=why, result=result)
        return result == "done"

    def spawn_safe(self, name: str, why: str) -> None:
        """Begin to make a device safe, once at a time."""
        if name not in self._being_made_safe:
            self._being_made_safe.add(name)
            task = self.lives.spawn(f"safe {name}", self.make_safe(name, why))
            task.add_done_callback(lambda _: self._being_made_safe.discard(name))

    async def all_safe(self, why: str, limit_s: float) -> dict[str, bool]:
        """Every actuator, all buses at once; a stuck bus delays no other."""
        names = list(self.limits)
        jobs = {name: self.lives.spawn(f"safe {name}", self.make_safe(name, why)) for name in names}
        if jobs:
            await asyncio.wait(jobs.values(), timeout=limit_s)
        return {name: job.done() and not job.cancelled() and bool(job.result()) for name, job in jobs.items()}

    def away(self, devices: Collection[str]) -> list[str]:
        """Which of these are not at their safe values."""
        return [name for name in devices if name in self.limits and self.limits[name].away]

    async def end_of_session(self, holder: str, *, honour_hold: bool = True) -> None:
        """Its leases end; what it drove last goes to safe, unless it is configured to hold."""
        self.leases.release(holder)
        driven = [name for name, who in self._driven_by.items() if who == holder]
        holding = [n for n in driven if honour_hold and getattr(self._devices[n].config, "hold", False)]
        for name in holding:
            self._driven_by.pop(name, None)
        await asyncio.gather(*(self.make_safe(n, "session ended") for n in driven if n not in holding))

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

    def _on_lost(self, device: Device) -> None:
        """A lost actuator is opened again at its safe value; until then its real state is not known."""
        if device.name in self.limits:
            self._stop_plan(device.name)
            self.limits[device.name].applied(device.safe_values, self._clock.monotonic_s())
            self._arm(device.name)
            self._driven_by.pop(device.name, None)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await self.lives.close()

    def _record(self, command: Command, actor: Actor, attempt: _Attempt) -> None:
        what = (
            ", ".join(f"{name}={value!r}" for name, value in command.values.items())
            if isinstance(command, Set)
            else f"{command.action}({', '.join(f'{n}={v!r}' for n, v in command.args.items())})"
        )
        rule = f"{attempt.code}: {attempt.message}" if attempt.code else ""
        self._journal.actuation(
            self._clock.now_ms(), actor.label, command.device, what[:500], attempt.state, rule[:500]
        )
        log.info(
            "command", who=actor.label, device=command.device, what=what[:200], state=attempt.state, rule=rule
        )


def _always() -> None:
    """A plan's later steps have no time limit of their own: the command that began them was in time."""


def _same(read: Value, wanted: Value) -> bool:
    """Equal, or equal within what a converter's steps can hold."""
    if isinstance(read, bool) or isinstance(wanted, bool) or isinstance(read, str):
        return read == wanted
    if isinstance(read, (int, float)) and isinstance(wanted, (int, float)):
        return abs(read - wanted) <= 1e-3 * max(1.0, abs(wanted))
    return read == wanted


Execute = Callable[..., Awaitable[dict[str, Any]]]
__all__ = ["LOCAL", "Actor", "Command", "Commander", "Do", "Set"]
