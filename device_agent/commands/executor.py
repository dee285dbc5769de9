"""A command's way to an actuator, whoever sent it: a session, a request, a delegation, the command line.

Authorize, plan, admit, arbitrate, limit, journal, write, acknowledge: one method each, in this order. Each id
is carried out at most once. Where nobody knows whether a command has moved something, its ack says `unknown`
and the actuator goes to its safe state. Whether anything may move at all is asked of the `MotionPermit`, at
admission and again on the bus's thread.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from math import inf

import structlog

from device_agent.commands.authorization import (
    Actor,
    check_points,
    check_right,
    known_device,
    knows,
    may,
    rank,
)
from device_agent.commands.delegation_action import DelegationAction, check_do
from device_agent.commands.plan import CommandPlan, Outcome, Send, action_of, check_files, describe, is_safe
from device_agent.config import Config
from device_agent.devices.context import Context
from device_agent.devices.device import Device
from device_agent.errors import (
    AgentError,
    BusBusy,
    BusError,
    BusFaulted,
    BusTimeout,
    DriverError,
    Fault,
    Interlocked,
    NotRecorded,
    Rejected,
)
from device_agent.messages.acks import Ack, AckState
from device_agent.messages.commands import Command, Do, Set, Stop, checked_args, checked_values
from device_agent.records import SEND_FILE, File, Step, Value, same_value
from device_agent.safety.emergency_stop import SAFE_LIMIT_S, EmergencyStop
from device_agent.safety.leases import Leases
from device_agent.safety.permit import Motion, MotionPermit
from device_agent.safety.safe_states import LEAVE_LIMIT_S, SafeStates

log = structlog.get_logger("command")

# As a command that says nothing else.
BYTES_TTL_MS = 5000
DRY_RUN_ROW_S = 10.0
NOTES_LOST = (
    "it was sent before the agent's last start, and the disk lost notes of what was done before: it may have "
    "been carried out then, and is not carried out now; look at the device, and send it with a new id"
)
NO_RIGHT = ("not_allowed", "unknown_device")


class CommandExecutor:
    """Owns the leases. Limits, and the way back to safe, belong to `SafeStates`."""

    def __init__(
        self,
        config: Config,
        context: Context,
        permit: MotionPermit,
        safe_states: SafeStates,
        emergency_stop: EmergencyStop,
        delegation_actions: Mapping[str, DelegationAction],
    ) -> None:
        """`delegation_actions`, by name, are filled later. Who may drive a delegation may start it."""
        self.config = config
        self.delegation_actions = delegation_actions
        self.leases = Leases(config.safety.lease_idle_s)
        self.refusals = 0
        """Commands of those who had no right to them."""
        self.answers: Counter[tuple[str, str]] = Counter()
        """How commands ended: their acks by state and error code, "" without; repetitions are not counted."""
        self._tried_s: dict[str, float] = {}
        """When the Journal last had a row of a dry run, by device."""
        self._devices = context.devices
        self._permit = permit
        self._safe_states = safe_states
        self._emergency_stop = emergency_stop
        self._journal = context.journal
        self._clock = context.clock

    def use_config(self, config: Config) -> None:
        """A new configuration: its access rules hold from the next command on."""
        self.config = config

    async def execute(
        self,
        command: Command,
        actor: Actor,
        *,
        age_ms: float | None,
        devices: Collection[str] | None = None,
        possible_senders: Collection[Actor] = (),
        made_safe: int | None = None,
        for_s: float | None = None,
        on_file: Callable[[File], None] | None = None,
        send: Send | None = None,
    ) -> Ack:
        """Carry out one command, once by its id, and return its ack.

        `age_ms` is how old it was when it came, by the transport's clock (None: that clock is not known yet).
        `devices` bounds what this stream may name. `possible_senders` are others who might have sent it: on a
        shared stream nobody can tell, so all need the right. A set goes back to safe after `for_s` seconds.
        `made_safe` is what `times_made_safe` said when it came, if it had to wait since then.
        `on_file` gets the file that an action made (without it: refused); `send` passes on one that came.
        """
        deadline_s = self._clock.monotonic_s() + (command.ttl_ms - (age_ms or 0.0)) / 1000
        came_after = self.times_made_safe(command) if made_safe is None else made_safe
        outcome, senders = Outcome(), self._senders(command, (actor, *possible_senders))
        if (answer := await self._answered(command, senders, devices, age_ms)) is not None:
            return answer
        try:
            if (delegation := self.delegation_actions.get(command.device)) is not None:
                self._permit.check_deadline(Motion(command.device, "", deadline_s, command.ttl_ms))
                await delegation.ask(self._check_do(command, senders, devices), actor.label, command.id)
            else:
                plan = self._plan(command, self._authorize(command, senders, devices), senders, deadline_s)
                plan = replace(plan, for_s=for_s, send=send, made_safe=came_after)
                self._admit(plan, age_known=age_ms is not None, takes_file=on_file is not None)
                file = await self._carry_out(plan, outcome)
                if file is not None and on_file is not None:
                    on_file(file)
        except Rejected as rejected:
            outcome.fail(AckState.REJECTED, rejected.code, rejected.message)
        except NotRecorded as error:
            outcome.fail(AckState.FAILED, "internal", str(error))
        except asyncio.CancelledError:
            outcome.fail(AckState.UNKNOWN, "internal", "the session ended while the command was carried out")
            raise
        except Exception as error:
            log.exception("command_failed", device=command.device)
            outcome.fail(AckState.UNKNOWN, "internal", f"{type(error).__name__} in the agent: see its log")
        finally:
            ack = self._acknowledge(command, senders[0], outcome, for_s)
        return ack

    def check_rights(
        self, command: Command, actors: tuple[Actor, ...], bounds: Collection[str] | None = None
    ) -> bool:
        """Whether its id is known. Raises Rejected unless it is, or all who may have sent it, the likeliest
        first, have a right to it. It waits for nothing and keeps nothing: of what a flood without rights
        brings, this is all that is done.
        """
        senders = self._senders(command, actors)
        if self._journal.knows_command(senders[0].journal_key, senders[0].id_key(command)):
            return True
        try:
            if command.device in self.delegation_actions:
                self._check_do(command, senders, bounds)
            else:
                self._authorize(command, senders, bounds)
        except Rejected as rejected:
            self.refusals += 1
            if self.refusals == 1 or self.refusals % 1000 == 0:
                who, why = senders[0].recorded, rejected.message[:200]
                log.warning("not_allowed", who=who, why=why, count=self.refusals)
            self.answers[AckState.REJECTED.value, rejected.code] += 1
            raise
        return False

    def dry_run(
        self,
        command: Command,
        actor: Actor,
        *,
        devices: Collection[str] | None = None,
        possible_senders: Collection[Actor] = (),
        for_s: float | None = None,
    ) -> Ack:
        """What `execute` would answer now; nothing moves, and the id is not used up.

        The Journal has a row for whoever has the right, of each device one in `DRY_RUN_ROW_S` at most: as
        dry runs use up no ids, a flood of them would push out what has moved.
        """
        ack = self.preview(command, actor, devices=devices, possible_senders=possible_senders)
        now_s, last_s = self._clock.monotonic_s(), self._tried_s.get(command.device, -inf)
        if now_s - last_s >= DRY_RUN_ROW_S and (ack.error is None or ack.error.code not in NO_RIGHT):
            self._tried_s[command.device] = now_s
            self._record(actor, command.device, f"dry run: {describe(command, for_s)}", ack)
        return ack

    def preview(
        self,
        command: Command,
        actor: Actor,
        *,
        devices: Collection[str] | None = None,
        possible_senders: Collection[Actor] = (),
    ) -> Ack:
        """What `execute` would answer now; nothing moves and nothing is remembered.

        An action's own steps are not known before it begins, so their limits are not judged.
        """
        senders = self._senders(command, (actor, *possible_senders))
        try:
            if (delegation := self.delegation_actions.get(command.device)) is not None:
                self._check_do(command, senders, devices)
                delegation.check()
                return Ack(command.id, dry_run=True)
            plan = self._plan(command, self._authorize(command, senders, devices), senders)
            self._permit.admit(plan.motion)
            hand_over = self._check_lease(plan)
            if not hand_over:
                self._limit(plan, plan.values, claim=False)
        except Rejected as rejected:
            return Ack(command.id, AckState.REJECTED, error=rejected.fault, dry_run=True)
        return Ack(command.id, commanded=plan.commanded, hand_over=hand_over, dry_run=True)

    def admit_bytes(
        self, actor: Actor, device: str, age_ms: float | None, possible_senders: Collection[Actor] = ()
    ) -> None:
        """Bytes for a device: like a command, they take the lease and are too old at some time. Raises
        Rejected."""
        if age_ms is None:
            raise Rejected("clock_unset", "the age of these bytes is not known: nor is the network's time")
        deadline_s = self._clock.monotonic_s() + (BYTES_TTL_MS - age_ms) / 1000
        self._permit.admit(Motion(device, actor.holder, deadline_s, BYTES_TTL_MS))
        access, senders, now_s = self.config.access, (actor, *possible_senders), self._clock.monotonic_s()
        check_right(access, "drive", senders, device)
        self.leases.check(device, actor.holder, now_s)
        if self.leases.holder(device, now_s) is None:
            # One row each time that somebody begins; the Journal does not keep what people type.
            self._journal.actuation(self._clock.now_ms(), actor.recorded, device, "bytes", "done")
        self.leases.take(device, actor.holder, actor.label, now_s, rank(access, senders, device))

    async def stop(
        self,
        command: Stop,
        actor: Actor,
        possible_senders: Collection[Actor] = (),
        sent_ms: float | None = None,
    ) -> Ack:
        """The emergency stop, for anybody who may drive anything; its age is not checked.

        Where somebody else might have sent it who may not, what those who may have driven is made safe, and
        nothing is latched. `sent_ms` tells a message that the network delivers again, perhaps after the
        release, from a new one with the same id, which is always obeyed.
        """
        senders, access = (actor, *possible_senders), self.config.access
        drivers = [one for one in senders if any(may(access, "drive", one, name) for name in self._devices)]
        if not drivers:
            fault = Fault("not_allowed", "the owner's access rules do not let you drive anything")
            return Ack(command.id, AckState.REJECTED, error=fault)
        if len(drivers) < len(senders):
            driven = {name for one in drivers for name in self._safe_states.driven_by(one.holder)}
            await self._safe_states.all_safe("a stop on a shared stream", SAFE_LIMIT_S, driven)
            fault = Fault(
                "not_allowed",
                "nobody can tell who sent a stop on this shared stream, which some may only read: what its "
                "sessions drove was told to be safe, but nothing is latched; send a request, or use a "
                "stream of your own",
            )
            return Ack(command.id, AckState.REJECTED, error=fault)
        if sent_ms is None:
            return await self._press(command, actor)
        key = (actor.journal_key, f"{command.id} stop {sent_ms}")
        if (first := await self._journal.first_answer(*key)) is not None:
            return first.again(command.id)
        ack = Ack(command.id, AckState.UNKNOWN, error=Fault("internal", "the session ended meanwhile"))
        try:
            ack = await self._press(command, actor)
        finally:
            self._journal.finish_command(key[0], ack, self._clock.now_ms(), key[1])
        return ack

    async def _press(self, command: Stop, actor: Actor) -> Ack:
        if all((await self._emergency_stop.press(actor.label, actor.recorded)).values()):
            return Ack(command.id)
        fault = Fault("internal", "latched, but not everything is known to be safe yet")
        return Ack(command.id, AckState.UNKNOWN, error=fault)

    def makes_safe(self, command: Command) -> bool:
        """Whether it sets a device's safe values and nothing else: it waits for no other command."""
        device = self._devices.get(command.device)
        return device is not None and isinstance(command, Set) and is_safe(device, command.values)

    def times_made_safe(self, command: Command) -> int:
        """How often a command has made its device safe; what came before the last of them moves nothing."""
        return self._permit.times_made_safe(command.device)

    def session_ends(self, holder: str) -> None:
        """What it still has under way is refused, and its leases end."""
        self._permit.end_session(holder)
        self.leases.release(holder)

    def request_ends(self, holder: str) -> None:
        """Its leases end; what it set stays, within its limits."""
        self.leases.release(holder)
        self._safe_states.forget_driver(holder)

    # -- the steps ----------------------------------------

    def _senders(self, command: Command, senders: tuple[Actor, ...]) -> tuple[Actor, ...]:
        """Who may have sent it. Who drives a device may make it safe, whoever else might have said so."""
        if not self.makes_safe(command):
            return senders
        lease = self.leases.holder(command.device, self._clock.monotonic_s())
        driver = self._safe_states.driver(command.device) if lease is None else lease.holder
        return tuple(one for one in senders if one.holder == driver)[:1] or senders

    async def _answered(
        self,
        command: Command,
        senders: tuple[Actor, ...],
        bounds: Collection[str] | None,
        age_ms: float | None,
    ) -> Ack | None:
        """The answer to an id that is known or may have been, or to somebody without the right; else None,
        and the id is taken now."""
        key = (senders[0].journal_key, senders[0].id_key(command))
        try:
            known = self.check_rights(command, senders, bounds)
            full_s = 0.0 if known else self._journal.full_s(key[0])
            if full_s and not self.makes_safe(command):
                raise Rejected(
                    "too_soon",
                    "your ids of the last day fill the memory for them, and a new one could act twice: the "
                    f"next is free in {full_s / 60:.0f} min; what makes safe is obeyed all the same",
                )
        except Rejected as rejected:
            return Ack(command.id, AckState.REJECTED, error=rejected.fault)
        if (first := await self._journal.first_answer(*key)) is not None:
            return first.again(command.id)
        if self.makes_safe(command) or self._journal.is_complete_since((age_ms or 0.0) / 1000):
            return None
        outcome = Outcome()
        outcome.fail(AckState.UNKNOWN, "internal", NOTES_LOST)
        return self._acknowledge(command, senders[0], outcome, None)

    def _authorize(
        self, command: Command, senders: tuple[Actor, ...], bounds: Collection[str] | None
    ) -> Device:
        """The device that is named. Raises Rejected `unknown_device`, `not_allowed`, and `invalid_value` for
        an action that it does not have."""
        access = self.config.access
        known = self._devices if bounds is None else bounds
        device = known_device(access, senders[0], command.device, self._devices, known)
        read_only = isinstance(command, Do) and action_of(device, command.action).read_only
        check_right(access, "read" if read_only else "drive", senders, device.name)
        return device

    def _plan(
        self, command: Command, device: Device, senders: tuple[Actor, ...], deadline_s: float = inf
    ) -> CommandPlan:
        """What it would do. Raises Rejected for values, points and arguments that are not as the device
        declares them (`unknown_point`, `read_only`, `invalid_value`, `out_of_range`), or `not_allowed`."""
        access = self.config.access
        plan = CommandPlan(command, device, senders, rank(access, senders, device.name), deadline_s)
        if isinstance(command, Set):
            values = checked_values(command.values, device.points, device.name)
            check_points(access, senders, device.name, values)
            return replace(plan, values=values)
        action = action_of(device, command.action)
        args = checked_args(action, command.args)
        if action.moves:
            check_points(access, senders, device.name, dict.fromkeys(device.safe_values))
        return replace(plan, action=action, args=args)

    def _admit(self, plan: CommandPlan, *, age_known: bool, takes_file: bool) -> None:
        """Raises Rejected: files that do not fit the action, `clock_unset`, and what the permit forbids."""
        check_files(plan, takes_file=takes_file)
        if not (age_known or plan.read_only):
            raise Rejected("clock_unset", "the command's age is not known yet: nor is the network's time")
        self._permit.admit(plan.motion)

    async def _carry_out(self, plan: CommandPlan, outcome: Outcome) -> File | None:
        """Commands of one device go one after the other. Raises as the steps do.

        One that makes safe waits for no other, nor for the disk that another waits for; those that came
        before it must not undo it.
        """
        name = plan.device.name
        if plan.makes_safe:
            self._check_lease(plan)
            self._permit.overtake(name)
        async with contextlib.nullcontext() if plan.makes_safe else self._safe_states.exclusive(name):
            try:
                self._permit.check_overtaken(plan.motion)
                await self._arbitrate(plan)
                self._limit(plan, plan.values, claim=not plan.makes_safe)
                await self._note(plan, outcome)
                return await self._write(plan, outcome)
            except asyncio.CancelledError:
                # Its task, session or the process ends, and nobody knows how far it came.
                if outcome.commanded is not None:
                    self._make_safe_in_doubt(plan, "was cut off")
                raise

    async def _arbitrate(self, plan: CommandPlan) -> None:
        """Whoever drives now keeps the device, or hands it over by way of its safe state.

        Raises Rejected `leased`, `device_offline`, `not_allowed`.
        """
        if self._check_lease(plan):
            self._take_lease(plan)
            await self._safe_states.all_safe(
                f"handed over to {plan.actor.label}", LEAVE_LIMIT_S, [plan.device.name]
            )
            self._check_lease(plan)

    def _check_lease(self, plan: CommandPlan) -> bool:
        """Whether it has to be handed over: somebody of a lower rank has the lease, or left the device away
        from safe without one. Raises Rejected as `_arbitrate` does."""
        device, holder, now_s = plan.device, plan.actor.holder, self._clock.monotonic_s()
        self._permit.check_session(plan.motion)
        if not device.online:
            raise Rejected("device_offline", f"device {device.name} is {device.state} ({device.reason})")
        if not plan.moves:
            return False
        if self.config.access.preempt and self.leases.yields_to(device.name, holder, plan.rank, now_s):
            return True
        self.leases.check(device.name, holder, now_s)
        unleased = self.leases.holder(device.name, now_s) is None
        return unleased and self._safe_states.away_by_other(device.name, holder)

    def _limit(self, plan: CommandPlan, values: Mapping[str, Value] | None, *, claim: bool = True) -> None:
        """Raises Rejected `interlocked`, `too_soon`, `out_of_range` by the owner's limits."""
        name, access = plan.device.name, self.config.access
        if values is None:
            return
        try:
            self._safe_states.check(name, values, claim=claim)
        except Interlocked as fault:
            if all(knows(access, actor, fault.other) for actor in plan.senders):
                raise
            # Do not name a device that this caller may not know.
            raise Rejected("interlocked", f"{name} is interlocked: the device forbids it now") from None

    async def _note(self, plan: CommandPlan, outcome: Outcome) -> None:
        """Durable in the Journal before anything moves. Raises NotRecorded."""
        if not plan.makes_safe:  # which never waits for a disk: twice does no harm, and not at all might
            key = (plan.actor.journal_key, plan.actor.id_key(plan.command))
            try:
                await self._journal.begin_command(*key, plan.device.name, self._clock.now_ms())
            except NotRecorded:
                if not plan.read_only:
                    raise
        outcome.commanded = plan.commanded
        if plan.moves:
            # Before it moves: a session that ends meanwhile must bring it back.
            self._safe_states.note_driver(plan.device.name, plan.actor.holder)

    async def _write(self, plan: CommandPlan, outcome: Outcome) -> File | None:
        """Do it, and account for it in `outcome`. Returns the file that an action gives.

        Raises Rejected where the permit forbids it now, and for an action's first step by the limits.
        """
        device, file = plan.device, None
        try:
            if plan.values is not None:
                await self._set(plan, plan.values, outcome)
                if plan.for_s is not None:
                    self._safe_states.follow_up(device, [Step(device.safe_values)], plan.for_s)
            else:
                file = await self._act(plan, outcome)
        except BusTimeout as error:
            outcome.fail(AckState.UNKNOWN, "bus_timeout", str(error))
            log.error("outcome_unknown", device=device.name, error=str(error))
        except (BusBusy, BusFaulted) as error:
            outcome.fail(AckState.FAILED, "bus_timeout", str(error))  # it never began
            return None
        except (BusError, DriverError) as error:
            offline = getattr(error, "reason", "") in ("unplugged", "absent")
            outcome.fail(AckState.FAILED, "device_offline" if offline else "internal", str(error))
        except AgentError:
            raise
        except Exception as error:
            log.exception("driver_failed", device=device.name)
            outcome.fail(AckState.FAILED, "internal", f"{type(error).__name__} in the driver")
        if outcome.state is not AckState.DONE:
            self._make_safe_in_doubt(plan, f"came out as {outcome.state}")
        elif plan.moves:
            self._take_lease(plan)
            # Once more: a safe state that waited for the bus before this write has cleared it.
            self._safe_states.note_driver(device.name, plan.actor.holder)
        return file

    async def _set(self, plan: CommandPlan, values: Mapping[str, Value], outcome: Outcome) -> None:
        device = plan.device
        written = await self._safe_states.write(device, values, plan.motion, urgent=plan.makes_safe)
        sure = values if device.confirms else written
        outcome.applied = {name: written.get(name, values[name]) for name in values if name in sure}
        asked = {name: value for name, value in values.items() if name in written}
        points = device.points
        wrong = [n for n, value in asked.items() if not same_value(written[n], value, points[n])]
        outcome.verified = len(asked) == len(values) and not wrong
        if wrong:
            read = ", ".join(f"{name} = {written[name]!r}" for name in wrong)
            outcome.fail(AckState.FAILED, "internal", f"{device.name} read back {read} after it was set")

    async def _act(self, plan: CommandPlan, outcome: Outcome) -> File | None:
        """An action: its driver does it, or returns steps that are carried out as commands are."""
        assert plan.action is not None
        if plan.action is SEND_FILE and plan.send is not None:
            self._permit.admit(plan.motion)
            await plan.send(plan.device)
            return None
        steps = await plan.device.do(
            plan.action.name, plan.args, may_begin=partial(self._permit.confirm, plan.motion)
        )
        if isinstance(steps, File) or not steps:
            return steps if isinstance(steps, File) else None
        for step in steps:
            check_points(self.config.access, plan.senders, plan.device.name, step.values)
        first, rest = steps[0], steps[1:]
        self._limit(plan, first.values)
        await self._set(plan, first.values, outcome)
        if rest and first.for_s is not None:
            self._safe_states.follow_up(plan.device, rest, first.for_s)
        return None

    def _acknowledge(self, command: Command, actor: Actor, outcome: Outcome, for_s: float | None) -> Ack:
        """The ack, which the Journal gives again to whoever repeats the id."""
        ack = outcome.ack(command.id)
        self._journal.finish_command(actor.journal_key, ack, self._clock.now_ms(), actor.id_key(command))
        self.answers[ack.state.value, "" if ack.error is None else ack.error.code] += 1
        self._record(actor, command.device, describe(command, for_s), ack)
        return ack

    def _record(self, actor: Actor, device: str, what: str, ack: Ack) -> None:
        """A row of the Journal and a line of the log."""
        who, state = actor.recorded, ack.state.value
        rule = "" if ack.error is None else f"{ack.error.code}: {ack.error.message}"
        self._journal.actuation(self._clock.now_ms(), who, device, what, state, rule)
        log.info("command", who=who, device=device, what=what[:200], state=state, rule=rule)

    def _take_lease(self, plan: CommandPlan) -> None:
        actor, now_s = plan.actor, self._clock.monotonic_s()
        if self._permit.has_ended(actor.holder):
            return  # while this was under way, and its leases with it
        self.leases.take(plan.device.name, actor.holder, actor.label, now_s, plan.rank)

    def _make_safe_in_doubt(self, plan: CommandPlan, how: str) -> None:
        """It may have happened, in part or in whole: the device goes to safe, and is away until then."""
        if plan.moves and plan.device.is_actuator:
            self._safe_states.mark_unknown(plan.device.name)
            self._safe_states.spawn_safe(plan.device.name, f"a command {how}")

    def _check_do(
        self, command: Command, senders: tuple[Actor, ...], bounds: Collection[str] | None
    ) -> dict[str, Value]:
        """The arguments of a delegation's action. Raises Rejected."""
        known = (*self._devices, *self.delegation_actions) if bounds is None else bounds
        return check_do(self.delegation_actions, known, self.config.access, command, senders)
