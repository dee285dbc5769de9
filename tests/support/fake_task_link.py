"""A task's link to its caller, in memory: what goes out is kept, what the caller sends comes in."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from device_agent.errors import Refused
from device_agent.network import Caller, Inbound, MessageSource, Part, StartTask, StreamSpec

ALICE = Caller("org_a", "alice")


def start_of(
    task_id: str, kind: str, request: Any = None, *more: Part, caller: Caller = ALICE, **options: Any
) -> StartTask:
    """What a caller asks; `request` is text, or a value that is sent as JSON."""
    parts: tuple[Part, ...] = more
    if request is not None:
        text = request if isinstance(request, str) else json.dumps(request)
        parts = (Part("request", "application/json", text), *more)
    return StartTask(task_id, kind, caller, "org_a", parts, **options)  # type: ignore[arg-type]


class FakeStream:
    """An open stream, seen from both ends. Implements `network.Stream`."""

    def __init__(self, spec: StreamSpec, source: MessageSource | None) -> None:
        self.spec = spec
        self.closed: str = ""
        """"ended" when the caller was told that nothing more comes, "closed" when he was not."""
        self.link_silent_s = 0.0
        """How long nothing came through."""
        self._source = source
        self._items: list[bytes] = []
        self._inbound: asyncio.Queue[Inbound | None] = asyncio.Queue()

    def send(self, item: Any, *, sender: str = "alice-stream-0001", sent_ms: float = 0.0) -> None:
        """The caller sends an event, or bytes."""
        self._inbound.put_nowait(Inbound(item, sent_ms, sender))

    @property
    def items(self) -> list[bytes]:
        """All that came out so far."""
        self._take_all()
        return self._items

    def _take_all(self) -> None:
        while self._source is not None and (message := self._source.next_message(1_000_000)) is not None:
            self._items += message.items
            self._source.ack(message)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(item) for item in self.items]

    def of(self, kind: str, **members: Any) -> list[dict[str, Any]]:
        """The events of this kind that have these members."""
        return [e for e in self.events if e["kind"] == kind and members.items() <= e.items()]

    async def inbound(self) -> AsyncIterator[Inbound]:
        while (item := await self._inbound.get()) is not None:
            yield item

    def silent_s(self, within_s: float) -> float:
        return self.link_silent_s

    async def close(self, *, end: bool) -> None:
        self._take_all()  # what waits goes out before a stream is closed
        self.closed = "ended" if end else "closed"
        self._inbound.put_nowait(None)


class FakeTaskLink:
    """Implements `network.TaskLink`."""

    def __init__(self, start: StartTask) -> None:
        self.start = start
        self.time_ms: float | None = 0.0
        """The network's clock; None: not known."""
        self.refuse_stream = ""
        """A stream that the network refuses."""
        self.refuse_artifact = ""
        """An output that the network refuses."""
        self.reachable = asyncio.Event()
        """While it is not set, no stream opens."""
        self.reachable.set()
        self.streams: dict[str, FakeStream] = {}
        self.announced: dict[str, bool] = {}
        self.terminals: list[tuple[str, str]] = []
        """State, and its error or reasons."""
        self.artifacts: dict[str, bytes] = {}
        self.sentences: list[str] = []
        self.files: dict[str, bytes] = {}
        """Content of the input parts that are files."""

    def server_ms(self) -> float | None:
        return self.time_ms

    async def until_time(self) -> None:
        if self.time_ms is None:
            await asyncio.Event().wait()

    def progress(self, message: str) -> None:
        self.sentences.append(message)

    async def artifact(
        self,
        data: bytes | Path,
        mime_type: str,
        *,
        output_id: str,
        file_name: str = "",
        before: Any = None,
        progress: Any = None,
    ) -> None:
        if before is not None:
            await before()
        if output_id == self.refuse_artifact:
            raise Refused("file upload: HTTP 413", 413)
        self.artifacts[output_id] = data if isinstance(data, bytes) else data.read_bytes()  # noqa: ASYNC240

    @property
    def result(self) -> dict[str, Any]:
        """The `result` artifact."""
        members = json.loads(self.artifacts["result"])
        assert isinstance(members, dict)
        return members

    async def fetch(self, part: Part, to: Path, limit_bytes: int) -> None:
        if len(self.files[part.part_id]) > limit_bytes:
            raise Refused("it is too large")
        to.write_bytes(self.files[part.part_id])  # noqa: ASYNC240

    def terminal(self, state: str, *, error: str = "", reason: str = "", completion_reason: str = "") -> None:
        self.terminals.append((state, error or reason or completion_reason))

    async def open_stream(
        self, spec: StreamSpec, source: MessageSource | None, *, announced: bool = False
    ) -> FakeStream:
        await self.reachable.wait()
        if spec.name == self.refuse_stream:
            raise Refused("HTTP 403", 403)
        self.announced[spec.name] = announced
        self.streams[spec.name] = FakeStream(spec, source)
        return self.streams[spec.name]
