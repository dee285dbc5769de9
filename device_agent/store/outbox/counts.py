"""What became of the events since the process began, over all channels; for `status` and the metrics."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

# Upper bounds in seconds of the histogram of how long messages took to be accepted.
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(slots=True)
class OutboxCounts:
    """`lost` is by the reason that the `gap` gives; events of which nobody knows the number count as none."""

    queued: int = 0
    acknowledged: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    publish_s: float = 0.0
    publish_buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    def accepted(self, events: int, took_s: float) -> None:
        """A message of so many events was accepted; infinite for one that an earlier process began."""
        self.acknowledged += events
        if isfinite(took_s):
            self.publish_s += took_s
            self.publish_buckets[bisect_left(BUCKETS_S, took_s)] += 1

    def figures(self) -> dict[str, Any]:
        """`publish` has messages by how long they took: [seconds at most (None: longer), messages]."""
        return {
            "queued": self.queued,
            "acknowledged": self.acknowledged,
            "dropped": self.lost.total(),
            "lost": dict(self.lost),
            "publish": {
                "seconds": round(self.publish_s, 3),
                "messages": [
                    list(pair) for pair in zip((*BUCKETS_S, None), self.publish_buckets, strict=True)
                ],
            },
        }
