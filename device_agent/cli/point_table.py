"""A table of points that live, for the demo and `monitor`: value, unit, a line of bars, age."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from device_agent.cli.live import Line
from device_agent.cli.show import span_text
from device_agent.records import is_number

BARS = "▁▂▃▄▅▆▇█"
BARS_MAX = 120
# A change of a point by less than this part of its value is noise, and stays low.
NOISE = 1 / 500
# Name of the device, name of the point, value, unit, age; longer ones take a little more where there is room.
WIDTHS, MORE = (9, 13, 10, 5, 6), 6
BARS_WIDTH_MIN = 16
BARS_WIDTH_MAX = 60


@dataclass(slots=True)
class Trace:
    """What is known of a point. `at_s` is when its newest value was, by the user's clock; 0.0: never."""

    value: Any = None
    at_s: float = 0.0
    numbers: deque[float] = field(default_factory=lambda: deque(maxlen=BARS_MAX))
    bar_at_s: float = 0.0

    def take(self, value: Any, at_s: float, bar_s: float = 0.0) -> None:
        """A newer value. Within `bar_s` of the newest bar it takes that bar's place."""
        self.value, self.at_s = value, at_s
        if not is_number(value):
            return
        if self.numbers and at_s - self.bar_at_s < bar_s:
            self.numbers[-1] = float(value)
        else:
            self.numbers.append(float(value))
            self.bar_at_s = at_s


@dataclass(frozen=True, slots=True)
class PointLine:
    """A line of the table; a `note` stands in place of the bars, a faded one is not of now."""

    device: str
    point: str
    value: str
    trace: Trace
    unit: str = ""
    style: str = "bold"
    note: str = ""
    faded: bool = False


def point_table(title: str, points: Sequence[PointLine], now_s: float, columns: int) -> list[Line]:
    """The table with its head, as wide as the screen."""
    named, called, valued, measured, aged = _widths(points, columns)
    width = max(0, min(BARS_WIDTH_MAX, columns - named - called - valued - measured - aged - 5))
    head = f" {title:<{named + called}}{'NOW':>{valued}} {'':<{measured}}{'':<{width}}  {'AGE':>{aged}}"
    lines: list[Line] = [[(head[: columns - 1], "dim")]]
    for point in points:
        between, style = sparkline(point.trace.numbers, width), "dim" if point.faded else "green"
        if point.note:
            between, style = point.note[:width], "yellow"
        age = span_text(now_s - point.trace.at_s, tenths=True) if point.trace.at_s else ""
        lines.append(
            [
                (f" {point.device[: named - 1]:<{named}}", "dim"),
                (f"{point.point[: called - 1]:<{called}}", ""),
                (f"{point.value[:valued]:>{valued}}", point.style),
                (f" {point.unit[:measured]:<{measured}}", ""),
                (f"{between:<{width}}", style),
                (f"  {age:>{aged}}", "dim"),
            ]
        )
    return lines


def _widths(points: Sequence[PointLine], columns: int) -> list[int]:
    """Of the five columns; a name has a space behind it."""
    more = max(0, min(MORE, (columns - sum(WIDTHS) - 5 - BARS_WIDTH_MIN) // 4))
    cells = [(f"{p.device} ", f"{p.point} ", p.value, p.unit, "") for p in points]
    return [
        max([usual, *(min(len(row[column]), usual + more) for row in cells)])
        for column, usual in enumerate(WIDTHS)
    ]


def sparkline(numbers: Sequence[float], width: int) -> str:
    """The newest numbers as bars, from the lowest to the highest of them; noise stays low."""
    shown = list(numbers)[-width:] if width else []
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = max(high - low, abs(high) * NOISE) or 1.0
    low = (low + high - span) / 2
    return "".join(BARS[min(7, int((number - low) / span * 8))] for number in shown)
