"""The late events of one channel: both ends in memory, the middle of a long backlog on disk alone."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

from device_agent.store.outbox.event import NOTHING, Event, Kept, Range
from device_agent.store.outbox.outbox_file import ChannelRow

# How much of a backlog is in memory at its old end.
WINDOW_BYTES = 200_000


class BacklogOwner(Protocol):
    """What a lane asks of the owner of all lanes."""

    memory_bytes: int
    """What all lanes hold in memory."""

    def log(self, record: list[Any]) -> None:
        """Write to the crash log."""

    def note_cost(self, size_bytes: int) -> None:
        """Bytes that the outbox holds more (or less)."""

    def full(self, more_bytes: int) -> bool:
        """Whether so many bytes more would go over the outbox's cap, or over what memory may hold."""

    def relieve(self) -> None:
        """Keep memory within its bound: the disk is slower than what comes, or takes nothing."""

    def gone(self, channel: str, event: Event) -> None:
        """An event that is on disk is needed no more."""

    def next_id(self) -> int:
        """A number for a new event; greater than all before."""

    def range_of(self, some: list[Event]) -> Range:
        """What these events amount to."""

    async def load_events(
        self, channel: str, span: tuple[int, int], skip: set[int]
    ) -> tuple[list[Event], list[Event]] | None:
        """The oldest events on disk in a span of ids but those to skip, whole ones and damaged ones.

        None if the disk failed.
        """


class Backlog:
    """Oldest first: `head` in memory, then `spilled` on disk, then `tail` in memory."""

    def __init__(self, channel: str, row: ChannelRow | None, disk: BacklogOwner) -> None:
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

    async def fill(self, skip: set[int]) -> Range | None:
        """Bring the oldest into the head. What turned out to be missing; None if the disk failed."""
        if not self.spilled:
            self.head, self.tail = self.tail, deque()
            return NOTHING
        loaded = await self._disk.load_events(self._channel, (self._after_id, self._before_id), skip)
        if loaded is None:
            return None
        whole, damaged = loaded
        for event in whole:
            event.appended_s = float("-inf")
        self.head.extend(whole)
        for event in damaged:
            self._disk.gone(self._channel, event)
        self._after_id = max((event.id for event in (*whole, *damaged)), default=self._after_id)
        self.not_spilled(whole)
        self.not_spilled(damaged)
        lost = self._disk.range_of(damaged) if damaged else NOTHING
        if whole or damaged:
            return lost
        # What the count promised is not there: the file was damaged, or the card lies.
        lost = replace(NOTHING, count=self.spilled, bytes=self.spilled_bytes)
        self.spilled, self.spilled_bytes = 0, 0
        return lost

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

    def adopt(self, row: ChannelRow) -> None:
        """A disk that could not be read before has these, older than all that is in memory."""
        self.head, self.tail = deque(), self.head + self.tail
        self.spilled, self.spilled_bytes = row.events, row.bytes
        self._after_id = 0
        self._before_id = self.tail[0].id if self.tail else self._disk.next_id()

    def restore(self, some: list[Event]) -> None:
        """Events that only the crash log had: newer than all on disk."""
        if some:
            self._before_id = min(self._before_id, some[0].id)
        (self.tail if self.spilled else self.head).extend(some)

    def clear(self) -> None:
        self.head.clear()
        self.tail.clear()
        self.spilled, self.spilled_bytes = 0, 0
