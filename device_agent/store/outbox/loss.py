"""What will not come: kept until something can be sent, and told in as few `gap` events as will do."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from device_agent.clock import undated
from device_agent.messages import events
from device_agent.messages.events import EventDraft
from device_agent.store.outbox.event import REPEATED, Event, dated


@dataclass(frozen=True, slots=True)
class Loss:
    """What one `gap` tells: events that will not come, adjacent in number, and when they were (epoch ms).

    Without numbers none had been given, or nobody knows which. With `to_seq` alone: all numbers up to it that
    a caller does not have. `count` is None where nobody knows how many; a time is 0 where nobody knows it.
    """

    reason: str
    count: int | None
    from_at: int = 0
    to_at: int = 0
    from_seq: int | None = None
    to_seq: int | None = None

    def _touches(self, later: "Loss") -> bool:
        if self._kind != later._kind:
            return False
        return self.from_seq is None or later.from_seq is None or later.from_seq <= (self.to_seq or 0) + 1

    @property
    def _kind(self) -> tuple[str, bool, bool, bool]:
        return self.reason, self.from_seq is not None, self.to_seq is not None, self.count is not None

    def _joined(self, later: "Loss") -> "Loss":
        count, to_seq = self.count, self.to_seq
        if later.to_seq is not None:
            to_seq = max(self.to_seq or 0, later.to_seq)
        if count is not None:
            count = count + (later.count or 0) if self.from_seq is None else (to_seq or 0) - self.from_seq + 1
        known = [at for at in (self.from_at, later.from_at) if at]
        to_at = max(self.to_at, later.to_at)
        return replace(self, count=count, from_at=min(known, default=0), to_at=to_at, to_seq=to_seq)

    def draft(self, now_ms: int, offset_ms: int | None) -> EventDraft:
        """The `gap`; `offset_ms` dates what was lost before the clock was set."""
        from_at, to_at = (
            at + offset_ms if offset_ms is not None and at > 0 and undated(at) else at
            for at in (self.from_at, self.to_at)
        )
        return events.gap(
            now_ms,
            self.reason,
            count=self.count,
            from_seq=self.from_seq,
            to_seq=self.to_seq,
            from_at=from_at or now_ms,
            to_at=to_at or now_ms,
        )

    def record(self) -> list[Any]:
        return [self.reason, self.count, self.from_at, self.to_at, self.from_seq, self.to_seq]


def merged(some: Iterable[Loss]) -> list[Loss]:
    """The same losses, as few as will do."""
    found: list[Loss] = []
    for loss in sorted(some, key=lambda loss: (loss._kind, loss.from_seq or 0)):
        if found and found[-1]._touches(loss):
            found[-1] = found[-1]._joined(loss)
        else:
            found.append(loss)
    return sorted(found, key=lambda loss: loss.from_seq or 0)


def losses_of(some: Sequence[Event], reason: str, boot: str, offset_ms: int | None) -> list[Loss]:
    """What is lost with these events; a `gap` among them passes on what it told."""
    found: list[Loss] = []
    for event in some:
        if event.kind in (REPEATED, "bytes"):
            continue
        now = dated(event, boot, offset_ms)
        at_ms = 0 if undated(now.at_ms) and events.encode(boot) not in now.data else now.at_ms
        found.append(Loss(reason, 1, at_ms, at_ms, event.seq, event.seq))
        if event.kind == "gap":
            gap = json.loads(now.data)
            numbers = gap["from_seq"], gap["to_seq"]
            found.append(Loss(gap["reason"], gap["count"], gap["from_at"], gap["to_at"], *numbers))
    return merged(found)


def losses_in(records: Iterable[Sequence[Any]], *, same_boot: bool) -> list[Loss]:
    """Losses as `Loss.record` wrote them; nobody knows any more when an undated one of another boot was."""
    losses = [Loss(*record) for record in records]
    return (
        losses
        if same_boot
        else [replace(x, from_at=_known(x.from_at), to_at=_known(x.to_at)) for x in losses]
    )


def _known(at_ms: int) -> int:
    return 0 if undated(at_ms) else at_ms
