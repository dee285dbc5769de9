"""Pipe tasks: sessions of readings and commands, from the first control event to exactly one terminal.

A session outlives the process: SIGTERM and crashes pause it, and the next process continues the same task,
streams and numbers while its duration lasts.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import structlog

from device_agent.background import first_of
from device_agent.clock import TokenBucket
from device_agent.commands.authorization import Actor, may
from device_agent.config.access import AccessConfig
from device_agent.devices.device import Device
from device_agent.errors import NetworkError, Rejected
from device_agent.messages.commands import Pause, Rate, Replay, Resume, Select, SessionCommand, parse
from device_agent.messages.events import EventDraft
from device_agent.messages.requests import PipeRequest, parse_pipe_request
from device_agent.network import Caller, TaskLink, TerminalState
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.tasks.services import Services
from device_agent.tasks.session_stream import SessionStream, SharedSessionStreams
from device_agent.tasks.stream_input import Former
from device_agent.tasks.stream_scope import choose_streams, scope_of, spec_of

log = structlog.get_logger("session")

End = Literal["cancel", "expire", "terminate"]
# The network's clock may be learned or corrected at any time: the time left is looked at this often.
LOOK_S = 60.0
# Writing down what a session has asked for: whoever may only read must not wear out the disk.
SAVES = (20, 1 / LOOK_S)


class SessionState(StrEnum):
    """How far a session is."""

    OPENING = "opening"
    RUNNING = "running"
    PAUSED = "paused"
    """The process ends; the next one continues it."""
    ENDED = "ended"


@dataclass(slots=True)
class SavedSession:
    """What a later process needs to continue a session; kept in the Journal."""

    announced: list[str] = field(default_factory=list)
    """The streams that the caller knows."""
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The session commands in force, in their order, by what they are about."""

    @classmethod
    def from_journal(cls, saved: Mapping[str, Any]) -> "SavedSession":
        return cls(list(saved.get("announced", ())), dict(saved.get("words", {})))

    def to_journal(self) -> dict[str, Any]:
        return {"announced": self.announced, "words": self.commands}

    def add(self, command: SessionCommand) -> None:
        """This command is in force, instead of an earlier one about the same."""
        members = command.members(but_none=True)
        match command:
            case Rate():
                # What a command leaves out stays as an earlier one has set it.
                about = f"rate {command.device or ''}"
                members = {**self.commands.get(about, {}), **members}
            case Pause() | Resume():
                about = "pause"
            case _:
                about = command.kind
        self.commands.pop(about, None)
        self.commands[about] = members


