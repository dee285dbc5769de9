"""An open stream with its two sides: lane and channel outwards, words and bytes inwards.

A dedicated stream belongs to one session; a shared one to all sessions that are attached to it.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import structlog

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.commands.authorization import Actor
from device_agent.commands.executor import CommandExecutor
from device_agent.config.models import StreamConfig
from device_agent.devices.device import Device
from device_agent.devices.dispatcher import Dispatcher
from device_agent.errors import BusError, DriverError, Rejected
from device_agent.messages import events
from device_agent.messages.acks import Ack, AckState
from device_agent.messages.commands import (
    OWN_KINDS,
    Do,
    Pause,
    Rate,
    Replay,
    Resume,
    Select,
    SessionWord,
    Set,
    Stop,
    id_of,
    parse,
)
from device_agent.messages.events import EventDraft
from device_agent.network import Inbound, Stream, StreamSpec, TaskLink
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.tasks.subscription import Subscription

log = structlog.get_logger("stream")

# Commands of one stream under way at once; more wait in the network's queue.
COMMANDS_AT_ONCE = 32


class SessionStream:
    """One open stream. `attach` per session; the last `detach` closes it."""

    def __init__(
        self,
        spec: StreamSpec,
        config: StreamConfig,
        devices: Mapping[str, Device],
        lane: ChannelQueue | None,
        dispatcher: Dispatcher,
        executor: CommandExecutor,
        clock: Clock,
        *,
        say: Callable[[EventDraft], None] | None = None,
        delegations: Collection[str] = (),
    ) -> None:
        """`delegations`: those that this stream carries and its callers may hear."""
        self.spec = spec
        self.config = config
        self.devices = dict(devices)
        self.delegations = frozenset(delegations)
        self.lane = lane
        self.attached: dict[str, tuple[TaskLink, Actor, Stream]] = {}
        self.opening: set[str] = set()
        """Tasks that are about to attach to a shared stream."""
        self.refused = 0
        self.heard_s: dict[str, float] = {}
        """When each session last said anything here, by task; monotonic."""
        self._collecting = False
        self._dispatcher = dispatcher
        self._executor = executor
        self._clock = clock
        self._elsewhere = say
        self._background = BackgroundTasks(f"stream {spec.name}")
        self._room = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self.channel: Subscription | None = None
        if lane is not None and spec.format == "events":
            self.channel = Subscription(spec.name, lane, devices, clock, f"{spec.name}/{spec.stream_id}")
            self.channel.delegations = self.delegations

    @property
    def shared(self) -> bool:
        return self.spec.affinity == "shared"

    # -- life ----------------------------------------

    async def attach(
        self, link: TaskLink, actor: Actor, *, announced: bool, streams: Sequence[str], until_ms: int | None
    ) -> None:
        """Open the stream for a session. Raises Refused when the network will not have it."""
        try:
            stream = await link.open_stream(self.spec, self.lane, announced=announced)
        finally:
            self.opening.discard(link.start.task_id)
        first = not self.attached
        self.attached[link.start.task_id] = (link, actor, stream)
        self.heard_s[link.start.task_id] = self._clock.monotonic_s()
        self.collect()
        if first and self.spec.direction != "outbound":
            self._background.spawn(f"inbound {self.spec.name}", self._listen(stream))
        if self.channel is not None and not announced:
            self.channel.begin(streams=streams, until_ms=until_ms)
            for name in sorted(self.delegations & self._dispatcher.announced.keys()):
                self.channel.say(self._dispatcher.announced[name])

    def collect(self) -> None:
        """Queue what the devices say from now on. A session that goes on after a restart does so at once:
        there may be no network to open the stream for hours."""
        if self._collecting:
            return
        self._collecting = True
        if self.channel is not None:
            self._dispatcher.add(self.channel)
        elif self.lane is not None:
            for name in self.devices:
                self._dispatcher.add_bytes(name, self.lane)
                self.devices[name].watchers.add(self.lane.channel)

    async def detach(self, task_id: str, *, end: bool) -> bool:
        """A session leaves; True if it was the last one. With `end` nothing more comes for anybody."""
        link_actor_stream = self.attached.pop(task_id, None)
        self.heard_s.pop(task_id, None)
        self.opening.discard(task_id)
        # Who waits for the network to open it has a right to what comes meanwhile.
        last = not (self.attached or self.opening)
        if last:
            self._collecting = False
            if self.channel is not None:
                self._dispatcher.remove(self.channel)
            elif self.lane is not None:
                for name in self.devices:
                    self._dispatcher.remove_bytes(name, self.lane)
                    self.devices[name].watchers.remove(self.lane.channel)
            if self.lane is not None and end and not self.shared:
                self.lane.close()
        if link_actor_stream is not None:
            await link_actor_stream[2].close(end=end)
        if last:
            await self._background.close()
        return last

    def replace(self, name: str, device: Device | None) -> None:
        """The configuration changed under an open stream: another device, or none, under this name."""
        if name in self.devices:
            del self.devices[name]
            if device is not None:
                self.devices[name] = device
                if self.channel is None and self.lane is not None and self._collecting:
                    device.watchers.add(self.lane.channel)
            if self.channel is not None:
                self.channel.replace(name, device)
            elif device is None and self.lane is not None:
                self._dispatcher.remove_bytes(name, self.lane)

    def say(self, draft: EventDraft) -> None:
        """Answer on this stream, or where the session has decided when nothing goes outwards here."""
        if self.channel is not None:
            self.channel.say(draft)
        elif self._elsewhere is not None:
            self._elsewhere(draft)

    # -- inwards ----------------------------------------

    def _hear(self, item: Inbound) -> None:
        """A sign of life of whom it names; of everybody where it names nobody."""
        self.heard_s.update(dict.fromkeys(self._named(item) or self.attached, self._clock.monotonic_s()))

    def _named(self, item: Inbound) -> list[str]:
        """The sessions, by task, whose caller has the sender's name."""
        return [
            task_id
            for task_id, (_, actor, _) in self.attached.items()
            if item.sender.startswith(f"{actor.caller.user}-stream-")
        ]

    async def _listen(self, stream: Stream) -> None:
        async for item in stream.inbound():
            if not self.attached:
                continue
            self._hear(item)
            if self.spec.format == "bytes":
                await self._bytes_in(item)
            else:
                await self._event_in(item)

    async def _bytes_in(self, item: Inbound) -> None:
        who, possible_senders = self._sender(item)
        # A copy: the configuration may change while the bus is at it.
        for name, device in list(self.devices.items()):
            try:
                self._executor.admit_bytes(who, name, possible_senders)
                await device.send_bytes(item.item)
            except Rejected as rejected:
                self.refused += 1
                log.debug("bytes_refused", stream=self.spec.name, device=name, why=rejected.message)
            except (BusError, DriverError) as error:
                log.warning("bytes_not_sent", stream=self.spec.name, device=name, error=str(error))
            except Exception:
                log.exception("driver_failed", device=name)

    async def _event_in(self, item: Inbound) -> None:
        event = item.item
        if isinstance(event, dict) and event.get("kind") in OWN_KINDS:
            return  # another instance's words on a stream that both serve
        try:
            word = parse(event)
        except Rejected as rejected:
            self._ack(Ack(id_of(event), AckState.REJECTED, error=rejected.fault))
            return
        if isinstance(word, Stop):
            self._background.spawn(f"stop {word.id}", self._stop(word, item))
        elif isinstance(word, (Set, Do)):
            await self._room.acquire()
            self._background.spawn(f"command {word.id}", self._command(word, item))
        else:
            self._session_word(word)

    async def _command(self, word: Set | Do, item: Inbound) -> None:
        try:
            if not self.attached:
                # The session ended between the command's arrival and its turn: it drives nothing any more.
                log.info("command_after_the_end", stream=self.spec.name, id=word.id)
                return
            who, possible_senders = self._sender(item)
            bounds = {*self.devices, *self.delegations}
            if word.dry_run:
                self._ack(
                    self._executor.preview(word, who, devices=bounds, possible_senders=possible_senders)
                )
                return
            link = next(iter(self.attached.values()))[0]
            server_ms = link.server_ms()
            age_ms = None if server_ms is None else max(0.0, server_ms - item.sent_ms)
            self._ack(
                await self._executor.execute(
                    word, who, age_ms=age_ms, devices=bounds, possible_senders=possible_senders
                )
            )
        finally:
            self._room.release()

    async def _stop(self, word: Stop, item: Inbound) -> None:
        who, _ = self._sender(item)
        self._ack(await self._executor.stop(word, who))

    def _sender(self, item: Inbound) -> tuple[Actor, list[Actor]]:
        """Who sent this, and who else might have: on a shared stream the sender's name proves nothing.

        Somebody must be attached.
        """
        who = self.attached[next(iter(self._named(item) or self.attached))][1]
        return who, [actor for _, actor, _ in self.attached.values() if actor is not who]

    def _ack(self, ack: Ack) -> None:
        self.say(events.ack(self._clock.now_ms(), ack))

    # -- session words ----------------------------------------

    def _session_word(self, word: SessionWord) -> None:
        answer: dict[str, Any] = {"ok": True}
        try:
            if self.shared:
                raise Rejected("not_allowed", "a shared stream has one writer for all its callers")
            self.session_word(word, answer)
        except Rejected as rejected:
            answer = {"ok": False, "error": rejected.fault.members()}
        self.say(events.control(self._clock.now_ms(), word.kind, answer))

    on_session_word: Callable[[SessionWord], None] | None = None

    def session_word(self, word: SessionWord, answer: dict[str, Any]) -> None:
        """Apply a word to all dedicated streams of the session, which the session sees to."""
        if isinstance(word, Replay):
            first = self.lane.replay(word.from_seq) if self.lane is not None and self.channel else None
            if first is None:
                raise Rejected("invalid_value", f"nothing from seq {word.from_seq} on is kept any more")
            answer["from_seq"] = first
            return
        if self.on_session_word is not None:
            self.on_session_word(word)

    def apply(self, word: SessionWord) -> None:
        """One stream's part of a session word."""
        if self.channel is None:
            return
        match word:
            case Pause():
                self.channel.paused = True
            case Resume():
                self.channel.paused = False
            case Select():
                self.channel.select(word.devices)
            case Rate():
                self.channel.rate(word)
