"""Pipe tasks: sessions of readings and commands, from the first control event to exactly one terminal.

A session outlives the process: SIGTERM and crashes pause it, and the next process goes on with the same task,
streams and numbers while its duration lasts.
"""

import asyncio
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog

from device_agent.clock import Clock
from device_agent.commands.authorization import Actor, may
from device_agent.commands.executor import CommandExecutor
from device_agent.config import Config
from device_agent.config.access import AccessConfig
from device_agent.config.models import StreamConfig
from device_agent.devices.device import Device
from device_agent.devices.dispatcher import Dispatcher
from device_agent.errors import NetworkError, Rejected
from device_agent.messages.commands import Rate, Select, SessionWord, parse
from device_agent.messages.events import EventDraft
from device_agent.messages.requests import PipeRequest, parse_pipe_request
from device_agent.network import StartTask, StreamSpec, TaskLink
from device_agent.safety.safe_states import SafeStates
from device_agent.store.journal.journal import Journal
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.outbox import Outbox
from device_agent.tasks.session_stream import SessionStream

log = structlog.get_logger("session")

End = Literal["cancel", "expire", "terminate"]
# A stream id's length on the network, and what it may be made of.
STREAM_ID_MAX = 92


class SharedSessionStreams:
    """Ports of shared streams, made when the first session attaches and kept while any is attached."""

    def __init__(self) -> None:
        self._ports: dict[str, SessionStream] = {}

    def get(self, name: str, task_id: str, make: Callable[[], SessionStream]) -> SessionStream:
        port = self._ports.get(name)
        if port is None or not (port.attached or port.opening):
            port = self._ports[name] = make()
        # Noted here and not when it attaches: another session may ask in between.
        port.opening.add(task_id)
        return port


