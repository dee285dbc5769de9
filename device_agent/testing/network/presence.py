"""Who is on which channel, with which state; without heartbeat a client lapses (protocol section 9)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

_MAX_OCCUPANTS = 1000
_MAX_CHANNELS = 20_000


@dataclass(slots=True)
class Occupant:
    """One client on one channel. ``seen_s`` and ``joined_s`` are monotonic; ``joined_s`` 0: never there."""

    uuid: str
    joined_s: float
    seen_s: float
    timeout_s: float
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether its last sign of life is younger than its timeout."""
        return time.monotonic() - self.seen_s < self.timeout_s


class Presence:
    """The presence table of one key set."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, Occupant]] = {}

    def seen(self, channel: str, uuid: str, timeout_s: float) -> Occupant:
        """A sign of life: joins or stays."""
        now = time.monotonic()
        occupants = self._channels.setdefault(channel, {})
        found = occupants.get(uuid)
        if found is None or (not found.live and found.joined_s):
            found = occupants[uuid] = Occupant(uuid, now, now, timeout_s)
        found.joined_s = found.joined_s or now
        found.seen_s = now
        found.timeout_s = timeout_s
        if len(occupants) > _MAX_OCCUPANTS or len(self._channels) > _MAX_CHANNELS:
            self._sweep()
        return found

    def set_state(self, channel: str, uuid: str, state: dict[str, Any]) -> None:
        """Replace a client's state. It is no sign of life: who has not subscribed is not there by it."""
        occupants = self._channels.setdefault(channel, {})
        found = occupants.get(uuid)
        if found is None:
            found = occupants[uuid] = Occupant(uuid, 0.0, -math.inf, 0.0)
        found.state = state

    def leave(self, channel: str, uuid: str) -> None:
        """The client says goodbye."""
        occupants = self._channels.get(channel, {})
        occupants.pop(uuid, None)
        if not occupants:
            self._channels.pop(channel, None)

    def live(self, channel: str) -> list[Occupant]:
        """The live clients of a channel, in order of joining."""
        return [o for o in list(self._channels.get(channel, {}).values()) if o.live]

    def table(self) -> dict[str, list[dict[str, Any]]]:
        """Live clients of all channels."""
        now = time.monotonic()
        return {
            channel: [
                {
                    "uuid": o.uuid,
                    "state": o.state,
                    "seen_s_ago": round(now - o.seen_s, 3),
                    "timeout_s": o.timeout_s,
                }
                for o in found
            ]
            for channel in list(self._channels)
            if (found := self.live(channel))
        }

    def _sweep(self) -> None:
        """Forget who has lapsed, and the oldest channels if there are too many still."""
        self._channels = {c: {o.uuid: o for o in found} for c in self._channels if (found := self.live(c))}
        while len(self._channels) > _MAX_CHANNELS // 2:
            del self._channels[next(iter(self._channels))]
