"""What callers send on an open stream: commands, each answered with an ack, and bytes for its devices."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from device_agent.background import BackgroundTasks
from device_agent.commands.authorization import Actor
from device_agent.errors import BusError, DriverError, Rejected
from device_agent.messages import events
from device_agent.messages.acks import Ack, AckState
from device_agent.messages.commands import OWN_KINDS, Do, SessionCommand, Set, Stop, id_of, parse
from device_agent.messages.events import EventDraft
from device_agent.network import Inbound, Stream, TaskLink
from device_agent.tasks.services import Services
from device_agent.tasks.stream_scope import StreamScope

log = structlog.get_logger("stream")

# Commands of one stream under way at once; more wait in the network's queue.
COMMANDS_AT_ONCE = 32


@dataclass(slots=True)
class Attachment:
    """A session that uses a stream."""

    link: TaskLink
    actor: Actor
    stream: Stream
    last_inbound_s: float
    """When its caller last sent anything on this stream, or opened it; monotonic."""


class StreamInput:
    """Parses what comes in, has it carried out, and answers. `attached`: the stream's sessions, by task."""

    def __init__(
        self,
        services: Services,
        scope: StreamScope,
        attached: Mapping[str, Attachment],
        answer: Callable[[EventDraft], None],
        session: Callable[[SessionCommand], Mapping[str, Any]],
    ) -> None:
        """`session` carries out a session command and returns what its answer adds, or raises Rejected."""
        self._executor = services.executor
        self._clock = services.clock
        self._scope = scope
        self._attached = attached
        self._answer = answer
        self._session = session
        self._background = BackgroundTasks(f"stream {scope.spec.name}")
        self._room = asyncio.Semaphore(COMMANDS_AT_ONCE)

    def start(self, stream: Stream) -> None:
        self._background.spawn(f"inbound {self._scope.spec.name}", self._listen(stream))

    async def close(self) -> None:
        """Take nothing more in; commands under way are cut off."""
        await self._background.close()

    async def _listen(self, stream: Stream) -> None:
        async for item in stream.inbound():
            if not self._attached:
                continue
            for task_id in self._senders(item) or self._attached:
                self._attached[task_id].last_inbound_s = self._clock.monotonic_s()
            if self._scope.spec.format == "bytes":
                await self._pass_bytes(item)
            else:
                await self._handle(item)

    # -- who sent it ----------------------------------------

    def _senders(self, item: Inbound) -> list[str]:
        """The sessions, by task, whose caller has the sender's name."""
        return [
            task_id
            for task_id, attachment in self._attached.items()
            if item.sender.startswith(f"{attachment.actor.caller.user}-stream-")
        ]

    def _sender(self, item: Inbound) -> tuple[Actor, list[Actor]]:
        """Who sent this, and who else might have: on a shared stream the sender's name proves nothing.

        At least one session must be attached.
        """
        sender = self._attached[next(iter(self._senders(item) or self._attached))].actor
        return sender, [a.actor for a in self._attached.values() if a.actor is not sender]

    # -- bytes ----------------------------------------

    async def _pass_bytes(self, item: Inbound) -> None:
        sender, possible_senders = self._sender(item)
        name = self._scope.spec.name
        # A copy: a reload may change the devices meanwhile.
        for device_name, device in list(self._scope.devices.items()):
            try:
                self._executor.admit_bytes(sender, device_name, possible_senders)
                await device.send_bytes(item.item)
            except Rejected as rejected:
                log.debug("bytes_refused", stream=name, device=device_name, why=rejected.message)
            except (BusError, DriverError) as error:
                log.warning("bytes_not_sent", stream=name, device=device_name, error=str(error))
            except Exception:
                log.exception("driver_failed", device=device_name)

    # -- commands ----------------------------------------

    async def _handle(self, item: Inbound) -> None:
        """Parse an event and have it carried out; waits while too many commands are under way."""
        event = item.item
        if isinstance(event, dict) and event.get("kind") in OWN_KINDS:
            return  # an event of another instance, on a stream that both serve
        try:
            command = parse(event)
        except Rejected as rejected:
            self._ack(Ack(id_of(event), AckState.REJECTED, error=rejected.fault))
            return
        match command:
            case Stop():
                self._background.spawn(f"stop {command.id}", self._stop(command, self._sender(item)[0]))
            case Set() | Do():
                await self._room.acquire()
                self._background.spawn(f"command {command.id}", self._command(command, item))
            case _:
                self._session_command(command)

    async def _stop(self, command: Stop, sender: Actor) -> None:
        self._ack(await self._executor.stop(command, sender))

    async def _command(self, command: Set | Do, item: Inbound) -> None:
        try:
            if not self._attached:
                # The session ended after the command came: it drives nothing any more.
                log.info("command_after_the_end", stream=self._scope.spec.name, id=command.id)
                return
            self._ack(await self._carry_out(command, item))
        finally:
            self._room.release()

    async def _carry_out(self, command: Set | Do, item: Inbound) -> Ack:
        sender, possible_senders = self._sender(item)
        names = {*self._scope.devices, *self._scope.delegations}
        if command.dry_run:
            return self._executor.preview(command, sender, devices=names, possible_senders=possible_senders)
        server_ms = next(iter(self._attached.values())).link.server_ms()
        age_ms = None if server_ms is None else max(0.0, server_ms - item.sent_ms)
        return await self._executor.execute(
            command, sender, age_ms=age_ms, devices=names, possible_senders=possible_senders
        )

    def _session_command(self, command: SessionCommand) -> None:
        try:
            answer = {"ok": True, **self._session(command)}
        except Rejected as rejected:
            answer = {"ok": False, "error": rejected.fault.members()}
        self._answer(events.control(self._clock.now_ms(), command.kind, answer))

    def _ack(self, ack: Ack) -> None:
        self._answer(events.ack(self._clock.now_ms(), ack))
