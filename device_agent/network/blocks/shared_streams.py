"""Shared streams: one channel and one writer for all tasks that are attached to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from device_agent.network import Inbound, StreamSpec
from device_agent.network.blocks.open_stream import OpenStream
from device_agent.network.blocks.stream_tokens import StreamTokens


@dataclass(slots=True)
class _SharedStream:
    """An open stream, and how each attached task renews its token."""

    stream: OpenStream
    attached: dict[str, StreamTokens] = field(default_factory=dict)


class SharedStreams:
    """The shared streams that are open, by name."""

    def __init__(self) -> None:
        self._open: dict[str, _SharedStream] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def __repr__(self) -> str:
        return f"<SharedStreams { ({name: len(shared.attached) for name, shared in self._open.items()}) }>"

    async def attach(
        self,
        spec: StreamSpec,
        task_id: str,
        tokens: StreamTokens,
        start: Callable[[str], OpenStream],
        *,
        announced: bool,
    ) -> "SharedAttachment":
        """The first task opens the stream, with `start(token)`. Raises Refused."""
        async with self._lock(spec.name):
            shared = self._open.get(spec.name)
            if shared is None:
                token = await tokens.first(spec, announced=announced)
                shared = self._open[spec.name] = _SharedStream(start(token))
            elif not announced:
                await tokens.ask(spec, "activate")
            shared.attached[task_id] = tokens
        return SharedAttachment(spec, self, task_id, shared.stream)

    async def leave(self, name: str, task_id: str) -> None:
        """The last task closes the stream; before that, another task renews its token."""
        async with self._lock(name):
            shared = self._open.get(name)
            if shared is None or shared.attached.pop(task_id, None) is None:
                return
            if shared.attached:
                shared.stream.channel.hand_over(next(iter(shared.attached.values())))
                return
            del self._open[name]
            await shared.stream.close(end=False)

    def _lock(self, name: str) -> asyncio.Lock:
        """Only one task at a time opens or leaves a stream."""
        return self._locks.setdefault(name, asyncio.Lock())


@dataclass(slots=True)
class SharedAttachment:
    """One task's use of a shared stream."""

    spec: StreamSpec
    streams: SharedStreams
    task_id: str
    stream: OpenStream

    def inbound(self) -> AsyncIterator[Inbound]:
        return self.stream.inbound()

    def silent_s(self, within_s: float) -> float:
        return self.stream.silent_s(within_s)

    async def close(self, *, end: bool) -> None:
        await self.streams.leave(self.spec.name, self.task_id)
