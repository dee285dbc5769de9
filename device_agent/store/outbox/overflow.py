"""What gives way when the outbox on disk reaches `outbox.max_bytes`, by each stream's `overflow` rule.

Memory is bounded by `ChannelQueue.free_memory`; in both, `drop_order` says which channel gives first.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.event import Event, cost_bytes
from device_agent.store.outbox.thinning import thin

if TYPE_CHECKING:
    from device_agent.store.outbox.outbox import Outbox

# How much is dropped or thinned in one step, and at most this share of the whole outbox: it passes through
# memory.
STEP_BYTES = 1_000_000
STEP_SHARE = 0.1
# Thinning that saves less than this is not worth a write.
MIN_SAVING_SHARE = 0.1
# One event never stands for more readings than this; then the oldest are dropped.
WINDOW_MAX = 100_000


def drop_order(queues: Collection[ChannelQueue], share_bytes: int) -> list[ChannelQueue]:
    """Which gives way first: those that have more than their share, the largest first.

    Among them, those that refuse new readings keep their old ones longest.
    """
    return sorted(
        queues,
        key=lambda queue: (
            queue.pending_bytes <= share_bytes,
            queue.overflow == "refuse",
            -queue.pending_bytes,
        ),
    )


class DiskOverflow:
    """Frees space in the outbox file, a step at a time."""

    def __init__(self, outbox: "Outbox") -> None:
        self.step_bytes = min(STEP_BYTES, int(outbox.max_bytes * STEP_SHARE))
        self._outbox = outbox

    async def free_a_step(self, queues: Collection[ChannelQueue]) -> bool:
        """Free `step_bytes`; False if no queue could give anything."""
        for queue in drop_order(queues, self._outbox.max_bytes // max(1, len(queues))):
            before = queue.pending_bytes
            if queue.spilled_ids is None:
                queue.thinning.restart()
                queue.free_memory(self.step_bytes)
            elif queue.overflow != "thin" or not await self._thin(queue):
                await self._drop(queue)
            if queue.pending_bytes < before:
                return True
        return False

    async def _drop(self, queue: ChannelQueue) -> None:
        if old := await self._oldest(queue, 0):
            queue.replace_spilled(old, [], "overflow")

    async def _thin(self, queue: ChannelQueue) -> bool:
        """Thin the next part of the backlog: `window` events become one.

        Once all of the backlog is thinned with this window, the next round begins with a wider one: the whole
        past gets coarser at the same rate, the newest part last.
        """
        progress = queue.thinning
        while progress.window <= WINDOW_MAX:
            old = await self._oldest(queue, progress.done_to_id)
            if old is None:
                return False
            if cost_bytes(old) < self.step_bytes // 2:
                progress.widen()
                continue
            progress.done_to_id = old[-1].id
            new = thin([queue.dated(event) for event in old], progress.window)
            if cost_bytes(new) <= (1 - MIN_SAVING_SHARE) * cost_bytes(old):
                queue.replace_spilled(old, new, "thinned")
                return True
        progress.restart()
        return False

    async def _oldest(self, queue: ChannelQueue, after_id: int) -> list[Event] | None:
        """A step's worth of whole events on disk; None if there are none, or the disk failed."""
        if queue.spilled_ids is None:
            return None
        first_id, last_id = queue.spilled_ids
        ids = max(first_id, after_id), last_id
        loaded = await self._outbox.read_events(queue.channel, ids, self.step_bytes, queue.ids_in_flight())
        return None if loaded is None else loaded[0]
