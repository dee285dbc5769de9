"""A question about the record, as the daemon, its child and the command line pass it on."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from device_agent.store.history.history_block import Folder, HistoryRow, clip, rows_of
from device_agent.store.history.history_file import HistoryReader

LIMIT_BYTES = 25_000_000
"""More than this is refused: on a board with 512 MB the child holds it in memory while it is made."""


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

    def to_wire(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_wire(cls, body: dict[str, Any]) -> "Query":
        return cls(**{**body, "devices": tuple(body["devices"])})


@dataclass(frozen=True, slots=True)
class Export:
    """What came of it: the very bytes to deliver, and how many rows (of a picture: values) they hold."""

    data: bytes
    count: int


class TooMuch(Exception):
    """The answer is larger than `limit_bytes`."""


def rows(reader: HistoryReader, query: Query, device: str) -> Iterator[HistoryRow]:
    """The rows of one device in time order. What age has thinned to longer steps than asked for stays so."""
    folder = Folder(device, query.every_ms) if query.every_ms else None
    for block in reader.blocks(device, query.from_ms, query.to_ms):
        part = clip(block, query.from_ms, query.to_ms)
        if part is None:
            continue
        fits = folder is not None and part.step_ms <= query.every_ms
        if folder is not None and (done := folder.take(part.at[0] if fits else None)) is not None:
            yield from rows_of(done)
        if folder is not None and fits:
            folder.add(part)
        else:
            yield from rows_of(part)
    if folder is not None and (rest := folder.take()) is not None:
        yield from rows_of(rest)
