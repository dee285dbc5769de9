"""One task's way back to its caller: events, results, streams."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.errors import Refused
from device_agent.network import MessageSource, Part, StartTask, StreamSpec, TerminalState
from device_agent.network.blocks.files import INLINE_MAX_BYTES, TOO_LARGE, Progress, Upload, download
from device_agent.network.blocks.streams import SUBSCRIBE_GRACE_S, OpenStream, StreamTokens, writer_uuid
from device_agent.network.blocks.task_events import TaskEvents
from device_agent.network.blocks.wire import task_channel

if TYPE_CHECKING:
    from device_agent.network.blocks.network import BlocksNetwork


@dataclass(slots=True)
class _Shared:
    """A shared stream and the setups of the tasks that are attached to it."""

    stream: OpenStream
    attached: dict[str, StreamTokens] = field(default_factory=dict)


class SharedStreams:
    """Shared streams at work, one writer each, held by as many tasks as are attached."""

    def __init__(self) -> None:
        self._open: dict[str, _Shared] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def lock(self, name: str) -> asyncio.Lock:
        """Only one task at a time opens or leaves a stream."""
        return self._locks.setdefault(name, asyncio.Lock())

    def get(self, name: str) -> _Shared | None:
        return self._open.get(name)

    def add(self, name: str, shared: _Shared) -> None:
        self._open[name] = shared

    async def leave(self, name: str, task_id: str) -> None:
        """The last to leave closes the writer; before that, another task's setup renews the token."""
        async with self.lock(name):
            shared = self._open.get(name)
            if shared is None or shared.attached.pop(task_id, None) is None:
                return
            if shared.attached:
                shared.stream.hand_over(next(iter(shared.attached.values())))
                return
            del self._open[name]
            await shared.stream.close(end=False)


class BlocksTask:
    """The link of one accepted task."""

    def __init__(self, network: "BlocksNetwork", start: StartTask) -> None:
        self.start = start
        self._network = network
        identity = network.file.identity
        self._client = network.client(identity.instance_id, start.write_token or identity.control_token)
        self.events = TaskEvents(
            network.settings.agent_name,
            start,
            self._client,
            network.control_client,
            network.connectivity,
            network.clock,
        )

    def progress(self, message: str) -> None:
        self.events.progress(message)

    async def artifact(
        self,
        data: bytes | Path,
        mime_type: str,
        *,
        output_id: str,
        file_name: str = "",
        before: Callable[[], Awaitable[None]] | None = None,
        progress: Progress | None = None,
    ) -> None:
        file = Upload(self.start.task_id, data, mime_type, output_id, file_name)
        if file.size_bytes > INLINE_MAX_BYTES:
            await self._network.uploads.upload(file, before, progress)
            return
        if isinstance(data, Path):
            data = await asyncio.to_thread(data.read_bytes)
        if before is not None:
            await before()
        await self.events.artifact(data, mime_type, output_id, file_name)

    async def fetch(self, part: Part, to: Path, limit_bytes: int) -> None:
        reference = part.artifact or {}
        if part.text is not None or reference.get("kind") == "inline":
            await asyncio.to_thread(to.write_bytes, _inline(part, limit_bytes))
            return
        channel, file_id, name = (str(reference.get(key) or "") for key in ("channel", "fileId", "fileName"))
        if channel != task_channel(self.start.org, self.start.task_id) or not file_id or not name:
            raise Refused(f"input {part.part_id!r} names no file of this task")
        clients = (self._client, self._network.control_client)
        await download(self._network.http, clients, (channel, file_id, name), to, limit_bytes)

    def terminal(
        self, state: TerminalState, *, error: str = "", reason: str = "", completion_reason: str = ""
    ) -> None:
        self.events.terminal(state, error, reason, completion_reason)
        self._network.control.state_changed()

    def server_ms(self) -> float | None:
        """The network's clock, epoch milliseconds; None before the first exchange."""
        return self._network.connectivity.server_ms()

    async def until_time(self) -> None:
        await self._network.connectivity.time_known.wait()

    async def open_stream(
        self, spec: StreamSpec, source: MessageSource | None, *, announced: bool = False
    ) -> "OpenStream | SharedAttachment":
        if not self.start.has_stream:
            raise Refused(f"stream {spec.name}: the caller of this task did not ask for streaming")
        if not announced:
            await self.events.settled()
        if spec.affinity == "shared":
            return await self._attach(spec, source, announced)
        setup = self._setup()
        token = await (setup.token(spec) if announced else setup.ask(spec, "embedded"))
        return self._start_stream(spec, source, setup, token, resumed=announced)

    def _setup(self) -> StreamTokens:
        network = self._network
        return StreamTokens(
            network.settings.agent_name,
            self.start,
            self._client,
            network.control_client,
            network.connectivity,
        )

    def _start_stream(
        self,
        spec: StreamSpec,
        source: MessageSource | None,
        setup: StreamTokens,
        token: str,
        *,
        resumed: bool,
    ) -> OpenStream:
        network = self._network
        uuid = writer_uuid(network.settings.agent_name, network.file.identity.instance_id, spec.stream_id)
        stream = OpenStream(
            spec,
            network.settings.agent_name,
            network.client(uuid, token),
            setup,
            connectivity=network.connectivity,
            clock=network.clock,
            background=network.background,
        )
        grace_s = 0.0 if resumed else SUBSCRIBE_GRACE_S
        stream.start(source, network.settings.publish_rate_hz, grace_s, resumed=resumed)
        network.control.state_changed()
        return stream

    async def _attach(
        self, spec: StreamSpec, source: MessageSource | None, announced: bool
    ) -> "SharedAttachment":
        registry = self._network.shared
        async with registry.lock(spec.name):
            setup = self._setup()
            shared = registry.get(spec.name)
            if shared is None:
                token = await (setup.token(spec) if announced else setup.ask(spec, "embedded"))
                shared = _Shared(self._start_stream(spec, source, setup, token, resumed=announced))
                registry.add(spec.name, shared)
            elif not announced:
                await setup.ask(spec, "activate")
            shared.attached[self.start.task_id] = setup
        return SharedAttachment(spec, registry, self.start.task_id, shared.stream)


class SharedAttachment:
    """A task's hold on a shared stream."""

    def __init__(self, spec: StreamSpec, registry: SharedStreams, task_id: str, stream: OpenStream) -> None:
        self.spec = spec
        self.inbound = stream.inbound
        self._registry = registry
        self._task_id = task_id

    async def close(self, *, end: bool) -> None:
        await self._registry.leave(self.spec.name, self._task_id)


def _inline(part: Part, limit_bytes: int) -> bytes:
    """What a part holds itself. Raises Refused."""
    if part.text is not None:
        data = part.text.encode()
    else:
        try:
            data = base64.b64decode(str((part.artifact or {}).get("data") or ""), validate=True)
        except binascii.Error:
            raise Refused(f"input {part.part_id!r}: its data is not base64") from None
    if len(data) > limit_bytes:
        raise Refused(f"the file is larger than {limit_bytes} bytes", TOO_LARGE)
    return data
