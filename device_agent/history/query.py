"""A query of the history, as the daemon, its child and the command line exchange it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from device_agent.store.history.history_block import Aggregator, HistoryRow, clip, rows_of
from device_agent.store.history.history_file import HistoryReader

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


def rows(reader: HistoryReader, query: Query, device: str) -> Iterator[HistoryRow]:
    """The rows of one device in time order. Rows that are stored in longer steps than asked for stay so."""
    aggregator = Aggregator(device, query.every_ms) if query.every_ms else None
    for block in reader.blocks(device, query.from_ms, query.to_ms):
        part = clip(block, query.from_ms, query.to_ms)
        if part is None:
            continue
        fits = aggregator is not None and part.step_ms <= query.every_ms
        if aggregator is not None and (done := aggregator.take(part.at[0] if fits else None)) is not None:
            yield from rows_of(done)
        if aggregator is not None and fits:
            aggregator.add(part)
        else:
            yield from rows_of(part)
    if aggregator is not None and (rest := aggregator.take()) is not None:
        yield from rows_of(rest)
