"""The cap of the outbox: who gives way, and by which rule. Disk first, then memory."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.event import Event
from device_agent.store.outbox.thinning import WIDER, cost_bytes, thin

# So much is dropped or thinned in one step: it passes through memory.
STEP_BYTES = 1_000_000
# And so much of a small outbox.
STEP_SHARE = 0.1
# Thinning that saves less than this is none.
WORTH_SHARE = 0.1
# One event never stands for more readings than this; then the oldest go.
WINDOW_MAX = 100_000

Load = Callable[[str, tuple[int, int], int, set[int]], Awaitable[list[Event] | None]]
Replace = Callable[[list[Event], list[tuple[str, Event]]], Awaitable[bool]]


def giving_way(lanes: Collection[ChannelQueue]) -> list[ChannelQueue]:
    """Who gives way, first to last: a lane that refuses new readings keeps its old ones if it can."""
    return sorted(lanes, key=_rank)


def _rank(lane: ChannelQueue) -> tuple[bool, int]:
    return lane.overflow == "refuse", -lane.pending_bytes


class Capacity:
    """Makes room on the disk, a step at a time."""

    def __init__(self, max_bytes: int, load: Load, replace: Replace) -> None:
        self.step_bytes = min(STEP_BYTES, int(max_bytes * STEP_SHARE))
        self._load = load
        self._replace = replace

    async def step(self, lanes: Collection[ChannelQueue]) -> bool:
        """Free a step's worth; False if nobody could give anything."""
        for lane in giving_way(lanes):
            before = lane.pending_bytes
            if lane.spilled_span is None:
                lane.thin_window, lane.thinned_to = WIDER, 0
                lane.make_room(self.step_bytes)
            elif lane.overflow != "thin" or not await self._thin(lane):
                await self._drop(lane)
            if lane.pending_bytes < before:
                return True
        return False

    async def _drop(self, lane: ChannelQueue) -> None:
        span = lane.spilled_span
        old = await self._load(lane.channel, span, self.step_bytes, lane.held_ids()) if span else None
        if not old:
            return
        # The gap is on the disk in the same step: no crash can hide the loss.
        gap = lane.say_lost(lane.range_of(old), "overflow")
        if await self._replace(old, [] if gap is None else [(lane.channel, gap)]):
            lane.removed(lane.range_of(old), 0)

    async def _thin(self, lane: ChannelQueue) -> bool:
        """The next part of the backlog; with a wider window once all of it has this one.

        So all of the past gets coarser alike, and the newest part last.
        """
        while lane.thin_window <= WINDOW_MAX:
            span = lane.spilled_span
            if span is None:
                return False
            begin = max(span[0], lane.thinned_to), span[1]
            old = await self._load(lane.channel, begin, self.step_bytes, lane.held_ids())
            if old is None:
                return False
            if cost_bytes(old) < self.step_bytes // 2:
                lane.thin_window, lane.thinned_to = lane.thin_window * WIDER, 0
                continue
            lane.thinned_to = old[-1].id
            if await self._thinned(lane, old):
                return True
        lane.thin_window, lane.thinned_to = WIDER, 0
        return False

    async def _thinned(self, lane: ChannelQueue, old: list[Event]) -> bool:
        new = thin([lane.dated(event) for event in old], lane.thin_window)
        size_bytes = cost_bytes(new)
        whole = lane.range_of(old)
        if size_bytes > (1 - WORTH_SHARE) * whole.bytes:
            return False
        rows = len(old) - len(new)
        gap = lane.say_lost(replace(whole, count=rows), "thinned")
        kept = [(lane.channel, event) for event in (*new, *([] if gap is None else [gap]))]
        if await self._replace(old, kept):
            lane.removed(replace(whole, rows=rows), size_bytes)
        return True
