"""A query of the history, as the daemon, its child and the command line exchange it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from device_agent.errors import Rejected
from device_agent.records import time_zone
from device_agent.store.history.history_block import Aggregator, HistoryBlock, HistoryRow, clip, rows_of
from device_agent.store.history.history_file import DAY_MS, HistoryReader
from device_agent.store.history.steps import FixedSteps, LocalDays

LIMIT_BYTES = 25_000_000
"""The largest answer: on a board with 512 MB the child holds it in memory while it is made."""


@dataclass(frozen=True, slots=True)
class Query:
    """`every_ms` 0: as recorded; otherwise one row for each step. Both ends of the span are included."""

    path: str
    devices: tuple[str, ...]
    from_ms: int
    to_ms: int
    every_ms: int = 0
    format: str = "json"
    units: dict[str, dict[str, str]] = field(default_factory=dict)
    """UCUM by device and point, in the order of the points."""
    title: str = ""
    limit_bytes: int = LIMIT_BYTES
    out: str = ""
    """The file to write the answer to; standard output where it is empty."""
    zone: str = ""
    """Steps of whole days are days of this time zone; "" for UTC."""
    formerly: dict[str, list[str]] = field(default_factory=dict)
    """By device: other names that it had."""

    @property
    def steps(self) -> FixedSteps:
        """Into which the readings are gathered; only where `every_ms` is not 0."""
        return LocalDays(self.zone, self.every_ms // DAY_MS) if self.zone else FixedSteps(self.every_ms)

    @classmethod
    def from_members(cls, body: dict[str, Any]) -> "Query":
        """From `dataclasses.asdict`, by way of JSON."""
        return cls(**{**body, "devices": tuple(body["devices"])})


@dataclass(frozen=True, slots=True)
class Export:
    """The bytes to deliver, and how many rows (of a picture: values) they hold."""

    data: bytes
    count: int


class TooMuch(Exception):
    """The answer is larger than `limit_bytes`."""


def checked_zone(zone: str | None, every_s: float | None) -> str:
    """A time zone as `Query` has it. Raises Rejected where there is none, or the steps are no days."""
    if zone is None:
        return ""
    if not every_s or every_s * 1000 % DAY_MS:
        raise Rejected("invalid_value", "zone: it is for steps of whole days: every_s 86400, or a multiple")
    try:
        time_zone(zone)
    except ValueError as error:
        raise Rejected("invalid_value", f"zone: {error}") from error
    return zone


def rows(reader: HistoryReader, query: Query, device: str) -> Iterator[HistoryRow]:
    """The rows of one device in time order. Rows that are stored in longer steps than asked for stay so."""
    steps = query.steps
    aggregator = Aggregator(device, steps) if query.every_ms else None
    for block in reader.blocks(device, query.from_ms, query.to_ms, query.formerly.get(device, ())):
        part = clip(block, query.from_ms, query.to_ms)
        if part is None:
            continue
        fits = aggregator is not None and part.step_ms <= query.every_ms
        if aggregator is not None and (done := aggregator.take(part.at[0] if fits else None)) is not None:
            yield from _gathered(done, steps)
        if aggregator is not None and fits:
            aggregator.add(part)
        else:
            yield from rows_of(part)
    if aggregator is not None and (rest := aggregator.take()) is not None:
        yield from _gathered(rest, steps)


def _gathered(block: HistoryBlock, steps: FixedSteps) -> Iterator[HistoryRow]:
    """Its rows; each with the length of its own step where the steps differ."""
    for row in rows_of(block):
        if isinstance(steps, LocalDays):
            end_ms = steps.begin_ms(steps.numbers([row.at_ms])[0] + 1)
            row = replace(row, step_ms=end_ms - row.at_ms)
        yield row
