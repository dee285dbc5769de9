"""Rows of the history as JSON or CSV."""

import heapq
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from device_agent.history.query import Export, Query, TooMuch, rows
from device_agent.records import Value, time_zone
from device_agent.store.history.history_block import HistoryRow
from device_agent.store.history.history_file import HistoryReader
from device_agent.text.csv_row import csv_row

_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def export(query: Query) -> Export:
    """The answer to a query. Raises TooMuch, sqlite3.Error, and ImportError for a picture without Pillow."""
    with HistoryReader(Path(query.path)) as reader:
        if query.format == "png":
            # Pillow is optional, and loaded only for a picture.
            from device_agent.history.chart import draw_chart

            return draw_chart(reader, query)
        return _json(reader, query) if query.format == "json" else _csv(reader, query)


def all_rows(reader: HistoryReader, query: Query) -> Iterator[HistoryRow]:
    """The rows of all devices in time order."""
    return heapq.merge(*(rows(reader, query, device) for device in query.devices), key=attrgetter("at_ms"))


def as_object(row: HistoryRow) -> dict[str, Any]:
    """A row as a member of `readings`; `thinned` as in events if it is a step (docs/events.md)."""
    members: dict[str, Any] = {"device": row.device, "at": row.at_ms, "values": row.values}
    if row.flags:
        members["flags"] = row.flags
    if row.step_ms:
        members["thinned"] = {
            "count": row.count,
            "from_at": row.at_ms,
            "to_at": row.at_ms + row.step_ms,
            "minimum": row.low,
            "maximum": row.high,
        }
    return members


def _json(reader: HistoryReader, query: Query) -> Export:
    head = {
        "from": query.from_ms,
        "to": query.to_ms,
        "every_s": query.every_ms / 1000 or None,
        **({"zone": query.zone} if query.zone else {}),
        "units": query.units,
    }
    out = _Bounded(query.limit_bytes)
    out.write(_ENCODE(head)[:-1] + ',"readings":[')
    count = 0
    for row in all_rows(reader, query):
        out.write((",\n" if count else "\n") + _ENCODE(as_object(row)))
        count += 1
    out.write("\n]}\n")
    return Export(out.getvalue(), count)


def _csv(reader: HistoryReader, query: Query) -> Export:
    points, thinned, flagged = _columns(reader, query)
    out = _Bounded(query.limit_bytes)
    wide = [name for p in points for name in ((p, f"{p}_min", f"{p}_max") if thinned else (p,))]
    extra = [*(["count"] if thinned else []), *wide, *(["flags"] if flagged else [])]
    out.write(csv_row(["time", "at", "device", *extra]) + "\n")
    count = 0
    for row in all_rows(reader, query):
        cells: list[Any] = [iso(row.at_ms, query.zone), row.at_ms, row.device]
        if thinned:
            cells.append(row.count)
        for point in points:
            value = row.values.get(point)
            cells.append(_cell(value))
            if thinned:
                cells += [_cell(row.low.get(point, value)), _cell(row.high.get(point, value))]
        if flagged:
            cells.append(" ".join(f"{point}:{flag}" for point, flag in row.flags.items()))
        out.write(csv_row(cells) + "\n")
        count += 1
    return Export(out.getvalue(), count)


def _columns(reader: HistoryReader, query: Query) -> tuple[list[str], bool, bool]:
    """The points of all rows, whether any stands for several readings, and whether any has a flag."""
    points: dict[str, None] = {}
    thinned, flagged = bool(query.every_ms), False
    for device in query.devices:
        points |= dict.fromkeys(query.units.get(device, ()))
        for block in reader.blocks(device, query.from_ms, query.to_ms, query.formerly.get(device, ())):
            points |= dict.fromkeys(block.points)
            thinned = thinned or bool(block.step_ms)
            flagged = flagged or (bool(block.flags) and not query.every_ms)
    return list(points), thinned, flagged


def _cell(value: Value) -> Any:
    return int(value) if isinstance(value, bool) else value


def iso(at_ms: int, zone: str = "") -> str:
    """ISO 8601 with milliseconds, in a time zone or UTC."""
    at = datetime.fromtimestamp(at_ms / 1000, time_zone(zone) if zone else UTC)
    text = (at if at.tzinfo else at.astimezone()).isoformat(timespec="milliseconds")
    return text if zone else f"{text[:-6]}Z"


class _Bounded:
    """Text as UTF-8 that may not grow beyond a size."""

    def __init__(self, limit_bytes: int) -> None:
        self._body = io.BytesIO()
        self._limit_bytes = limit_bytes

    def write(self, text: str) -> None:
        self._body.write(text.encode())
        if self._body.tell() > self._limit_bytes:
            raise TooMuch

    def getvalue(self) -> bytes:
        return self._body.getvalue()
