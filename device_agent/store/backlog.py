"""The late events of one channel: both ends in memory, the middle of a long backlog on disk alone."""

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from device_agent.store.event import Event, Kept, Range
from device_agent.store.outbox_file import ChannelRow

# How much of a backlog is in memory at its old end.
WINDOW_BYTES = 64_000


class Owner(Protocol):
    """What a lane asks of the owner of all lanes."""

    def log(self, record: list[Any]) -> None:
        """Write to the crash log."""

    def note_cost(self, size_bytes: int) -> None:
        """Bytes that the outbox holds more (or less)."""

    def full(self) -> bool:
        """Whether the outbox is at its cap."""

    def gone(self, channel: str, event: Event) -> None:
        """An event that is on disk is needed no more."""

    def next_id(self) -> int:
        """A number for a new event; greater than all before."""

    async def load_events(self, channel: str, span: tuple[int, int], skip: set[int]) -> list[Event] | None:
        """The oldest events on disk in a span of ids but those to skip; None if the disk failed."""


class Backlog:
    """Oldest first: `head` in memory, then `spilled` on disk, then `tail` in memory."""

    def __init__(self, channel: str, row: ChannelRow | None, disk: Owner) -> None:
        self.head: deque[Event] = deque()
        self.tail: deque[Event] = deque()
        self.spilled = row.events if row else 0
        self.spilled_bytes = row.bytes if row else 0
        self._channel = channel
        self._disk = disk
        # What is on disk alone lies between these ids; of those, events under way are in memory all the same.
        self._after_id, self._before_id = 0, disk.next_id()

    def __len__(self) -> int:
        return len(self.head) + self.spilled + len(self.tail)

    def in_memory(self) -> Iterator[Event]:
        yield from self.head
        yield from self.tail

    @property
    def elsewhere(self) -> bool:
        """Whether there is more than the head."""
        return bool(self.spilled or self.tail)

    @property
    def span(self) -> tuple[int, int] | None:
        """The ids (exclusive) between which the events lie that are on disk alone."""
        return (self._after_id, self._before_id) if self.spilled else None

    def add(self, event: Event) -> None:
        """The newest late event."""
        (self.tail if self.elsewhere else self.head).append(event)

    async def fill(self, skip: set[int]) -> int | None:
        """Bring the oldest into the head. How many turned out to be missing; None if the disk failed."""
        if not self.spilled:
            self.head, self.tail = self.tail, deque()
            return 0
        loaded = await self._disk.load_events(self._channel, (self._after_id, self._before_id), skip)
        if loaded is None:
            return None
        if not loaded:
            # What the count promised is not there: damaged rows, or a card that lies.
            missing, self.spilled, self.spilled_bytes = self.spilled, 0, 0
            return missing
        for event in loaded:
            event.appended_s = float("-inf")
        self.head.extend(loaded)
        self._after_id = loaded[-1].id
        self.not_spilled(loaded)
        return 0

    def spill(self) -> int:
        """Let go of the middle, where it is on disk; returns the bytes of memory that this freed."""
        if not self.elsewhere:
            size = 0
            keep: deque[Event] = deque()
            while self.head and size < WINDOW_BYTES:
                size += self.head[0].cost_bytes
                keep.append(self.head.popleft())
            self.head, self.tail = keep, self.head
            if self.tail:
                self._after_id = self.tail[0].id - 1
        freed_bytes = 0
        while self.tail and self.tail[0].kept is Kept.ON_DISK:
            event = self.tail.popleft()
            self._before_id = event.id + 1
            self.spilled += 1
            self.spilled_bytes += event.cost_bytes
            freed_bytes += event.cost_bytes
        return freed_bytes

    def removed(self, lost: Range, new_bytes: int) -> None:
        """Events on disk were dropped, or fewer put in their place."""
        self.spilled -= lost.rows
        self.spilled_bytes += new_bytes - lost.bytes

    def not_spilled(self, some: list[Event]) -> None:
        """These are not on disk alone (any more)."""
        self.spilled -= len(some)
        self.spilled_bytes -= sum(event.cost_bytes for event in some)

    def restore(self, some: list[Event]) -> None:
        """Events that only the crash log had: newer than all on disk."""
        if some:
            self._before_id = min(self._before_id, some[0].id)
        (self.tail if self.spilled else self.head).extend(some)

    def clear(self) -> None:
        self.head.clear()
        self.tail.clear()
        self.spilled, self.spilled_bytes = 0, 0
