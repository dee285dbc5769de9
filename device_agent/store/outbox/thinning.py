"""The overflow rule `thin`: several readings become one that keeps their mean, minimum and maximum.

A window is a number of readings. A thinned reading is thinned again with a wider one, by its weight.
"""

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from device_agent.clock import undated
from device_agent.messages import events
from device_agent.records import is_number, rounded
from device_agent.store.outbox.event import DiskState, Event

# The first window, and how much wider each next one is.
WIDER = 4


@dataclass(slots=True)
class ThinningProgress:
    """How far the backlog of one channel on disk is thinned: up to `done_to_id` with this window."""

    window: int = WIDER
    done_to_id: int = 0

    def widen(self) -> None:
        self.window, self.done_to_id = self.window * WIDER, 0

    def restart(self) -> None:
        self.window, self.done_to_id = WIDER, 0


@dataclass(slots=True)
class _Group:
    """Readings of one device that become one event. `alike` is what they must have in common."""

    last: Event
    alike: tuple[Any, ...]
    rows: int = 0
    count: int = 0
    from_at: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    minimum: dict[str, float] = field(default_factory=dict)
    maximum: dict[str, float] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)

    def add(self, event: Event, reading: dict[str, Any]) -> None:
        earlier = reading.get("thinned") or {}
        count = int(earlier.get("count", 1))
        self.from_at = self.from_at or int(earlier.get("from_at", event.at_ms))
        self.rows += 1
        self.count += count
        self.last = event
        for name, value in reading["values"].items():
            self.latest[name] = value
            if not is_number(value):
                continue
            low = earlier.get("minimum", {}).get(name, value)
            high = earlier.get("maximum", {}).get(name, value)
            self.sums[name] = self.sums.get(name, 0.0) + value * count
            self.weights[name] = self.weights.get(name, 0) + count
            self.minimum[name] = min(self.minimum.get(name, low), low)
            self.maximum[name] = max(self.maximum.get(name, high), high)

    def event(self, device: str) -> Event:
        if self.rows == 1:
            return self.last
        values = {**self.latest, **{n: rounded(self.sums[n] / self.weights[n]) for n in self.sums}}
        summary = {
            "count": self.count,
            "from_at": self.from_at,
            "to_at": self.last.at_ms,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }
        boot, _, flags = self.alike
        draft = events.thinned(device, boot, self.last.at_ms, values, summary, flags)
        last = self.last
        data = draft.numbered(last.seq or 0)
        return Event(
            last.id, data, last.seq, last.at_ms, "reading", device, last.appended_s, DiskState.NOT_STORED
        )


def thin(old: Sequence[Event], window: int) -> list[Event]:
    """Fewer events in the place of these, in the order of their ids; all but readings stay as they are.

    Each stands for at most `window` readings of one device. Of the ids and numbers between two events that
    stay, the last are used: those that will not come are adjacent then, and one `gap` names them.
    """
    groups: dict[str, list[_Group]] = {}
    kept: list[Event] = []
    for event in old:
        reading = _reading(event)
        if reading is None:
            kept.append(event)
            continue
        mine = groups.setdefault(event.device, [])
        # A mean over two starts of the machine, or over readings with and without a time, has no time itself.
        alike = str(reading.get("boot", "")), undated(event.at_ms), reading.get("flags")
        count = int((reading.get("thinned") or {}).get("count", 1))
        if not mine or mine[-1].count + count > window or mine[-1].alike != alike:
            mine.append(_Group(event, alike))
        mine[-1].add(event, reading)
    merged = (group.event(device) for device, mine in groups.items() for group in mine)
    return _at_the_last_places(sorted([*kept, *merged], key=attrgetter("id")), old, {e.id for e in kept})


def _at_the_last_places(new: Sequence[Event], old: Sequence[Event], fixed: Set[int]) -> list[Event]:
    places = {event.id: place for place, event in enumerate(old)}
    place = len(old)
    moved: list[Event] = []
    for event in reversed(new):
        place = places[event.id] if event.id in fixed else place - 1
        to = old[place]
        if event.id != to.id:
            data = events.renumbered(event.data, event.seq or 0, to.seq or 0)
            event = replace(event, id=to.id, seq=to.seq, data=data, disk_state=DiskState.NOT_STORED)
        moved.append(event)
    return moved[::-1]


def _reading(event: Event) -> dict[str, Any] | None:
    if event.kind != "reading" or event.seq is None:
        return None
    try:
        reading = json.loads(event.data)
    except ValueError:
        return None
    return reading if isinstance(reading, dict) and isinstance(reading.get("values"), dict) else None
