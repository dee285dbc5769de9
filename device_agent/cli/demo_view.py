"""What the demo's caller has seen so far, from the events of its session alone, and the words for it."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from device_agent.cli import demo_scene as scene
from device_agent.cli.call_show import mapping, value_text

HISTORY_LENGTH = 120
LOG_LENGTH = 100
BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class Trace:
    """A point as the caller knows it. `at_s` is when its newest live value came, by `time.monotonic()`."""

    value: Any = None
    at_s: float = 0.0
    numbers: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY_LENGTH))


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened, for the log. `style` is a colour's name."""

    at_s: float
    text: str
    style: str = ""


class View:
    """Takes the session's events; says what they mean through `on_note`."""

    def __init__(self, on_note: Callable[[Note], None] | None = None) -> None:
        self.traces = {(row.device, row.point): Trace() for row in scene.ROWS}
        self.states: dict[str, str] = {}
        self.notes: deque[Note] = deque(maxlen=LOG_LENGTH)
        self.readings = 0
        self.late = 0
        self.late_at_s = 0.0
        self.verified = 0
        self.ack_at_s = 0.0
        self.ack_ms = 0.0
        self.ack_text = ""
        self.lost = 0
        self.sent: dict[str, tuple[float, bool]] = {}
        self._on_note = on_note
        self._last_seq = 0
        self._held: set[int] = set()

    def note(self, text: str, style: str = "") -> None:
        """Add a line to the log."""
        note = Note(time.monotonic(), text, style)
        self.notes.append(note)
        if self._on_note is not None:
            self._on_note(note)

    def trace(self, device: str, point: str) -> Trace:
        return self.traces[device, point]

    @property
    def missing(self) -> int:
        """Numbers between the first and the newest that have not come (yet)."""
        return self._last_seq - len(self._held) if self._held else 0

    # -- in ----------------------------------------

    def take(self, event: Mapping[str, Any], at_s: float) -> None:
        """One event of the session."""
        seq = event.get("seq")
        if isinstance(seq, int):
            self._last_seq = max(self._last_seq, seq)
            self._held.add(seq)
        match event.get("kind"):
            case "reading":
                self._reading(event, at_s)
            case "status":
                self._status(event)
            case "ack":
                self._ack(event, at_s)
            case "gap":
                self.lost += int(event.get("count") or 0)
                self.note(f"{event.get('count')} readings were lost: {event.get('reason')}", "red")

    def _reading(self, event: Mapping[str, Any], at_s: float) -> None:
        self.readings += 1
        late = event.get("late") is True
        if late:
            if at_s - self.late_at_s > 5:
                self.note("the first of the waiting readings has arrived, marked late", "green")
            self.late += 1
            self.late_at_s = at_s
        for point, value in mapping(event.get("values")).items():
            trace = self.traces.get((str(event.get("device")), point))
            if trace is None or (late and at_s - trace.at_s < 5):
                continue  # an old value does not go over a new one
            before, trace.value, trace.at_s = trace.value, value, at_s
            if isinstance(value, int | float) and not isinstance(value, bool):
                trace.numbers.append(float(value))
            if event.get("device") == scene.DOOR and isinstance(before, bool) and before is not value:
                self._door(bool(value), time.time() - event.get("at", 0) / 1000)

    def _door(self, opened: bool, age_s: float) -> None:
        if age_s > 3:
            self.note(
                f"the door {'opened' if opened else 'closed'} {age_s:.0f} s ago, while the link was cut"
            )
        else:
            act = "opens" if opened else "closes"
            self.note(f"the door {act}: an edge on pin {scene.DOOR_LINE}, sent at once")

    def _status(self, event: Mapping[str, Any]) -> None:
        device, state = str(event.get("device")), str(event.get("state"))
        before = self.states.get(device, "online")
        self.states[device] = state
        if state != "online":
            reason = str(event.get("reason") or "").replace("_", " ")
            self.note(f"the caller is told: {device} is {state}{reason and f' ({reason})'}", "yellow")
        elif before != "online":
            self.note(f"the caller is told: {device} is online again", "green")

    def _ack(self, event: Mapping[str, Any], at_s: float) -> None:
        sent_s, wanted = self.sent.pop(str(event.get("id")), (at_s, False))
        self.ack_at_s, self.ack_ms = at_s, (at_s - sent_s) * 1000
        act = "open" if wanted else "close"
        if event.get("state") == "done":
            seen = ", read back from the pin" if event.get("verified") is True else ""
            self.verified += event.get("verified") is True
            if event.get("verified") is True:
                trace = self.traces[scene.VALVE, "on"]
                trace.value, trace.at_s = mapping(event.get("applied")).get("on"), at_s
            self.ack_text = f"{act} valve: done{seen}, {self.ack_ms:.0f} ms"
            self.note(f"ack: {self.ack_text}", "green")
        else:
            fault = mapping(event.get("error"))
            self.ack_text = f"{act} valve: {event.get('state')} ({fault.get('message', 'no reason given')})"
            self.note(f"ack: {self.ack_text}", "red")


def number_text(row: scene.Row, value: Any) -> str:
    """A value of the table, in the words of the scene."""
    if value is None:
        return "-"
    if row.device == scene.DOOR:
        return "open" if value else "closed"
    if row.device == scene.VALVE:
        return "OPEN" if value else "closed"
    if isinstance(value, int | float):
        return f"{value:.{row.digits}f}"
    return value_text(value)


def sparkline(numbers: deque[float], width: int, least: float) -> str:
    """The newest numbers as bars. `least`: the smallest range that fills the height, so noise stays low."""
    shown = list(numbers)[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = max(high - low, least)
    low = (low + high - span) / 2
    return "".join(BARS[min(7, int((number - low) / span * 8))] for number in shown)
