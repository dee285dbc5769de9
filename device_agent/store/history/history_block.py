"""A block of history: readings of one device, stored by columns.

Measured with three points at 1 Hz, in blocks of a minute: 4.1 bytes a reading where values have two decimals
and 10.6 where the sixth one is noise; a row for each reading takes 37 as msgpack and 65 to 77 as JSON.
"""

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from operator import mul
from typing import Any

import msgpack

from device_agent.records import DECIMALS, Reading, Value, rounded
from device_agent.store.history.steps import FixedSteps

Column = list[Any]
# Numbers beyond are kept as they are: their differences may not fit a 64-bit integer.
SCALED_MAX = 1e12


@dataclass(slots=True)
class HistoryBlock:
    """Rows of one device in time order, by columns.

    `step_ms` 0: each row is a reading. Otherwise a row stands for the readings (`counts`) of `step_ms` from
    `at` on: `values` are their means (of a boolean the share that was true, of a text the last), `low` and
    `high` the extremes. `flags` is by row number and point.
    """

    device: str
    step_ms: int
    points: tuple[str, ...]
    at: list[int]
    values: list[Column]
    counts: list[int] = field(default_factory=list)
    low: list[Column] = field(default_factory=list)
    high: list[Column] = field(default_factory=list)
    flags: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def readings(self) -> int:
        """How many readings it stands for."""
        return sum(self.counts) if self.step_ms else len(self.at)


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One row for a reader; with `step_ms` 0 a reading as it was measured, without `low` and `high`."""

    device: str
    at_ms: int
    values: dict[str, Value]
    flags: dict[str, str]
    step_ms: int = 0
    count: int = 1
    low: dict[str, Value] = field(default_factory=dict)
    high: dict[str, Value] = field(default_factory=dict)


def block_of(readings: Sequence[Reading]) -> HistoryBlock:
    """The readings of one device with the same points, in time order."""
    points = tuple(readings[0].values)
    columns = zip(*(reading.values.values() for reading in readings), strict=True)
    flags = {n: {p: str(f) for p, f in r.flags.items()} for n, r in enumerate(readings) if r.flags}
    at = [reading.at_ms for reading in readings]
    return HistoryBlock(readings[0].device, 0, points, at, [list(column) for column in columns], flags=flags)


def rows_of(block: HistoryBlock) -> Iterator[HistoryRow]:
    """The rows, one by one."""
    for n, at_ms in enumerate(block.at):
        values = {name: column[n] for name, column in zip(block.points, block.values, strict=True)}
        if not block.step_ms:
            yield HistoryRow(block.device, at_ms, values, block.flags.get(n, {}))
            continue
        low, high = (
            {name: c[n] for name, c in zip(block.points, columns, strict=True) if c[n] is not None}
            for columns in (block.low, block.high)
        )
        yield HistoryRow(block.device, at_ms, values, {}, block.step_ms, block.counts[n], low, high)


def clip(block: HistoryBlock, from_ms: int, to_ms: int) -> HistoryBlock | None:
    """The rows from one instant to another, both included; None without any."""
    first, end = bisect_left(block.at, from_ms), bisect_right(block.at, to_ms)
    if first >= end:
        return None
    if end - first == len(block.at):
        return block
    part = slice(first, end)
    columns = ([column[part] for column in some] for some in (block.values, block.low, block.high))
    values, low, high = columns
    flags = {n - first: flag for n, flag in block.flags.items() if first <= n < end}
    at, counts = block.at[part], block.counts[part]
    return HistoryBlock(block.device, block.step_ms, block.points, at, values, counts, low, high, flags)


# -- bytes ----------------------------------------


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A block as a row of the file; compressed, it may wait in memory while the disk is full."""

    device: str
    step_ms: int
    from_ms: int
    readings: int
    data: bytes


def pack(block: HistoryBlock) -> PackedBlock:
    """Compress a block. Raises ValueError if a value in it cannot be written."""
    try:
        return PackedBlock(block.device, block.step_ms, block.at[0], block.readings, encode(block))
    except (OverflowError, TypeError) as error:
        raise ValueError(f"a block of {block.device} cannot be written: {error}") from error


def encode(block: HistoryBlock) -> bytes:
    """The block; zlib's checksum guards it, and with it device and step, which are columns of the file."""
    body: dict[str, Any] = {"p": block.points, "t": _differences(block.at), "v": _pack(block.values)}
    body |= {"d": block.device, "s": block.step_ms}
    if block.step_ms:
        body |= {"n": block.counts, "l": _pack(block.low), "h": _pack(block.high)}
    if block.flags:
        body["f"] = block.flags
    return zlib.compress(msgpack.packb(body), 6)


