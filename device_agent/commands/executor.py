"""A command's way to an actuator: known, allowed, in time, leased, within limits, journalled, done, answered.

At most once by `id`; in doubt `unknown`, and the actuator goes to safe. Everybody who drives comes through
here: sessions, requests, the command line.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import structlog

from device_agent.commands import delegation_action
from device_agent.commands.authorization import (
    Actor,
    check_drive,
    check_points,
    check_read_only,
    known_device,
    knows,
    may,
    rank,
)
from device_agent.commands.plan import CommandPlan, Outcome, Send, action_of, check_files, describe
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
from device_agent.messages.commands import Command, Set, Stop, checked_args, checked_values
from device_agent.records import SEND_FILE, File, Step, Value, same_value
from device_agent.safety.emergency_stop import EmergencyStop
from device_agent.safety.leases import Leases
from device_agent.safety.safe_states import SafeStates

log = structlog.get_logger("command")

# Sessions that ended a moment ago and may have commands in the queue.
ENDED_MAX = 1000


class CommandExecutor:
    """Owns the leases; limits and safe states are of `SafeStates`."""

    def __init__(
        self,
        config: Config,
        context: Context,
        safe_states: SafeStates,
        emergency_stop: EmergencyStop,
        questions: Mapping[str, delegation_action.DelegationAction],
    ) -> None:
        """`questions` are filled later: by name; the right to drive one is the right to ask it."""
        self.config = config
        self.questions = questions
        self.leases = Leases(config.safety.lease_idle_s)
        self._devices = context.devices
        self._safe_states = safe_states
        self._emergency_stop = emergency_stop
        self._journal = context.journal
        self._clock = context.clock
        self._ended: dict[str, None] = {}

    def take(self, config: Config) -> None:
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
        for_s: float | None = None,
        take: Callable[[File], None] | None = None,
        send: Send | None = None,
    ) -> Ack:
        """Carry out one command and return its ack.

        `age_ms` is how old it was when it came, by the transport's clock (None: that clock is not known yet).
        `devices` bounds what this stream may name. `possible_senders` are others who might have sent it: on a
        shared stream nobody can tell, so all need the right. `for_s` puts a set back to safe after that.
        `take` is given the file that an action made (without it: refused); `send` passes on one that came.
        """
        arrived_s = self._clock.monotonic_s() - (age_ms or 0.0) / 1000
        key = actor.journal_key
        if (first := await self._journal.first_answer(key, command.id)) is not None:
            return replace(first, repeated=True)
        outcome = Outcome()
        try:
            if command.device in self.questions:
                await self._ask(command, (actor, *possible_senders), devices, arrived_s)
                return outcome.ack(command.id)
            plan = replace(self._checked(command, actor, devices, possible_senders, for_s), send=send)
            check_files(plan, take)
            if age_ms is None and not plan.read_only:
                raise Rejected("clock_unset", "the command's age is not known yet: nor is the network's time")
            may_begin = self._beginning(plan, command, arrived_s + command.ttl_ms / 1000)
            may_begin()
            given = await self._in_turn(outcome, plan, command, may_begin)
            if given is not None and take is not None:
                take(given)
        except Rejected as rejected:
            outcome.fail(AckState.REJECTED, rejected.code, rejected.message)
        except asyncio.CancelledError:
            outcome.fail(AckState.UNKNOWN, "internal", "the session ended while the command was carried out")
            raise
        except Exception as error:
            log.exception("command_failed", device=command.device)
            outcome.fail(AckState.UNKNOWN, "internal", f"{type(error).__name__} in the agent: see its log")
        finally:
            ack = outcome.ack(command.id)
            self._journal.finish_command(key, ack, self._clock.now_ms())
            self._record(command, actor, outcome)
        return ack

    async def _in_turn(
        self, outcome: Outcome, plan: CommandPlan, command: Command, may_begin: Callable[[], None]
    ) -> File | None:
        """One command of a device after the other, each durable in the Journal before anything moves."""
        key, name = plan.actor.journal_key, plan.device.name
        async with self._safe_states.turn(name):
            try:
                if self._checked_moment(plan):
                    await self._hand_over(plan)
                    self._checked_moment(plan)
                what, now_ms = command.model_dump(), self._clock.now_ms()
                try:
                    await self._journal.begin_command(key, command.id, what, now_ms)
                except NotRecorded as error:
                    # Making safe twice is no harm, and not at all would be one.
                    if not (plan.makes_safe or plan.read_only):
                        outcome.fail(AckState.FAILED, "internal", str(error))
                        return None
                outcome.commanded = plan.values if plan.values is not None else plan.args
                if plan.moves:
                    # Noted before it moves: a session that ends meanwhile must bring it back.
                    self._safe_states.driven(name, plan.actor.holder)
                return await self._perform(outcome, plan, may_begin)
            except asyncio.CancelledError:
                # Its task, session or the process ends, and nobody knows how far it came.
                if outcome.commanded is not None:
                    self._in_doubt(plan, "was cut off")
                raise
            finally:
                self._safe_states.settle(name)

    def _still_there(self, actor: Actor) -> None:
        if actor.holder in self._ended:
            raise Rejected("not_allowed", "the session that sent this has ended")

    def session_ends(self, holder: str) -> None:
        """What it still has in the queue is refused, and its leases end."""
        self._ended[holder] = None
        self.leases.release(holder)
        if len(self._ended) > ENDED_MAX:
            self._ended.pop(next(iter(self._ended)))

    async def stop(self, command: Stop, actor: Actor) -> Ack:
        """The emergency stop, by anybody who may drive anything; never too late."""
        if not any(may(self.config.access, "drive", actor, name) for name in self._devices):
            fault = Fault("not_allowed", "the owner's access rules do not let you drive anything")
            return Ack(command.id, AckState.REJECTED, error=fault)
        if all((await self._emergency_stop.press(actor.label)).values()):
            return Ack(command.id)
        fault = Fault("internal", "latched, but not everything is known to be safe yet")
        return Ack(command.id, AckState.UNKNOWN, error=fault)

    def request_ends(self, holder: str) -> None:
        """Its leases end; what it set stays, within its limits."""
        self.leases.release(holder)
        self._safe_states.leaves_as_it_is(holder)

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
        try:
            if command.device in self.questions:
                questions, access = self.questions, self.config.access
                delegation_action.checked(
                    questions, self._devices, access, command, (actor, *possible_senders), devices
                )
                questions[command.device].check()
                return Ack(command.id, dry_run=True)
            plan = self._checked(command, actor, devices, possible_senders, None)
            if not plan.read_only:
                self._safe_states.may_move(plan.device.name)
            ousts = self._checked_moment(plan, claim=False)
            commanded = plan.values if plan.values is not None else plan.args
        except Rejected as rejected:
            return Ack(command.id, AckState.REJECTED, error=rejected.fault, dry_run=True)
        return Ack(command.id, commanded=commanded, hand_over=ousts, dry_run=True)

    def admit_bytes(self, actor: Actor, device: str, possible_senders: Collection[Actor] = ()) -> None:
        """Bytes for a device: as a command, they take the lease. Raises Rejected."""
        self._safe_states.may_move(device)
        self._still_there(actor)
        check_drive(self.config.access, (actor, *possible_senders), device)
        now_s = self._clock.monotonic_s()
        self.leases.check(device, actor.holder, now_s)
        if self.leases.holder(device, now_s) is None:
            # One row each time that somebody begins; what is typed is not ours to keep.
            self._journal.actuation(self._clock.now_ms(), actor.label, device, "bytes", "done")
        place = rank(self.config.access, (actor, *possible_senders), device)
        self.leases.take(device, actor.holder, actor.label, now_s, place)

    # -- checks ----------------------------------------

    def _checked(
        self,
        command: Command,
        actor: Actor,
        devices: Collection[str] | None,
        possible_senders: Collection[Actor],
        for_s: float | None,
    ) -> CommandPlan:
        access, actors = self.config.access, (actor, *possible_senders)
        bounds = devices if devices is not None else self._devices
        device = known_device(access, actor, command.device, self._devices, bounds)
        read_only = not isinstance(command, Set) and action_of(device, command.action).read_only
        (check_read_only if read_only else check_drive)(access, actors, device.name)
        place = rank(access, actors, device.name)
        if isinstance(command, Set):
            values = checked_values(command.values, device.points, device.name)
            check_points(access, actors, device.name, values)
            return CommandPlan(device, actor, place, actors, values, None, {}, for_s)
        action = action_of(device, command.action)
        args = checked_args(action, command.args)
        if action.moves:
            check_points(access, actors, device.name, dict.fromkeys(device.safe_values))
        return CommandPlan(device, actor, place, actors, None, action, args, for_s)

    def _beginning(self, plan: CommandPlan, command: Command, deadline_s: float) -> Callable[[], None]:
        """What is checked again right before it happens, on the bus's thread. Raises Rejected."""

        def may_begin() -> None:
            self._still_there(plan.actor)
            if not plan.read_only:
                self._safe_states.may_move(plan.device.name)
                self._in_time(deadline_s, command)

        return may_begin

    async def _ask(
        self, command: Command, actors: Sequence[Actor], bounds: Collection[str] | None, arrived_s: float
    ) -> None:
        access, questions = self.config.access, self.questions
        args = delegation_action.checked(questions, self._devices, access, command, actors, bounds)
        self._in_time(arrived_s + command.ttl_ms / 1000, command)
        await questions[command.device].ask(args, actors[0].label, command.id)

    def _in_time(self, deadline_s: float, command: Command) -> None:
        late_ms = (self._clock.monotonic_s() - deadline_s) * 1000
        if late_ms > 0:
            raise Rejected(
                "expired", f"came {late_ms:.0f} ms after its ttl_ms of {command.ttl_ms} had run out"
            )

    def _checked_moment(self, plan: CommandPlan, *, claim: bool = True) -> bool:
        """Raises Rejected. True: it may go on after `_hand_over`, and is checked again then."""
        device, now_s = plan.device, self._clock.monotonic_s()
        self._still_there(plan.actor)
        if not device.online:
            raise Rejected("device_offline", f"device {device.name} is {device.state} ({device.reason})")
        if plan.moves:
            name, holder = device.name, plan.actor.holder
            if self.config.access.preempt and self.leases.yields_to(name, holder, plan.rank, now_s):
                return True
            self.leases.check(name, holder, now_s)
            if self.leases.holder(name, now_s) is None and self._safe_states.left_away_by_other(name, holder):
                return True
        if plan.values is not None:
            self._check_limits(plan, plan.values, claim=claim)
        return False

    def _check_limits(self, plan: CommandPlan, values: Mapping[str, Value], *, claim: bool = True) -> None:
        name = plan.device.name
        try:
            self._safe_states.check(name, values, claim=claim)
        except Interlocked as fault:
            access = self.config.access
            if all(knows(access, actor, fault.other) for actor in plan.actors):
                raise
            # The other device does not exist for this caller.
            raise Rejected("interlocked", f"{name} is interlocked: the device forbids it now") from None

    async def _hand_over(self, plan: CommandPlan) -> None:
        """The device goes to another driver, by way of its safe state."""
        self._take(plan)
        await self._safe_states.make_safe(plan.device.name, f"handed over to {plan.actor.label}")

    def _take(self, plan: CommandPlan) -> None:
        actor, now_s = plan.actor, self._clock.monotonic_s()
        self.leases.take(plan.device.name, actor.holder, actor.label, now_s, plan.rank)

    # -- doing ----------------------------------------

    async def _perform(
        self, outcome: Outcome, plan: CommandPlan, may_begin: Callable[[], None]
    ) -> File | None:
        device, given = plan.device, None
        try:
            if plan.values is not None:
                await self._write(outcome, device, plan.values, may_begin)
                if plan.for_s is not None:
                    self._safe_states.start_plan(device, [Step(device.safe_values)], plan.for_s)
            else:
                given = await self._act(outcome, plan, may_begin)
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
            self._in_doubt(plan, f"came out as {outcome.state}")
        elif plan.moves:
            self._take(plan)
            # Once more: a safe state that stood before it in the queue has forgotten who drives.
            self._safe_states.driven(device.name, plan.actor.holder)
        return given

    def _in_doubt(self, plan: CommandPlan, how: str) -> None:
        """It may have happened, in part or in whole."""
        if plan.moves and plan.device.is_actuator:
            self._safe_states.mark_unknown(plan.device.name)
            self._safe_states.spawn_safe(plan.device.name, f"a command {how}")

    async def _write(
        self, outcome: Outcome, device: Device, values: Mapping[str, Value], may_begin: Callable[[], None]
    ) -> None:
        written = (await self._safe_states.write(device, values, may_begin)).read_back
        outcome.applied = {name: written.get(name, value) for name, value in values.items()}
        asked = {name: value for name, value in values.items() if name in written}
        wrong = [name for name, value in asked.items() if not same_value(written[name], value)]
        outcome.verified = len(asked) == len(values) and not wrong
        if wrong:
            read = ", ".join(f"{name} = {written[name]!r}" for name in wrong)
            outcome.fail(AckState.FAILED, "internal", f"{device.name} read back {read} after it was set")

    async def _act(self, outcome: Outcome, plan: CommandPlan, may_begin: Callable[[], None]) -> File | None:
        assert plan.action is not None
        if plan.action is SEND_FILE and plan.send is not None:
            may_begin()
            await plan.send(plan.device)
            return None
        steps = await plan.device.do(plan.action.name, plan.args, may_begin=may_begin)
        if isinstance(steps, File) or not steps:
            return steps if isinstance(steps, File) else None
        for step in steps:
            check_points(self.config.access, plan.actors, plan.device.name, step.values)
        first, rest = steps[0], steps[1:]
        self._check_limits(plan, first.values)
        await self._write(outcome, plan.device, first.values, may_begin)
        if rest and first.for_s is not None:
            self._safe_states.start_plan(plan.device, rest, first.for_s)
        return None

    def _record(self, command: Command, actor: Actor, outcome: Outcome) -> None:
        what = describe(command)
        rule = f"{outcome.error.code}: {outcome.error.message}" if outcome.error is not None else ""
        now_ms = self._clock.now_ms()
        self._journal.actuation(now_ms, actor.label, command.device, what[:500], outcome.state, rule[:500])
        log.info(
            "command", who=actor.label, device=command.device, what=what[:200], state=outcome.state, rule=rule
        )
