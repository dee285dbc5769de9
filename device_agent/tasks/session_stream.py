"""An open stream: a subscription and its queue outwards, `StreamInput` inwards.

A dedicated stream belongs to one session; a shared one to all sessions that are attached to it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from device_agent.commands.authorization import Actor
from device_agent.devices.device import Device
from device_agent.messages.commands import SessionCommand
from device_agent.messages.events import EventDraft
from device_agent.network import Caller, TaskLink
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.tasks.services import Services
from device_agent.tasks.stream_input import Attachment, Former, StreamInput
from device_agent.tasks.stream_scope import StreamScope
from device_agent.tasks.subscription import ByteSubscription, Subscription

# Callers of one shared stream who may hold its token still; of more, the first are forgotten.
FORMER_MAX = 1000


class StreamOwner(Protocol):
    """What a stream asks of the session that made it."""

    def on_command(self, stream: "SessionStream", command: SessionCommand) -> Mapping[str, Any]:
        """Carry out a session command that came on `stream`; what its answer adds. Raises Rejected."""

    def answer(self, draft: EventDraft) -> None:
        """Send an answer that the stream itself cannot, for it carries no events outwards."""


class SessionStream:
    """One open stream. `attach` per session; the last `detach` closes it."""

    def __init__(
        self,
        services: Services,
        scope: StreamScope,
        queue: ChannelQueue | None,
        session: StreamOwner,
        former: dict[Caller, Former] | None = None,
    ) -> None:
        """`queue` takes what goes out; None for an inbound stream. `former` outlives a shared stream."""
        self.scope = scope
        self.attached: dict[str, Attachment] = {}
        self.opening: set[str] = set()
        """Tasks that are about to attach to a shared stream."""
        self.subscription: Subscription | None = None
        self._outgoing: Subscription | ByteSubscription | None = None
        self._queue = queue
        self._session = session
        self._subscriptions = services.subscriptions
        self._clock = services.clock
        self._former = {} if former is None else former
        self._input = StreamInput(
            services,
            scope,
            self.attached,
            self.answer,
            lambda command: session.on_command(self, command),
            self._former,
        )
        if queue is not None and scope.spec.format == "events":
            self._outgoing = self.subscription = Subscription(scope, queue, services.clock)
        elif queue is not None:
            self._outgoing = ByteSubscription(scope, queue)

    def __repr__(self) -> str:
        spec = self.scope.spec
        sessions = f"{len(self.attached)} attached, {len(self.opening)} opening"
        return f"<SessionStream {spec.name}: {spec.affinity} {spec.direction} {spec.format}, {sessions}>"

    @property
    def in_use(self) -> bool:
        return bool(self.attached or self.opening)

    def last_inbound_s(self, task_id: str) -> float:
        """When this session's caller last sent anything here, or opened the stream; 0 if it never did."""
        attachment = self.attached.get(task_id)
        return 0.0 if attachment is None else attachment.last_inbound_s

    def silent_s(self, task_id: str, within_s: float) -> float:
        """How long its way has not worked (`network.Stream`); 0 while it is not open for this session."""
        attachment = self.attached.get(task_id)
        return 0.0 if attachment is None else attachment.stream.silent_s(within_s)

    async def attach(self, link: TaskLink, actor: Actor, streams: Sequence[str], *, announced: bool) -> None:
        """Open the stream for a session, and begin it unless the caller knows it already (`announced`).

        `streams` are all of the session, for the first event. Raises Refused when the network refuses.
        """
        task_id = link.start.task_id
        try:
            stream = await link.open_stream(self.scope.spec, self._queue, announced=announced)
        finally:
            self.opening.discard(task_id)
        first = not self.attached
        self.attached[task_id] = Attachment(link, actor, stream, self._clock.monotonic_s())
        self.collect()
        if first and self.scope.config.inward:
            self._input.start(stream)
        if self.subscription is not None and not announced:
            self.subscription.begin(streams, link.start.expires_at_ms)
            for draft in self._subscriptions.newest(self.scope.delegations):
                self.subscription.send(draft)

    def collect(self) -> None:
        """Queue what the devices report from now on. A session that continues after a restart does so at
        once: there may be no network to open the stream for hours."""
        if self._outgoing is not None:
            self._subscriptions.add(self._outgoing)

    async def detach(self, task_id: str, *, end: bool) -> bool:
        """A session leaves; True if it was the last one. With `end` nothing more comes for anybody."""
        attachment = self.attached.pop(task_id, None)
        self.opening.discard(task_id)
        # A session that waits for the network to open the stream has a right to what comes meanwhile.
        last = not self.in_use
        if last and self._outgoing is not None:
            self._subscriptions.remove(self._outgoing)
        if last and end and self._queue is not None and not self.scope.shared:
            self._queue.close()
        if attachment is not None:
            if self.scope.shared:
                self._note_former(attachment)
            await attachment.stream.close(end=end)
        if last:
            await self._input.close()
        return last

    def _note_former(self, attachment: Attachment) -> None:
        """Its caller may have the stream's token until the session was to end."""
        start, server_ms = attachment.link.start, attachment.link.server_ms()
        left_s = (start.duration_min or 1) * 60.0
        if start.expires_at_ms is not None and server_ms is not None:
            left_s = (start.expires_at_ms - server_ms) / 1000
        caller, until_s = attachment.actor.caller, self._clock.monotonic_s() + left_s
        before = self._former.pop(caller, None)
        self._former[caller] = Former(attachment.actor, max(until_s, before.until_s if before else 0.0))
        if len(self._former) > FORMER_MAX:
            self._former.pop(next(iter(self._former)))

    def replace(self, name: str, device: Device | None) -> None:
        """The configuration changed under an open stream: another device, or none, has this name."""
        before = self.scope.devices.pop(name, None)
        if before is None:
            return
        if device is not None:
            self.scope.devices[name] = device
        if self._outgoing is not None:
            self._outgoing.replace(name, before, device)

    def answer(self, draft: EventDraft) -> None:
        """Answer on this stream, or where the session decides if no events go outwards here."""
        if self.subscription is not None:
            self.subscription.send(draft)
        else:
            self._session.answer(draft)


class SharedSessionStreams:
    """The shared streams: made when the first session attaches, kept while any is attached."""

    def __init__(self) -> None:
        self._streams: dict[str, SessionStream] = {}
        self._former: dict[str, dict[Caller, Former]] = {}

    def get(
        self, name: str, task_id: str, make: Callable[[dict[Caller, Former]], SessionStream]
    ) -> SessionStream:
        """The stream for a session that is about to attach to it."""
        stream = self._streams.get(name)
        if stream is None or not stream.in_use:
            stream = self._streams[name] = make(self._former.setdefault(name, {}))
        # Noted here and not when it attaches: another session may ask in between.
        stream.opening.add(task_id)
        return stream
