"""Pictures of how a cost grows: lines on logarithmic axes, as SVG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 70, 20, 40, 50
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


class _Axis:
    """Decades from a whole power of ten to a whole power of ten, onto pixels."""

    def __init__(self, values: Sequence[float], begin_px: float, end_px: float) -> None:
        logs = [math.log10(value) for value in values if value > 0] or [0.0]
        self.first, self.last = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
        self._begin_px, self._end_px = begin_px, end_px

    def px(self, value: float) -> float:
        share = (math.log10(max(value, 10.0**self.first)) - self.first) / (self.last - self.first)
        return self._begin_px + share * (self._end_px - self._begin_px)


def draw(path: Path, title: str, x_name: str, y_name: str, lines: Mapping[str, Points]) -> None:
    """One line for each name."""
    every = [point for points in lines.values() for point in points]
    x = _Axis([point[0] for point in every], LEFT, WIDTH - RIGHT)
    y = _Axis([point[1] for point in every], HEIGHT - BOTTOM, TOP)
    parts = [f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>']
    for decade in range(x.first, x.last + 1):
        at = x.px(10.0**decade)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 30}" text-anchor="middle">{10.0**decade:g}</text>')
    for decade in range(y.first, y.last + 1):
        at = y.px(10.0**decade)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)">{escape(y_name)}</text>')
    for index, (name, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = " ".join(f"{x.px(a):.1f},{y.px(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{LEFT + 10}" y="{TOP + 16 * (index + 1)}" fill="{colour}">{escape(name)}</text>'
        )
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">'
    path.write_text(
        "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *parts, "</svg>\n"])
    )
