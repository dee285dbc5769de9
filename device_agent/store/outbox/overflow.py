"""What gives way when the outbox on disk reaches `outbox.max_bytes`, by each stream's `overflow` rule.

Memory is bounded by `ChannelQueue.free_memory`; in both, `drop_order` says which channel gives first.
"""

from collections.abc import Collection
from dataclasses import replace
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


def drop_order(queues: Collection[ChannelQueue]) -> list[ChannelQueue]:
    """Which gives way first: the largest, but those that refuse new readings keep their old ones longest."""
    return sorted(queues, key=lambda queue: (queue.overflow == "refuse", -queue.pending_bytes))


class DiskOverflow:
    """Frees space in the outbox file, a step at a time."""

    def __init__(self, outbox: "Outbox") -> None:
        self.step_bytes = min(STEP_BYTES, int(outbox.max_bytes * STEP_SHARE))
        self._outbox = outbox

    async def free_a_step(self, queues: Collection[ChannelQueue]) -> bool:
        """Free `step_bytes`; False if no queue could give anything."""
        for queue in drop_order(queues):
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
        old = await self._oldest(queue, 0)
        if not old:
            return
        # The gap is written in the same transaction: no crash can hide the loss.
        gap = queue.report_lost(queue.range_of(old), "overflow")
        if await self._outbox.replace_events(queue.channel, old, [] if gap is None else [gap]):
            queue.replaced(queue.range_of(old), 0)

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
            if await self._replace_by_fewer(queue, old):
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

    async def _replace_by_fewer(self, queue: ChannelQueue, old: list[Event]) -> bool:
        """False if thinning saves too little. A failing disk is no reason to widen the window."""
        new = thin([queue.dated(event) for event in old], queue.thinning.window)
        size_bytes = cost_bytes(new)
        before = queue.range_of(old)
        if size_bytes > (1 - MIN_SAVING_SHARE) * before.bytes:
            return False
        rows = len(old) - len(new)
        gap = queue.report_lost(replace(before, count=rows), "thinned")
        if await self._outbox.replace_events(queue.channel, old, [*new, *([] if gap is None else [gap])]):
            queue.replaced(replace(before, rows=rows), size_bytes)
        return True
