"""What callers send on an open stream: commands, each answered with an ack, and bytes for its devices."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from device_agent.background import BackgroundTasks, Turns
from device_agent.clock import TokenBucket
from device_agent.commands.authorization import Actor
from device_agent.errors import BusError, DriverError, Fault, Rejected
from device_agent.messages import events
from device_agent.messages.acks import Ack, AckState
from device_agent.messages.commands import OWN_KINDS, Do, SessionCommand, Set, Stop, id_of, parse
from device_agent.messages.events import EventDraft
from device_agent.network import Caller, Inbound, Stream, TaskLink, Unreadable
from device_agent.tasks.services import Services
from device_agent.tasks.stream_scope import StreamScope

log = structlog.get_logger("stream")

# Commands of one stream under way at once, and those that wait for their turn; more are refused. Some places
# more are for commands that make safe, and a few for stops, which wait for no other.
COMMANDS_AT_ONCE = 32
COMMANDS_MAX = 256
SAFE_MAX = 64
STOPS_MAX = 8
SESSION_COMMANDS = (20, 1.0)
UNANSWERED_S = 1.0


@dataclass(slots=True)
class Attachment:
    """A session that uses a stream."""

    link: TaskLink
    actor: Actor
    stream: Stream
    last_inbound_s: float
    """When its caller last sent anything on this stream, or opened it; monotonic."""


@dataclass(frozen=True, slots=True)
class Former:
    """A caller who has left a shared stream, and may hold its token still; `until_s` is monotonic."""

    actor: Actor
    until_s: float


class StreamInput:
    """Parses what comes in, has it carried out, and answers. `attached`: the stream's sessions, by task."""

    def __init__(
        self,
        services: Services,
        scope: StreamScope,
        attached: Mapping[str, Attachment],
        answer: Callable[[EventDraft], None],
        session: Callable[[SessionCommand], Mapping[str, Any]],
        former: Mapping[Caller, Former],
    ) -> None:
        """`session` carries out a session command and returns what its answer adds, or raises Rejected."""
        self._executor = services.executor
        self._clock = services.clock
        self._scope = scope
        self._attached = attached
        self._answer = answer
        self._session = session
        self._former = former
        self._background = BackgroundTasks(f"stream {scope.spec.name}")
        self._room = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._under_way: Counter[str] = Counter()
        self._refusals = services.refusals
        self._session_commands = TokenBucket(*SESSION_COMMANDS, services.clock)
        self._unanswered = 0
        self._refused_bytes = 0

    def start(self, stream: Stream) -> None:
        self._background.run_forever(f"inbound {self._scope.spec.name}", lambda: self._listen(stream))

    async def close(self) -> None:
        """Take nothing more in; commands under way are cut off."""
        await self._background.close()

    async def _listen(self, stream: Stream) -> None:
        turns = Turns()
        async for item in stream.inbound():
            if not self._attached:
                continue
            self._note_sign_of_life()
            if self._scope.spec.format == "bytes":
                await self._pass_bytes(item)
            else:
                try:
                    self._handle(item)
                except Exception as error:
                    log.exception("event_failed", stream=self._scope.spec.name)
                    why = f"the agent failed at this event ({type(error).__name__}): see its log"
                    self._refuse(id_of(item.item), Fault("internal", why))
            await turns.give()

    # -- who sent it ----------------------------------------

    def _former_callers(self) -> list[Actor]:
        now_s = self._clock.monotonic_s()
        return [one.actor for one in self._former.values() if one.until_s > now_s]

    def _note_sign_of_life(self) -> None:
        """Of the only caller there can be: nobody keeps an actuator on, or off, in another's name."""
        actors = [*(one.actor for one in self._attached.values()), *self._former_callers()]
        if len({actor.caller for actor in actors}) == 1:
            for attachment in self._attached.values():
                attachment.last_inbound_s = self._clock.monotonic_s()

    def _sender(self, item: Inbound) -> tuple[Actor, list[Actor]]:
        """Who sent this by its name, and who else might have: on a shared stream a name proves nothing.

        At least one session must be attached.
        """
        actors = [one.actor for one in self._attached.values()]
        if not self._scope.shared:
            return actors[0], []
        actors = [replace(one, shared_stream=self._scope.spec.name) for one in actors]
        named = [one for one in actors if item.sender.startswith(f"{one.caller.user}-stream-")]
        sender = (named or actors)[0]
        return sender, [*(one for one in actors if one is not sender), *self._former_callers()]

    def _age_ms(self, item: Inbound) -> float | None:
        """How long ago it was sent, by the network's clock; None while that is not known."""
        server_ms = next(iter(self._attached.values())).link.server_ms()
        return None if server_ms is None else max(0.0, server_ms - item.sent_ms)

    # -- bytes ----------------------------------------

    async def _pass_bytes(self, item: Inbound) -> None:
        if not isinstance(item.item, bytes):
            return
        sender, possible_senders = self._sender(item)
        age_ms, name = self._age_ms(item), self._scope.spec.name
        # A copy: a reload may change the devices meanwhile.
        for device_name, device in list(self._scope.devices.items()):
            try:
                self._executor.admit_bytes(sender, device_name, age_ms, possible_senders)
                await device.send_bytes(item.item)
            except Rejected as rejected:
                self._refused_bytes += 1
                if self._refused_bytes == 1 or self._refused_bytes % 1000 == 0:
                    why, count = rejected.message, self._refused_bytes
                    log.warning("bytes_refused", stream=name, device=device_name, why=why, count=count)
            except (BusError, DriverError) as error:
                log.warning("bytes_not_sent", stream=name, device=device_name, error=str(error))
            except Exception:
                log.exception("driver_failed", device=device_name)

    # -- commands ----------------------------------------

    def _handle(self, item: Inbound) -> None:
        """Parse an event and have it carried out; waits for nothing, so that a stop is read at once."""
        event = item.item
        if isinstance(event, dict) and isinstance(kind := event.get("kind"), str) and kind in OWN_KINDS:
            return  # an event of another instance, on a stream that both serve
        try:
            if isinstance(event, Unreadable):
                raise Rejected("invalid_value", event.why)
            command = parse(event)
            match command:
                case Stop():
                    self._begin("stop", STOPS_MAX, self._stop(command, item))
                case Set() | Do():
                    # Before anything else: of a flood of these the refusals are to cost the least.
                    sender, possible_senders = self._sender(item)
                    self._executor.check_rights(command, (sender, *possible_senders), self._scope.names)
                    if self._executor.makes_safe(command):
                        self._begin("safe", SAFE_MAX, self._command(command, item, None))
                    else:
                        made_safe = self._executor.times_made_safe(command)
                        self._begin("command", COMMANDS_MAX, self._in_turn(command, item, made_safe))
                case _:
                    if not self._session_commands.take():
                        raise Rejected("too_soon", "too many session commands: one a second is carried out")
                    self._session_command(command)
        except Rejected as rejected:
            self._refuse(id_of(event), rejected.fault)

    def _begin(self, what: str, most: int, work: Coroutine[Any, Any, None]) -> None:
        """Raises Rejected `too_soon` when too many of these are under way on this stream."""
        if self._under_way[what] >= most:
            work.close()
            raise Rejected("too_soon", f"{most} of these are under way or wait on this stream already")
        self._under_way[what] += 1

        async def one() -> None:
            try:
                await work
            finally:
                self._under_way[what] -= 1

        self._background.spawn(what, one())

    async def _stop(self, command: Stop, item: Inbound) -> None:
        self._ack(await self._executor.stop(command, *self._sender(item), item.sent_ms))

    async def _in_turn(self, command: Set | Do, item: Inbound, made_safe: int) -> None:
        async with self._room:
            await self._command(command, item, made_safe)

    async def _command(self, command: Set | Do, item: Inbound, made_safe: int | None) -> None:
        if not self._attached:
            # The session ended after the command came: it drives nothing any more.
            log.info("command_after_the_end", stream=self._scope.spec.name, id=command.id)
            return
        sender, possible_senders = self._sender(item)
        names = self._scope.names
        if command.dry_run:
            ack = self._executor.dry_run(command, sender, devices=names, possible_senders=possible_senders)
        else:
            ack = await self._executor.execute(
                command,
                sender,
                age_ms=self._age_ms(item),
                devices=names,
                possible_senders=possible_senders,
                made_safe=made_safe,
            )
        self._ack(ack)

    def _refuse(self, id_: str, fault: Fault) -> None:
        """Answered one by one while there are few, and many at once when there are many."""
        actor = next((one.actor for one in self._attached.values()), None)
        name = f"stream {self._scope.spec.name}" if self._scope.shared or actor is None else actor.journal_key
        if self._refusals.take(name, self._clock):
            self._ack(Ack(id_, AckState.REJECTED, error=fault))
            return
        if not self._unanswered:
            self._background.spawn("refusals", self._answer_for_all())
        self._unanswered += 1

    async def _answer_for_all(self) -> None:
        await asyncio.sleep(UNANSWERED_S)
        why = f"{self._unanswered} more messages were refused, too many to answer each"
        self._unanswered = 0
        self._ack(Ack("", AckState.REJECTED, error=Fault("too_soon", why)))

    def _session_command(self, command: SessionCommand) -> None:
        try:
            answer = {"ok": True, **self._session(command)}
        except Rejected as rejected:
            answer = {"ok": False, "error": rejected.fault.members()}
        self._answer(events.control(self._clock.now_ms(), command.kind, answer))

    def _ack(self, ack: Ack) -> None:
        self._answer(events.ack(self._clock.now_ms(), ack))
