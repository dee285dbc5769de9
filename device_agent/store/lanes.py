"""All lanes: opened by stream id, numbered so that no number ever goes back, kept over restarts."""

from typing import Any, Protocol

from device_agent.clock import Clock
from device_agent.network.blocks.messages import FIRST_NUMBER
from device_agent.store.journal import Journal
from device_agent.store.outbox import Budget, Lane, Overflow

# Numbers are written down this many ahead: a crash costs a reader one 750 ms stall, not a commit per message.
RESERVE = 1000


class StreamRule(Protocol):
    """What a lane needs of its stream's configuration."""

    @property
    def format(self) -> Any: ...

    @property
    def affinity(self) -> str: ...

    @property
    def overflow(self) -> Overflow: ...


class Lanes:
    """Owner of the lanes. A shared stream's lane is kept for the life of the agent."""

    def __init__(self, max_bytes: int, journal: Journal, clock: Clock) -> None:
        self.budget = Budget(max_bytes)
        self._journal = journal
        self._clock = clock
        self._open: dict[str, Lane] = {}
        self._stored: dict[str, dict[str, Any]] = {}
        self._reserved: dict[str, tuple[int, int]] = {}

    async def load(self) -> None:
        """Read what the last process left."""
        self._stored = await self._journal.lanes()

    def open(self, id_: str, stream: StreamRule) -> Lane:
        """The lane of a stream; a shared one that is open already is the same lane."""
        lane = self._open.get(id_)
        if lane is not None and not lane.closed:
            return lane
        lane = Lane(
            id_,
            overflow=stream.overflow,
            budget=self.budget,
            clock=self._clock,
            first_number=FIRST_NUMBER[stream.format],
            reserve=self._reserve,
        )
        stored = self._stored.pop(id_, None)
        if stored is not None:
            lane.restore(stored)
        elif (kept := self._reserved.get(id_)) is not None:
            lane.restore({"number": kept[0], "next_seq": kept[1]})
        self._open[id_] = lane
        return lane

    def _reserve(self, lane: Lane) -> None:
        number, seq = self._reserved.get(lane.channel, (0, 0))
        if lane.next_number < number and lane.next_seq < seq:
            return
        self._reserved[lane.channel] = (lane.next_number + RESERVE, lane.next_seq + RESERVE)
        state = {"number": lane.next_number + RESERVE, "next_seq": lane.next_seq + RESERVE}
        self._journal.note_lane(lane.channel, state)

    def forget(self, id_: str) -> None:
        """A dedicated stream has ended for good."""
        lane = self._open.pop(id_, None)
        if lane is not None:
            lane.discard()
        self._reserved.pop(id_, None)
        self._journal.forget_lane(id_)

    def save(self) -> None:
        """Write down all that waits, for the next process."""
        for id_, lane in self._open.items():
            self._journal.note_lane(id_, lane.dump())

    @property
    def pending_events(self) -> int:
        return sum(lane.pending_events for lane in self._open.values())

    @property
    def dropped(self) -> int:
        return sum(lane.dropped for lane in self._open.values())
