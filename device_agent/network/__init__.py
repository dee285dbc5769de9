"""The port between the runtime and a network: tasks and their parts, and the way back to the caller.

An adapter (`network.blocks`) knows the network's protocol, the runtime knows devices. Both know only this.
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
    """Who sent the task. `org` and `user` are empty for an anonymous caller."""

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
    """A task as a caller sent it, its form checked.

    `duration_min` (minutes) and `expires_at_ms` are of pipe tasks only. Both times are epoch milliseconds of
    the network's clock; `sent_ms` is the transport's time stamp.
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
    """A stream to open. `name` is the stream's key in the card; `stream_id` is part of the channel's name."""

    name: str
    stream_id: str
    direction: Direction
    format: Format
    affinity: Affinity


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a message whose items are not known; `why` is for its sender."""

    why: str


@dataclass(frozen=True, slots=True)
class Inbound:
    """One item that was received on a stream: an event (any JSON value), a chunk of bytes, or `Unreadable`.

    `sent_ms` is the transport's time stamp, epoch milliseconds of the network's clock.
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
        """Nothing will be appended any more."""

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
        """What callers send, as it comes; ends when the stream is closed."""

    def silent_s(self, within_s: float) -> float:
        """Seconds since it last worked, in the direction that has been silent longer; refusals do not count.

        To be asked several times in `within_s`: the stream then proves each direction often enough.
        """

    async def close(self, *, end: bool) -> None:
        """Stop. With `end`, send what waits and the end of the stream (never on a shared stream)."""


class TaskLink(Protocol):
    """The way back to the caller of one accepted task."""

    start: StartTask

    def server_ms(self) -> float | None:
        """The network's clock now, epoch milliseconds; None before the first exchange."""

    async def until_time(self) -> None:
        """Returns when the network's clock is known. The caller bounds the wait."""

    def progress(self, message: str) -> None:
        """A sentence about the work; at most one a second is sent, the newest."""

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

        `before` is called once, when only the announcement to the caller is missing. `progress` is called
        with a sentence and the share that is done, 0 to 1.
        """

    async def fetch(self, part: Part, to: Path, limit_bytes: int) -> None:
        """Write the content of an input part to a file. Raises Refused if it is too large or missing."""

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
    """What an adapter needs of the runtime. Its plain functions return at once, and run on the event loop."""

    def knows(self, task_id: str) -> bool:
        """Whether this task is running or has ended; then it must not start again."""

    def has_room(self, start: StartTask) -> bool:
        """Whether this task fits under `concurrency`, or is one that always does."""

    def load_now(self) -> tuple[int, int]:
        """The numbers of running tasks and of open streams."""

    def begin(self, link: TaskLink) -> None:
        """Start a new task."""

    async def remembered(self) -> None:
        """Returns when all tasks that were started would be known after a crash."""

    def resumable(self) -> list[StartTask]:
        """The tasks of an earlier process that did not end."""

    def resume(self, link: TaskLink) -> None:
        """Continue or end a task of an earlier process."""

    def end(self, task_id: str, how: Literal["cancel", "expire", "terminate"]) -> bool:
        """A control message ends a task; False if it is not running here."""

    def is_running(self, task_id: str) -> bool:
        """Whether the task is running here."""