class PipeSession:
    """One pipe task. `run` ends with the session; cancelling `run` pauses it."""

    def __init__(
        self,
        link: TaskLink,
        config: Config,
        devices: Mapping[str, Device],
        dispatcher: Dispatcher,
        executor: CommandExecutor,
        safe_states: SafeStates,
        outbox: Outbox,
        journal: Journal,
        shared: SharedSessionStreams,
        clock: Clock,
        resumed: Mapping[str, Any] | None = None,
    ) -> None:
        self.link = link
        self.start = link.start
        self.actor = Actor(self.start.task_id, f"session {self.start.task_id[:8]}", self.start.caller, "pipe")
        self.ports: dict[str, SessionStream] = {}
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._config = config
        self._devices = devices
        self._dispatcher = dispatcher
        self._executor = executor
        self._safe_states = safe_states
        self._outbox = outbox
        self._journal = journal
        self._shared = shared
        self._clock = clock
        self._resumed = resumed
        self._began_s = clock.monotonic_s()
        self._announced: list[str] = list((resumed or {}).get("announced", ()))
        self._words: dict[str, dict[str, Any]] = dict((resumed or {}).get("words", {}))

    # -- what others ask ----------------------------------------

    def end(self, how: End) -> None:
        """The caller, the network or time ends the session."""
        if not self.ended.done():
            self.ended.set_result(how)

    @property
    def streams(self) -> int:
        return sum(1 for port in self.ports.values() if not port.shared)

    def replace(self, name: str, device: Device | None) -> None:
        """The configuration changed while the session runs."""
        for port in self.ports.values():
            port.replace(name, device)

    def judge_again(self, access: AccessConfig) -> None:
        """What it may not read any more leaves its own streams; one shared with others ends the session."""
        for port in self.ports.values():
            hidden = [name for name in port.devices if not may(access, "read", self.actor, name)]
            if hidden and port.shared:
                log.warning("session_lost_its_right", task=self.start.task_id, devices=hidden)
                self.end("terminate")
            elif not port.shared:
                for name in hidden:
                    port.replace(name, None)

    def remaining_s(self) -> float:
        """Time left, by the network's clock where it is known, else by our own since the start."""
        expires_ms, server_ms = self.start.expires_at_ms, self.link.server_ms()
        if expires_ms is not None and server_ms is not None:
            return (expires_ms - server_ms) / 1000
        return (self.start.duration_min or 1) * 60 - (self._clock.monotonic_s() - self._began_s)

    # -- life ----------------------------------------

    async def run(self) -> None:
        """From the request to the terminal."""
        log.info("session_begins", task=self.start.task_id, resumed=self._resumed is not None)
        try:
            await self._open_streams()
        except Rejected as rejected:
            await self._finish("failed", error=f"{rejected.code}: {rejected.message}")
            return
        except NetworkError as error:
            await self._finish("failed", error=f"internal: {error}")
            return
        how = await self._until_end()
        log.info("session_ends", task=self.start.task_id, how=how)
        match how:
            case "cancel":
                await self._finish("canceled")
            case "terminate":
                await self._finish("canceled", reason="terminated")
            case "expire":
                await self._finish("completed", completion_reason="duration_expired")

    async def _until_end(self) -> End:
        while True:
            remaining_s = self.remaining_s()
            if remaining_s <= 0 and not self.ended.done():
                return "expire"
            # The network's clock may be learned or corrected meanwhile: look again every minute.
            done, _ = await asyncio.wait([self.ended], timeout=max(0.0, min(60.0, remaining_s)))
            if done:
                return self.ended.result()

    async def _finish(self, state: Any, **members: str) -> None:
        """Hardware first, politeness last."""
        self._executor.session_ends(self.actor.holder)
        await self._safe_states.end_of_session(self.actor.holder)
        await asyncio.gather(*(self._close(port) for port in self.ports.values()))
        self.link.terminal(state, **members)

    async def _close(self, port: SessionStream) -> None:
        if await port.detach(self.start.task_id, end=True) and not port.shared:
            self._outbox.forget(port.spec.stream_id)

    async def pause(self) -> None:
        """The process ends, the session does not: streams stop where they are."""
        for port in self.ports.values():
            await port.detach(self.start.task_id, end=False)

    # -- streams ----------------------------------------

    async def _open_streams(self) -> None:
        request = parse_pipe_request(self.start.parts)
        chosen = self._chosen(request)
        opened = list(chosen)
        until_ms = self.start.expires_at_ms
        for name, stream in chosen.items():
            self.ports[name] = port = await self._port(name, stream)
            if name in self._announced:
                port.collect()
        # Before the first readings, which are to be those that were asked for.
        self._apply(request)
        for word in self._words.values():
            # What it names and this configuration has not is left out, as a reload leaves it out.
            self._pass_on(parse(word))  # type: ignore[arg-type]
        for name, port in self.ports.items():
            opening = asyncio.ensure_future(
                port.attach(
                    self.link,
                    self.actor,
                    announced=name in self._announced,
                    streams=opened,
                    until_ms=until_ms,
                )
            )
            await self._or_end(opening)
            if self.ended.done():
                return
            if name not in self._announced:
                self._announced.append(name)
                self._note()

    async def _or_end(self, opening: "asyncio.Future[None]") -> None:
        """Wait for a stream, unless the session ends first: its time runs out without a network too."""
        waits: list[asyncio.Future[Any]] = [opening, self.ended]
        try:
            while not (opening.done() or self.ended.done()):
                limit_s = min(60.0, self.remaining_s())
                if limit_s <= 0:
                    self.end("expire")
                    break
                await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
        finally:
            opening.cancel()

    def _chosen(self, request: PipeRequest) -> dict[str, StreamConfig]:
        declared = self._config.streams
        for name in request.streams or ():
            if name not in declared:
                known = ", ".join(declared) or "none"
                raise Rejected(
                    "invalid_value", f"request.streams: there is no stream {name!r}; there are: {known}"
                )
        for name in request.devices or ():
            if name not in self._devices or not self._may_read(name):
                raise Rejected("unknown_device", f"request.devices: there is no device {name!r}")
        chosen = {}
        for name in request.streams or declared:
            stream = declared[name]
            wanted = request.devices is None or not set(request.devices).isdisjoint(stream.devices)
            if not wanted and request.streams is None:
                continue
            if self._readable(name, stream):
                chosen[name] = stream
            elif request.streams is not None:
                raise Rejected("not_allowed", f"the owner's access rules do not let you read stream {name!r}")
        if not chosen:
            raise Rejected("not_allowed", "there is no stream here that you may read")
        return chosen

    def _readable(self, stream_name: str, stream: StreamConfig) -> bool:
        """A shared stream goes to all its callers, so each must be allowed all of it."""
        allowed = [self._may_read(name) for name in stream.devices]
        if stream.affinity == "shared":
            allowed += [self._may_read(name) for name in self._config.delegations_of(stream_name)]
        return all(allowed) if stream.affinity == "shared" else any(allowed)

    def _may_read(self, device: str) -> bool:
        return may(self._config.access, "read", self.actor, device)

    async def _port(self, name: str, stream: StreamConfig) -> SessionStream:
        shared = stream.affinity == "shared"
        index = list(self._config.streams).index(name) + 1
        id_ = name if shared else stream_id(self.start, index)
        lane = await self._outbox.open(id_, stream.format, stream.overflow) if stream.outward else None
        if shared:
            return self._shared.get(
                name, self.start.task_id, lambda: self._make_port(name, stream, id_, lane)
            )
        return self._make_port(name, stream, id_, lane)

    def _make_port(
        self, name: str, stream: StreamConfig, id_: str, lane: ChannelQueue | None
    ) -> SessionStream:
        names = [n for n in stream.devices if stream.affinity == "shared" or self._may_read(n)]
        port = SessionStream(
            StreamSpec(name, id_, stream.direction, stream.format, stream.affinity),
            stream,
            {n: self._devices[n] for n in names},
            lane,
            self._dispatcher,
            self._executor,
            self._clock,
            say=self._say_elsewhere,
            delegations=[one for one in self._config.delegations_of(name) if self._may_read(one)],
        )
        port.on_session_word = self._on_session_word
        return port

    def _say_elsewhere(self, draft: EventDraft) -> None:
        """Answers from an inbound-only stream go out on the first outbound events stream of the session."""
        for port in self.ports.values():
            if port.channel is not None:
                port.channel.say(draft)
                return

    def _note(self) -> None:
        """What a later process needs to go on where this one was."""
        session = {"announced": self._announced, "words": self._words}
        self._journal.note_session(self.start.task_id, session)

    # -- session words ----------------------------------------

    def _apply(self, request: PipeRequest) -> None:
        if request.devices is not None:
            self._spread(Select(kind="select", devices=list(request.devices)))
        if request.every_s is not None:
            self._spread(Rate(kind="rate", every_s=request.every_s))

    def _on_session_word(self, word: SessionWord) -> None:
        self._spread(word)
        told = word.model_dump(exclude_none=True)
        name = "select" if isinstance(word, Select) else "pause"
        if isinstance(word, Rate):
            # What a word leaves out stays as an earlier one has said.
            name = f"rate {word.device or ''}"
            told = {**self._words.get(name, {}), **told}
        self._words.pop(name, None)
        self._words[name] = told
        self._note()

    def _spread(self, word: SessionWord) -> None:
        known = {name for port in self.ports.values() if not port.shared for name in port.devices}
        named = word.devices if isinstance(word, Select) else [word.device] if isinstance(word, Rate) else []
        for name in named:
            if name is not None and name not in known:
                raise Rejected("unknown_device", f"no stream of this session carries a device {name!r}")
        self._pass_on(word)

    def _pass_on(self, word: SessionWord) -> None:
        for port in self.ports.values():
            if not port.shared:
                port.apply(word)

    # -- link loss ----------------------------------------

    def grace(self) -> dict[str, float]:
        """Actuators that this session may drive, with the seconds they may be without link."""
        found: dict[str, float] = {}
        for port in self.ports.values():
            if port.spec.direction == "outbound":
                continue
            for name in port.devices:
                found[name] = min(found.get(name, float("inf")), port.config.link_loss_grace_s)
        return found

    def silent(self, now_s: float) -> dict[str, float]:
        """Actuators of streams on which the caller has said nothing for `caller_silence_s`, which it is."""
        task_id = self.link.start.task_id
        heard_s = max((port.heard_s.get(task_id, 0.0) for port in self.ports.values()), default=now_s)
        return {
            name: limit_s
            for port in self.ports.values()
            if (limit_s := port.config.caller_silence_s) is not None and now_s - heard_s > limit_s
            for name in port.devices
        }


def stream_id(start: StartTask, index: int) -> str:
    """The id of a task's dedicated stream (protocol section 6)."""
    id_ = f"{start.task_id}-{index}"
    if len(id_) <= STREAM_ID_MAX and re.fullmatch(r"[A-Za-z0-9_-]+", id_):
        return id_
    return f"task-{zlib.crc32(start.task_id.encode()):08x}-{index}"