class PipeSession:
    """One pipe task. `run` ends with the session; who cancels `run` calls `pause`."""

    def __init__(
        self,
        services: Services,
        link: TaskLink,
        shared: SharedSessionStreams,
        saved: SavedSession | None = None,
    ) -> None:
        """`saved`: the session began in an earlier process."""
        self.link = link
        self.start = link.start
        task_id = self.start.task_id
        self.actor = Actor(f"task:{task_id}", f"session {task_id[:8]}", self.start.caller, "pipe")
        self.streams: dict[str, SessionStream] = {}
        self.state = SessionState.OPENING
        self._ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._services = services
        self._config = services.config
        self._shared = shared
        self._resumed = saved is not None
        self._saved = saved or SavedSession()
        self._saves, self._unsaved = TokenBucket(*SAVES, services.clock), False
        self._began_s = services.clock.monotonic_s()

    def __repr__(self) -> str:
        return f"<PipeSession {self.start.task_id} {self.state}, streams {', '.join(self.streams) or 'none'}>"

    # -- what others ask ----------------------------------------

    def end(self, how: End) -> None:
        """The caller, the network or time ends the session."""
        if not self._ended.done():
            self._ended.set_result(how)

    @property
    def dedicated(self) -> list[SessionStream]:
        """The streams that belong to this session alone."""
        return [stream for stream in self.streams.values() if not stream.scope.shared]

    def replace(self, name: str, device: Device | None) -> None:
        """The configuration changed while the session runs: another device, or none, has this name."""
        for stream in self.streams.values():
            stream.replace(name, device)

    def judge_again(self, access: AccessConfig) -> None:
        """What it may not read any more leaves its own streams; one shared with others ends the session."""
        for stream in self.streams.values():
            hidden = [name for name in stream.scope.devices if not may(access, "read", self.actor, name)]
            if hidden and stream.scope.shared:
                log.warning("session_lost_its_right", task=self.start.task_id, devices=hidden)
                self.end("terminate")
                continue
            for name in hidden:
                stream.replace(name, None)

    def remaining_s(self) -> float:
        """Time left, by the network's clock where it is known, else by our own since the start."""
        expires_ms, server_ms = self.start.expires_at_ms, self.link.server_ms()
        if expires_ms is not None and server_ms is not None:
            return (expires_ms - server_ms) / 1000
        return (self.start.duration_min or 1) * 60 - (self._services.clock.monotonic_s() - self._began_s)

    # -- life ----------------------------------------

    async def run(self) -> None:
        """From the request to the terminal."""
        log.info("session_begins", task=self.start.task_id, resumed=self._resumed)
        try:
            await self._open_streams()
        except Rejected as rejected:
            await self._finish("failed", error=f"{rejected.code}: {rejected.message}")
            return
        except NetworkError as error:
            await self._finish("failed", error=f"internal: {error}")
            return
        self.state = SessionState.RUNNING
        await self._until_ended()
        how = self._ended.result()
        log.info("session_ends", task=self.start.task_id, how=how)
        match how:
            case "cancel":
                await self._finish("canceled")
            case "terminate":
                await self._finish("canceled", reason="terminated")
            case "expire":
                await self._finish("completed", completion_reason="duration_expired")

    async def _until_ended(self, *others: asyncio.Future[Any]) -> None:
        """Until the session ends, of itself when its time is over, or until one of `others` is done."""
        futures: list[asyncio.Future[Any]] = [self._ended, *others]
        while not any(future.done() for future in futures):
            remaining_s = self.remaining_s()
            if self._unsaved and self._saves.take():
                self._save()
            if remaining_s <= 0:
                self.end("expire")
            else:
                await first_of(*futures, limit_s=min(LOOK_S, remaining_s))

    async def _finish(self, state: TerminalState, **members: str) -> None:
        """Hardware first, politeness last."""
        self.state = SessionState.ENDED
        self._services.executor.session_ends(self.actor.holder)
        await self._services.safe_states.end_of_session(self.actor.holder)
        await asyncio.gather(*(self._close(stream) for stream in self.streams.values()))
        self.link.terminal(state, **members)

    async def _close(self, stream: SessionStream) -> None:
        if await stream.detach(self.start.task_id, end=True) and not stream.scope.shared:
            self._services.outbox.forget(stream.scope.spec.stream_id)

    async def pause(self) -> None:
        """The process ends, the session does not: streams stop where they are."""
        self.state = SessionState.PAUSED
        if self._unsaved:
            self._save()
        for stream in self.streams.values():
            await stream.detach(self.start.task_id, end=False)

    # -- streams ----------------------------------------

    async def _open_streams(self) -> None:
        request = parse_pipe_request(self.start.parts)
        chosen = choose_streams(request, self._config, self._services.devices, self.actor)
        for name in chosen:
            self.streams[name] = await self._make_stream(name)
            if name in self._saved.announced:
                self.streams[name].collect()
        # Before the first readings, which are to be those that were asked for.
        self._apply_request(request)
        for members in self._saved.commands.values():
            # What it names and this configuration has not is left out, as a reload leaves it out.
            self._apply(parse(members))  # type: ignore[arg-type]
        for name, stream in self.streams.items():
            await self._attach(name, stream, chosen)
            if self._ended.done():
                return
            if name not in self._saved.announced:
                self._saved.announced.append(name)
                self._save()

    async def _attach(self, name: str, stream: SessionStream, chosen: list[str]) -> None:
        """Open a stream, unless the session ends first: its time runs out without a network too."""
        announced = name in self._saved.announced
        opening = asyncio.ensure_future(stream.attach(self.link, self.actor, chosen, announced=announced))
        try:
            await self._until_ended(opening)
            if opening.done():
                opening.result()
        finally:
            opening.cancel()

    async def _make_stream(self, name: str) -> SessionStream:
        services, stream = self._services, self._config.streams[name]
        spec = spec_of(name, self._config, self.start)
        queue: ChannelQueue | None = None
        if stream.outward:
            queue = await services.outbox.open(spec.stream_id, stream.format, stream.overflow)

        def make(former: dict[Caller, Former] | None = None) -> SessionStream:
            scope = scope_of(spec, self._config, services.devices, self.actor)
            return SessionStream(services, scope, queue, self, former)

        return self._shared.get(name, self.start.task_id, make) if spec.affinity == "shared" else make()

    def answer(self, draft: EventDraft) -> None:
        """Answers from an inbound-only stream go out on the first outbound events stream of the session."""
        for stream in self._answering[:1]:
            stream.answer(draft)

    @property
    def _answering(self) -> list[SessionStream]:
        """The outbound events streams."""
        return [stream for stream in self.streams.values() if stream.subscription is not None]

    def _save(self) -> None:
        self._unsaved = False
        self._services.journal.note_session(self.start.task_id, self._saved.to_journal())

    # -- session commands ----------------------------------------

    def on_command(self, stream: SessionStream, command: SessionCommand) -> dict[str, Any]:
        """Carry out a session command that came on `stream`; the members that its answer adds.

        All dedicated streams of the session follow, and a later process remembers it; `replay` concerns
        `stream` alone. Raises Rejected `not_allowed`, `invalid_value` or `unknown_device`.
        """
        if stream.scope.shared:
            raise Rejected("not_allowed", "a shared stream has one writer for all its callers")
        if isinstance(command, Replay):
            subscription, from_seq = stream.subscription, command.from_seq
            first = subscription.replay(from_seq) if subscription is not None else None
            if first is None:
                raise Rejected("invalid_value", f"nothing from seq {from_seq} on is kept any more")
            return {"from_seq": first}
        self._carry_out(command)
        self._saved.add(command)
        self._unsaved = True
        if self._saves.take():
            self._save()
        return {}

    def _apply_request(self, request: PipeRequest) -> None:
        if request.devices is not None:
            self._carry_out(Select(kind="select", devices=list(request.devices)))
        if request.every_s is not None:
            self._carry_out(Rate(kind="rate", every_s=request.every_s))

    def _carry_out(self, command: SessionCommand) -> None:
        """Raises Rejected `unknown_device` for a device that no stream of this session alone carries."""
        known = {name for stream in self.dedicated for name in stream.scope.devices}
        named = command.devices if isinstance(command, Select) else []
        if isinstance(command, Rate) and command.device is not None:
            named = [command.device]
        for name in named:
            if name not in known:
                raise Rejected("unknown_device", f"no stream of this session carries a device {name!r}")
        self._apply(command)

    def _apply(self, command: SessionCommand) -> None:
        for stream in self.dedicated:
            if stream.subscription is not None:
                stream.subscription.apply(command)

    # -- link loss ----------------------------------------

    def overdue(self, driven: Iterable[str]) -> dict[str, str]:
        """Which of these must be made safe since their link or their caller is away, with the reason."""
        task_id, now_s = self.start.task_id, self._services.clock.monotonic_s()
        last_s = max((s.last_inbound_s(task_id) for s in self.streams.values()), default=now_s)
        reasons: dict[str, str] = {}
        for stream in self.streams.values():
            config, names = stream.scope.config, stream.scope.devices.keys() & set(driven)
            if not config.inward or not names:
                continue
            grace_s, limit_s = config.link_loss_grace_s, config.caller_silence_s
            ways = [stream] if stream.subscription is not None else [stream, *self._answering[:1]]
            if max(way.silent_s(task_id, grace_s) for way in ways) > grace_s:
                reasons |= dict.fromkeys(names, f"no link for {grace_s:g} s")
            elif limit_s is not None and now_s - last_s > limit_s:
                reasons |= dict.fromkeys(names, f"its caller has said nothing for {limit_s:g} s")
        return reasons