def decode(device: str, step_ms: int, data: bytes, names: Collection[str] = ()) -> HistoryBlock:
    """`names`: others that the device had. Raises ValueError if the bytes, or device or step, are damaged."""
    try:
        body = msgpack.unpackb(zlib.decompress(data), strict_map_key=False)
        if body.get("d", device) not in (device, *names) or body.get("s", step_ms) != step_ms:
            raise KeyError("it is another device's, or of another step")
        return HistoryBlock(
            device,
            step_ms,
            tuple(body["p"]),
            list(accumulate(body["t"])),
            _unpack(body["v"]),
            body.get("n", []),
            _unpack(body.get("l", [])),
            _unpack(body.get("h", [])),
            body.get("f", {}),
        )
    except (zlib.error, msgpack.UnpackException, KeyError, TypeError) as error:
        raise ValueError(f"a block of {device} cannot be read: {error}") from error


def _pack(columns: Iterable[Column]) -> list[Any]:
    return [_packed(column) for column in columns]


def _packed(column: Column) -> Any:
    """Differences of integers scaled by the decimals in use; unchanged where that would lose anything."""
    if all(type(v) in (int, float) and -SCALED_MAX < v < SCALED_MAX for v in column):
        for decimals in range(DECIMALS + 1):
            scale = 10**decimals
            whole = [round(v * scale) for v in column]
            if all(number / scale == v for number, v in zip(whole, column, strict=True)):
                return {"d": decimals, "x": _differences(whole)}
    return [float(v) if type(v) is int and abs(v) >= 2**63 else v for v in column]


def _unpack(columns: Iterable[Any]) -> list[Column]:
    return [_unpacked(column) if isinstance(column, dict) else column for column in columns]


def _unpacked(column: dict[str, Any]) -> Column:
    whole = list(accumulate(column["x"]))
    scale = 10 ** column["d"]
    return whole if scale == 1 else [number / scale for number in whole]


def _differences(numbers: Sequence[int]) -> list[int]:
    return [*numbers[:1], *(b - a for a, b in pairwise(numbers))]


# -- aggregation ----------------------------------------


@dataclass(slots=True)
class _Sum:
    """Aggregates the readings of one point in one step."""

    weight: int = 0
    total: float = 0.0
    low: Any = None
    high: Any = None
    last: Any = None

    def add(self, values: Column, counts: list[int], low: Column, high: Column) -> None:
        """Rows that fall into the step; `low` and `high` are `values` themselves for readings."""
        # Nearly always all are numbers: then the sums run in C.
        known = [type(v) in (int, float, bool) for v in values]
        if not all(known):
            texts = [v for v in values if isinstance(v, str)]
            self.last = texts[-1] if texts else self.last
            values, counts, low, high = (
                [v for v, good in zip(column, known, strict=True) if good]
                for column in (values, counts, low, high)
            )
        if not values:
            return
        self.weight += sum(counts)
        self.total += sum(values) if counts == [1] * len(counts) else sum(map(mul, values, counts))
        self.low = min(low) if self.low is None else min(self.low, *low)
        self.high = max(high) if self.high is None else max(self.high, *high)

    @property
    def mean(self) -> Value:
        return rounded(self.total / self.weight) if self.weight else self.last


class Aggregator:
    """Makes one row of all readings in a step."""

    def __init__(self, device: str, steps: FixedSteps) -> None:
        self._device = device
        self._in = steps
        self._steps: dict[int, tuple[list[int], dict[str, _Sum]]] = {}

    def add(self, block: HistoryBlock) -> None:
        """Add a block of readings, or of steps that are not longer than this aggregator's."""
        numbers = self._in.numbers(block.at)
        counts = block.counts if block.step_ms else [1] * len(numbers)
        for number, group in groupby(range(len(numbers)), numbers.__getitem__):
            rows = list(group)
            part = slice(rows[0], rows[-1] + 1)
            count, sums = self._steps.setdefault(number, ([0], {}))
            count[0] += sum(counts[part])
            for n, point in enumerate(block.points):
                values = block.values[n][part]
                low, high = (block.low[n][part], block.high[n][part]) if block.step_ms else (values, values)
                sums.setdefault(point, _Sum()).add(values, counts[part], low, high)

    def take(self, before_ms: int | None = None) -> HistoryBlock | None:
        """Take out the steps that end before an instant (without one, all) as a block."""
        limit = None if before_ms is None else self._in.numbers([before_ms])[0]
        numbers = sorted(n for n in self._steps if limit is None or n < limit)
        if not numbers:
            return None
        steps = [self._steps.pop(number) for number in numbers]
        points = tuple(dict.fromkeys(point for _, sums in steps for point in sums))
        block = HistoryBlock(
            self._device, self._in.step_ms, points, list(map(self._in.begin_ms, numbers)), []
        )
        block.counts = [count[0] for count, _ in steps]
        nothing = _Sum()
        for point in points:
            column = [sums.get(point, nothing) for _, sums in steps]
            block.values.append([point_sum.mean for point_sum in column])
            block.low.append([point_sum.low for point_sum in column])
            block.high.append([point_sum.high for point_sum in column])
        return block


def aggregate(device: str, step_ms: int, blocks: Iterable[HistoryBlock]) -> HistoryBlock | None:
    """These blocks as one with this step; None without any row."""
    aggregator = Aggregator(device, FixedSteps(step_ms))
    for block in blocks:
        aggregator.add(block)
    return aggregator.take()
