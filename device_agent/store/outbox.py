"""The outbox: per channel a bounded, ordered queue of events, cut into numbered messages.

A cut message keeps its number and content until it is acknowledged. At the cap the overflow rule decides what
gives way, and a `gap` event says so: nothing is lost silently.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from device_agent import events
from device_agent.clock import Clock
from device_agent.events import Draft
from device_agent.network import Cut

Overflow = Literal["drop-oldest", "thin", "refuse"]

# What an event costs in memory beyond its bytes: the object and its place in the queue.
EVENT_OVERHEAD_BYTES = 120
# Under `thin` every other reading of a device goes, oldest first; this much room is made at once.
ROOM_SHARE = 0.1
# What was sent and may be asked for again (`replay`), per lane.
SENT_KEEP_BYTES = 65_536
# An event that waited longer than this is marked `late`: it tells of the past, not of now.
LATE_AFTER_S = 5.0


@dataclass(slots=True)
class Event:
    """One event in a lane. `seq` is None for chunks of bytes."""

    data: bytes
    seq: int | None
    at_ms: int
    appended_s: float
    kind: str
    device: str


class Budget:
    """Bytes that all lanes share (`outbox.max_bytes`)."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0

    @property
    def exceeded(self) -> bool:
        return self.used_bytes > self.max_bytes


