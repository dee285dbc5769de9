"""One task's way back to its caller: events, results, streams."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.errors import Refused
from device_agent.network import MessageSource, Part, StartTask, StreamSpec, TerminalState
from device_agent.network.blocks.clients import Clients, TaskClients
from device_agent.network.blocks.files import INLINE_MAX_BYTES, TOO_LARGE, Progress, Upload, Uploads, download
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.joiner import JoinSettings
from device_agent.network.blocks.open_stream import OpenStream
from device_agent.network.blocks.shared_streams import SharedAttachment, SharedStreams
from device_agent.network.blocks.stream_channel import StreamChannel, writer_uuid
from device_agent.network.blocks.stream_tokens import StreamTokens
from device_agent.network.blocks.task_events import TaskEvents
from device_agent.network.blocks.wire import task_channel


@dataclass(frozen=True, slots=True)
class TaskServices:
    """What all tasks of the agent share."""

    settings: JoinSettings
    clients: Clients
    http: Http
    uploads: Uploads
    shared_streams: SharedStreams
    background: BackgroundTasks
    clock: Clock
    instance_id: str
    presence_changed: Callable[[], None]


class BlocksTask:
    """The `network.TaskLink` of one accepted task; `events.run` is to be run beside it."""

    def __init__(self, start: StartTask, services: TaskServices) -> None:
        self.start = start
        self._services = services
        self._connectivity = services.http.connectivity
        self._agent_name = services.settings.agent_name
        control = services.clients.control
        self._client = services.clients.make(services.instance_id, start.write_token or control.token)
        self.events = TaskEvents(
            self._agent_name, start, TaskClients(self._client, control), self._connectivity, services.clock
        )

    def __repr__(self) -> str:
        return f"<BlocksTask {self.start.task_id} {self.start.kind}>"

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
            await self._services.uploads.upload(file, before, progress)
            return
        if isinstance(data, Path):
            data = await asyncio.to_thread(data.read_bytes)
        if before is not None:
            await before()
        await self.events.artifact(data, mime_type, output_id, file.name)

    async def fetch(self, part: Part, to: Path, limit_bytes: int) -> None:
        reference = part.artifact or {}
        if part.text is not None or reference.get("kind") == "inline":
            await asyncio.to_thread(to.write_bytes, _inline(part, limit_bytes))
            return
        channel, file_id, name = (str(reference.get(key) or "") for key in ("channel", "fileId", "fileName"))
        if channel != task_channel(self.start.org, self.start.task_id) or {file_id, name} & {"", ".", ".."}:
            raise Refused(f"input {part.part_id!r} names no file of this task")
        clients = (self._client, self._services.clients.control)
        addresses = [partial(client.file_url, channel, file_id, name) for client in clients]
        await download(self._services.http, addresses, to, limit_bytes)

    def terminal(
        self, state: TerminalState, *, error: str = "", reason: str = "", completion_reason: str = ""
    ) -> None:
        self.events.terminal(state, error=error, reason=reason, completionReason=completion_reason)
        self._services.presence_changed()

    def server_ms(self) -> float | None:
        return self._connectivity.server_ms()

    async def until_time(self) -> None:
        await self._connectivity.time_known.wait()

    async def open_stream(
        self, spec: StreamSpec, source: MessageSource | None, *, announced: bool = False
    ) -> OpenStream | SharedAttachment:
        if not self.start.has_stream:
            raise Refused(f"stream {spec.name}: the caller of this task did not ask for streaming")
        if not announced:
            await self.events.settled()
        clients = TaskClients(self._client, self._services.clients.control)
        tokens = StreamTokens(self._agent_name, self.start, clients, self._connectivity)

        def start(token: str) -> OpenStream:
            return self._start_stream(spec, source, tokens, token, resumed=announced)

        if spec.affinity == "shared":
            return await self._services.shared_streams.attach(
                spec, self.start.task_id, tokens, start, announced=announced
            )
        return start(await tokens.first(spec, announced=announced))

    def _start_stream(
        self,
        spec: StreamSpec,
        source: MessageSource | None,
        tokens: StreamTokens,
        token: str,
        *,
        resumed: bool,
    ) -> OpenStream:
        services = self._services
        uuid = writer_uuid(self._agent_name, services.instance_id, spec.stream_id)
        client = services.clients.make(uuid, token)
        channel = StreamChannel(spec, self._agent_name, client, tokens, self._connectivity)
        stream = OpenStream(channel, self._connectivity, services.clock, services.background)
        stream.start(source, services.settings.publish_rate_hz, resumed=resumed)
        services.presence_changed()
        return stream


def _inline(part: Part, limit_bytes: int) -> bytes:
    """The content that the part itself holds. Raises Refused."""
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
