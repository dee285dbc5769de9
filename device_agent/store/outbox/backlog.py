"""The late events of one channel: both ends in memory, the middle of a long backlog on disk only."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from device_agent.store.outbox.event import DiskState, Event, cost_bytes
from device_agent.store.outbox.loss import Loss, losses_of
from device_agent.store.outbox.outbox_file import ChannelRow

if TYPE_CHECKING:
    from device_agent.store.outbox.outbox import Outbox


class Backlog:
    """Oldest first: `head` in memory, then `spilled` events on disk only, then `tail` in memory."""

    def __init__(self, channel: str, row: ChannelRow | None, outbox: "Outbox") -> None:
        self.head: deque[Event] = deque()
        self.tail: deque[Event] = deque()
        self.spilled = row.events if row else 0
        self.spilled_bytes = row.bytes if row else 0
        self._channel = channel
        self._outbox = outbox
        # The ids (exclusive) between which the spilled events are; those in flight are there as well.
        self._after_id, self._before_id = 0, outbox.next_id()

    def __len__(self) -> int:
        return len(self.head) + self.spilled + len(self.tail)

    def in_memory(self) -> Iterator[Event]:
        yield from self.head
        yield from self.tail

    @property
    def beyond_head(self) -> bool:
        """Whether there is more than the head."""
        return bool(self.spilled or self.tail)

    @property
    def spilled_ids(self) -> tuple[int, int] | None:
        """The ids (exclusive) between which the spilled events are; None if there are none."""
        return (self._after_id, self._before_id) if self.spilled else None

    def add(self, event: Event) -> None:
        """The newest late event."""
        (self.tail if self.beyond_head else self.head).append(event)

    async def fill_head(self, skip: set[int]) -> tuple[list[Loss], int] | None:
        """Load the oldest events but those to skip.

        What turned out to be missing, and its bytes; None if the disk failed.
        """
        if not self.spilled:
            self.head, self.tail = self.tail, deque()
            return [], 0
        loaded = await self._outbox.load_events(self._channel, (self._after_id, self._before_id), skip)
        if loaded is None:
            return None
        whole, damaged = loaded
        for event in whole:
            event.appended_s = float("-inf")
        self.head.extend(whole)
        for event in damaged:
            self._outbox.delete_later(self._channel, event.id)
        self._after_id = max((event.id for event in (*whole, *damaged)), default=self._after_id)
        self.not_spilled([*whole, *damaged])
        if damaged:
            clock = self._outbox.clock
            return losses_of(damaged, "power_cut", clock.boot, clock.offset_ms()), cost_bytes(damaged)
        if whole:
            return [], 0
        # The events that the channel's row counts are not there: the file was damaged, or the card lies.
        missing = [Loss("power_cut", self.spilled)], self.spilled_bytes
        self.spilled, self.spilled_bytes = 0, 0
        return missing

    def spill(self) -> int:
        """Release the middle from memory where it is on disk; returns the bytes that this freed."""
        if not self.beyond_head:
            size = 0
            keep: deque[Event] = deque()
            while self.head and size < self._outbox.window_bytes:
                size += self.head[0].cost_bytes
                keep.append(self.head.popleft())
            self.head, self.tail = keep, self.head
            if self.tail:
                self._after_id = self.tail[0].id - 1
        freed_bytes = 0
        while self.tail and self.tail[0].disk_state is DiskState.STORED:
            event = self.tail.popleft()
            self._before_id = event.id + 1
            self.spilled += 1
            self.spilled_bytes += event.cost_bytes
            freed_bytes += event.cost_bytes
        return freed_bytes

    def replaced(self, gone: int, more_bytes: int) -> None:
        """So many spilled events are gone, and what is left in their places is so much larger."""
        self.spilled -= gone
        self.spilled_bytes += more_bytes

    def not_spilled(self, some: list[Event]) -> None:
        """These are in memory now, or gone."""
        self.spilled -= len(some)
        self.spilled_bytes -= cost_bytes(some)

    def adopt(self, row: ChannelRow) -> None:
        """A disk that could not be read before has these events, older than all in memory."""
        self.head, self.tail = deque(), self.head + self.tail
        self.spilled, self.spilled_bytes = row.events, row.bytes
        self._after_id = 0
        self._before_id = self.tail[0].id if self.tail else self._outbox.next_id()

    def restore(self, some: list[Event]) -> None:
        """Events that only the crash log had: newer than all on disk."""
        if some:
            self._before_id = min(self._before_id, some[0].id)
        (self.tail if self.spilled else self.head).extend(some)

    def clear(self) -> None:
        self.head.clear()
        self.tail.clear()
        self.spilled, self.spilled_bytes = 0, 0