class Lane:
    """The outgoing queue of one channel. Implements `network.Lane`; all methods belong to the event loop."""

    def __init__(
        self,
        channel: str,
        *,
        overflow: Overflow,
        budget: Budget,
        clock: Clock,
        first_number: int,
        next_seq: int = 1,
        reserve: Callable[["Lane"], None] | None = None,
    ) -> None:
        self.channel = channel
        self.next_seq = next_seq
        self.dropped = 0
        self.closed = False
        self._overflow = overflow
        self._budget = budget
        self._clock = clock
        self._number = first_number
        self._reserve = reserve
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._cut: Cut | None = None
        self._cut_events: list[Event] = []
        self._ready = asyncio.Event()
        self._lost: list[Event] = []
        self._sent: deque[Event] = deque()
        self._sent_bytes = 0

    # -- filling ----------------------------------------

    def append(self, draft: Draft) -> bool:
        """Number and queue an event; False if the rule `refuse` turned it away."""
        if self.closed:
            return False
        if self._budget.exceeded and self._overflow == "refuse" and draft.kind == "reading":
            self._note_refused(draft)
            return False
        self._put_gap()
        seq = self.next_seq
        self.next_seq += 1
        self._put(
            Event(draft.numbered(seq), seq, draft.at_ms, self._clock.monotonic_s(), draft.kind, draft.device)
        )
        return True

    def append_bytes(self, data: bytes) -> None:
        """Queue a chunk of a byte stream; when there is no room, the oldest chunks go."""
        if not self.closed and data:
            self._put(Event(data, None, self._clock.now_ms(), self._clock.monotonic_s(), "bytes", ""))

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._account(len(event.data) + EVENT_OVERHEAD_BYTES)
        if self._budget.exceeded:
            self._make_room()
        if self._reserve is not None:
            self._reserve(self)
        self._ready.set()

    def _account(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        self._budget.used_bytes += size_bytes

    # -- overflow ----------------------------------------

    def _make_room(self) -> None:
        target_bytes = int(self._budget.max_bytes * (1 - ROOM_SHARE))
        if self._overflow == "thin":
            self._thin(target_bytes)
        while self._budget.used_bytes > target_bytes and len(self._events) > 1:
            self._drop(self._events.popleft())

    def _thin(self, target_bytes: int) -> None:
        kept: deque[Event] = deque()
        keep_next: dict[str, bool] = {}
        while self._events and self._budget.used_bytes > target_bytes:
            event = self._events.popleft()
            keep = event.kind != "reading" or keep_next.get(event.device, True)
            keep_next[event.device] = not keep
            if keep:
                kept.append(event)
            else:
                self._drop(event)
        kept.extend(self._events)
        self._events = kept

    def _drop(self, event: Event) -> None:
        self._account(-len(event.data) - EVENT_OVERHEAD_BYTES)
        self.dropped += 1
        if event.seq is not None:
            self._lost.append(event)

    def _note_refused(self, draft: Draft) -> None:
        self.dropped += 1
        self._lost.append(Event(b"", None, draft.at_ms, 0.0, draft.kind, draft.device))

    def _put_gap(self) -> None:
        """Say what was lost before the next event goes in."""
        if not self._lost:
            return
        lost, self._lost = self._lost, []
        count = len(lost)
        numbered = [event.seq for event in lost if event.seq is not None]
        draft = events.gap(
            self._clock.now_ms(),
            "thinned" if self._overflow == "thin" else "overflow",
            count=count,
            from_seq=min(numbered, default=None),
            to_seq=max(numbered, default=None),
            from_at=min(event.at_ms for event in lost),
            to_at=max(event.at_ms for event in lost),
        )
        seq = self.next_seq
        self.next_seq += 1
        self._put(Event(draft.numbered(seq), seq, draft.at_ms, self._clock.monotonic_s(), "gap", ""))

    # -- emptying (network.Lane) ----------------------------------------

    async def until_ready(self) -> None:
        while not self._events and self._cut is None and not self.closed:
            self._ready.clear()
            await self._ready.wait()

    def cut(self, limit_bytes: int) -> Cut | None:
        if self._cut is not None:
            return self._cut
        if not self._events and self._lost:
            self._put_gap()
        items: list[bytes] = []
        size_bytes = 0
        now_s = self._clock.monotonic_s()
        while self._events:
            event = self._events[0]
            # Base64 of a bytes chunk is a third longer, and every item has a comma.
            item_bytes = len(event.data) * 4 // 3 + 3 if event.seq is None else len(event.data) + 1
            if items and size_bytes + item_bytes > limit_bytes:
                break
            self._events.popleft()
            self._cut_events.append(event)
            late = event.seq is not None and now_s - event.appended_s > LATE_AFTER_S
            items.append(event.data[:-1] + events.LATE if late else event.data)
            size_bytes += item_bytes
        if not items:
            return None
        self._cut = Cut(self._number, tuple(items), self._clock.now_ms())
        self._number += 1
        return self._cut

    def ack(self, cut: Cut) -> None:
        if cut is not self._cut:
            return
        self._account(-sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in self._cut_events))
        for event in self._cut_events:
            if event.seq is not None:
                self._sent.append(event)
                self._sent_bytes += len(event.data)
        while self._sent_bytes > SENT_KEEP_BYTES:
            self._sent_bytes -= len(self._sent.popleft().data)
        self._cut = None
        self._cut_events = []

    def replay(self, from_seq: int) -> int | None:
        """Queue again what was sent from this number on; returns the first number that goes out again.

        None where nothing of it is kept any more (or nothing was ever sent).
        """
        again = [event for event in self._sent if event.seq is not None and event.seq >= from_seq]
        past_s = self._clock.monotonic_s() - LATE_AFTER_S - 1
        for event in again:
            self._put(Event(event.data, event.seq, event.at_ms, past_s, event.kind, event.device))
        return again[0].seq if again else None

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    @property
    def pending_events(self) -> int:
        return len(self._events) + len(self._cut_events)

    @property
    def next_number(self) -> int:
        return self._number

    # -- end ----------------------------------------

    def close(self) -> None:
        """Take nothing more; the writer empties what is left and ends."""
        self.closed = True
        self._ready.set()

    def discard(self) -> None:
        """Forget what is left: nobody will ever read it."""
        self._account(-self._bytes)
        self._events.clear()
        self._cut, self._cut_events = None, []
        self.close()

    # -- over restarts ----------------------------------------

    def dump(self) -> dict[str, object]:
        """All that a later process needs to go on without a hole or a repetition."""
        cut = self._cut
        return {
            "next_seq": self.next_seq,
            "number": self._number,
            "cut": None if cut is None else [cut.number, cut.ts_ms, list(cut.items)],
            "events": [[e.data, e.seq, e.at_ms, e.kind, e.device] for e in self._events],
        }

    def restore(self, state: dict[str, object]) -> None:
        """Go on where `dump` stopped. What waited over the restart is late."""
        past_s = self._clock.monotonic_s() - LATE_AFTER_S - 1
        self.next_seq = max(self.next_seq, _number(state.get("next_seq")))
        self._number = max(self._number, _number(state.get("number")))
        cut = state.get("cut")
        if isinstance(cut, list) and len(cut) == 3:
            self._cut = Cut(int(cut[0]), tuple(cut[2]), int(cut[1]))
            for item in self._cut.items:
                self._cut_events.append(Event(item, None, 0, past_s, "", ""))
                self._account(len(item) + EVENT_OVERHEAD_BYTES)
        stored = state.get("events")
        for data, seq, at_ms, kind, device in stored if isinstance(stored, list) else []:
            self._put(Event(data, seq, at_ms, past_s, kind, device))
        self._ready.set()


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
