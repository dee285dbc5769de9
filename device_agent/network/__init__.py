"""The port between the runtime and a network: what was asked, and the way back to who asked.

An adapter (`network.blocks`) knows the wire; the runtime knows devices. Both know only these words.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

TaskKind = Literal["request", "pipe"]
Direction = Literal["outbound", "inbound", "bidirectional"]
Affinity = Literal["dedicated", "shared"]
Format = Literal["events", "bytes"]
TerminalState = Literal["completed", "failed", "canceled"]

FIRST_NUMBER: dict[Format, int] = {"bytes": 0, "events": 1}
"""The number of the first message of a stream."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `org` and `user` may be empty for an anonymous caller."""

    org: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One input part of a task: a text, or a reference to a file."""

    part_id: str
    content_type: str = ""
    text: str | None = None
    artifact: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StartTask:
    """What a caller asked for, checked for form. `expires_at_ms` is the network's clock, pipe tasks only.

    `sent_ms` is when it was sent, by the transport's own time stamp in the same clock.
    """

    task_id: str
    kind: TaskKind
    caller: Caller
    org: str
    parts: tuple[Part, ...] = ()
    has_stream: bool = False
    duration_min: int | None = None
    expires_at_ms: int | None = None
    write_token: str = field(default="", repr=False)
    sent_ms: float | None = None


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream to open. `name` is the card's stream key; `stream_id` names its channel."""

    name: str
    stream_id: str
    direction: Direction
    format: Format
    affinity: Affinity


@dataclass(frozen=True, slots=True)
class Inbound:
    """One item that came in on a stream: an event (any JSON) or a chunk of bytes.

    `sent_ms` is the transport's own time stamp in the network's clock, epoch milliseconds.
    """

    item: Any
    sent_ms: float
    sender: str = ""


class MessageSource(Protocol):
    """The outgoing items of one channel: the runtime fills it, the adapter's writer empties it.

    One message is in flight at a time. It keeps its number and its items until it is acknowledged, over any
    number of tries.
    """

    async def until_ready(self) -> None:
        """Returns when there is a message to send, or the source was closed."""

    def next_message(self, limit_bytes: int) -> "OutgoingMessage | None":
        """The message in flight, or a new one of at most `limit_bytes` of items (at least one item).

        None when there is nothing to send.
        """

    def ack(self, message: "OutgoingMessage") -> None:
        """The network accepted the message in flight."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait."""

    @property
    def closed(self) -> bool:
        """Nothing more will be appended."""

    @property
    def next_number(self) -> int:
        """The number that the next message would get."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One stream message: its number, and its items as the very bytes that go out."""

    number: int
    items: tuple[bytes, ...]
    ts_ms: int


class Stream(Protocol):
    """An open stream of a task."""

    spec: StreamSpec

    def inbound(self) -> AsyncIterator[Inbound]:
        """What the caller sends, in order; ends when the stream is closed."""

    async def close(self, *, end: bool) -> None:
        """Stop. With `end` the caller is told that nothing more comes (never on a shared stream)."""


class TaskLink(Protocol):
    """The way back to the caller of one accepted task."""

    start: StartTask

    def server_ms(self) -> float | None:
        """The network's clock now, epoch milliseconds; None before the first exchange."""

    async def until_time(self) -> None:
        """Returns when the network's clock is known. The caller bounds the wait."""

    def progress(self, message: str) -> None:
        """A sentence about the work; at most one a second goes out, the latest wins."""

    async def artifact(
        self,
        data: bytes | Path,
        mime_type: str,
        *,
        output_id: str,
        file_name: str = "",
        before: Callable[[], Awaitable[None]] | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        """Deliver a result, from memory or from a file; returns when the network has it.

        `before` is called once when nothing but the announcement to the caller is missing.
        """

    async def fetch(self, part: Part, to: Path, limit_bytes: int) -> None:
        """The content of an input part, into this file. Raises Refused when it is too large or not there."""

    def terminal(
        self, state: TerminalState, *, error: str = "", reason: str = "", completion_reason: str = ""
    ) -> None:
        """End the task. Only the first call counts; it is sent until it is accepted."""

    async def open_stream(
        self, spec: StreamSpec, source: MessageSource | None, *, announced: bool = False
    ) -> Stream:
        """Open one stream; `source` has what goes out on it, None for a stream that only reads.

        `announced`: an earlier process opened it, and the caller knows it. Raises Refused if the network
        does not allow it.
        """


class Runtime(Protocol):
    """What an adapter asks of the runtime. Plain calls on the event loop that return at once."""

    def knows(self, task_id: str) -> bool:
        """Whether this task is running, or ended before (then it must not start again)."""

    def has_room(self) -> bool:
        """Whether one more task fits under `concurrency`."""

    def load_now(self) -> tuple[int, int]:
        """Tasks and streams at work."""

    def begin(self, link: TaskLink) -> None:
        """A checked, new task."""

    async def remembered(self) -> None:
        """Returns when all tasks that began would be known after a crash."""

    def resumable(self) -> list[StartTask]:
        """Pipe tasks of an earlier process that are to go on."""

    def resume(self, link: TaskLink) -> None:
        """A task of an earlier process goes on."""

    def end(self, task_id: str, how: Literal["cancel", "expire", "terminate"]) -> bool:
        """A control message ends a task; False if it is not running here."""

    def is_running(self, task_id: str) -> bool:
        """Whether the task is running here."""
