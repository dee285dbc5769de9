"""The history on disk: one SQLite file of blocks, written on the store thread and read by any process.

Full resolution for a day, then one row a minute for a week, then one a quarter of an hour, as long as
`keep_ms` and `max_bytes` allow. At `max_bytes` resolution is reduced first, then the oldest is deleted.
Ages are of recorded time: a clock that steps ahead makes nothing older.
"""

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from device_agent.store.history.history_block import HistoryBlock, PackedBlock, aggregate, decode, pack

SCHEMA = """
CREATE TABLE IF NOT EXISTS device(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS block(
    n INTEGER PRIMARY KEY, device INTEGER NOT NULL, step_ms INTEGER NOT NULL, from_ms INTEGER NOT NULL,
    readings INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS block_in_time ON block(step_ms, from_ms, device);
PRAGMA user_version = 1;
"""
GAPS_SQL = """SELECT before_ms, from_ms, counted_ms FROM
    (SELECT from_ms, lag(from_ms) OVER win AS before_ms, iif(lag(step_ms) OVER win = ?, ?, ?) AS counted_ms
    FROM block WINDOW win AS (ORDER BY from_ms))
    WHERE from_ms - before_ms > counted_ms ORDER BY from_ms DESC"""
PAGE_BYTES = 1024
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
# What came faster than can be kept, then the steps of age. A block lies within one frame of its step, so that
# a whole frame is thinned at once and a search knows how far back a block can begin.
FAST_MS = 1000
QUARTER_MS = 900_000
FRAME_MS = {0: HOUR_MS, FAST_MS: HOUR_MS, MINUTE_MS: HOUR_MS, QUARTER_MS: DAY_MS}
FULL_AGE_MS = DAY_MS
MINUTES_AGE_MS = 7 * DAY_MS
# At `max_bytes` the newest hour keeps its resolution as long as there is anything else to reduce.
SHRINK_AGE_MS = HOUR_MS
# A time without a record, or a step of the clock, counts as so much: longer than lies between two blocks.
GAP_MS = 2 * HOUR_MS
QUARTERS_GAP_MS = 2 * DAY_MS
# A checkpoint writes each page of the log once more: the rarer it is, the more pages it writes only once.
WAL_MAX_BYTES = 1_000_000
DELETE_AT_ONCE = 256


def _connect(path: Path | str, **options: bool) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0, **options)


class HistoryFile:
    """The writing side. Raises sqlite3.Error where the disk is full or broken."""

    def __init__(self, path: Path, *, keep_ms: int, max_bytes: int) -> None:
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._keep_ms = keep_ms
        self._wal_max_bytes = min(WAL_MAX_BYTES, max_bytes // 8)
        self._limit_bytes = max_bytes - 2 * self._wal_max_bytes
        self._wal_bytes = 0
        self._last_ms = 0
        self._gaps: list[tuple[int, int, int]] | None = None
        """Between two blocks: begin, end, and how much it counts; newest first."""
        self.written_bytes = 0
        """An upper bound of what went to the disk: the log, and its pages again at each checkpoint."""
        self._open()

    def _open(self) -> None:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = _connect(self._path)
        try:
            pragmas = (f"page_size = {PAGE_BYTES}", "journal_mode = WAL", "synchronous = FULL")
            for pragma in (*pragmas, "cache_size = -256", "wal_autocheckpoint = 0"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(SCHEMA)
            self._devices = dict(self._db.execute("SELECT name, id FROM device").fetchall())
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        """A clean file without a log, unless somebody reads it now."""
        self._count()
        self._db.close()

    # -- writing ----------------------------------------

    def append(self, blocks: Iterable[PackedBlock]) -> None:
        """Write blocks in one transaction; durable on return."""
        self._begin()
        try:
            for block in blocks:
                self._insert(block)
                if abs(block.from_ms - self._last_ms) > GAP_MS:
                    self._gaps = None
                self._last_ms = block.from_ms
            self._commit()
        except BaseException:
            self._rollback()
            raise

    def _insert(self, block: PackedBlock) -> None:
        number = self._devices.get(block.device)
        if number is None:
            cursor = self._db.execute("INSERT INTO device(name) VALUES(?)", (block.device,))
            self._devices[block.device] = number = cursor.lastrowid
        self._db.execute(
            "INSERT INTO block(device, step_ms, from_ms, readings, data) VALUES(?, ?, ?, ?, ?)",
            (number, block.step_ms, block.from_ms, block.readings, block.data),
        )

    def _begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        self._db.execute("COMMIT")
        self._count()
        if self._wal_bytes > self._wal_max_bytes:
            busy, frames, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.written_bytes += max(0, frames) * PAGE_BYTES
            if not busy:
                self._wal_bytes = 0

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        # A device that this transaction made is not there any more.
        self._devices = dict(self._db.execute("SELECT name, id FROM device").fetchall())

    def _count(self) -> None:
        size_bytes = self._wal.stat().st_size if self._wal.exists() else 0
        self.written_bytes += max(0, size_bytes - self._wal_bytes)
        self._wal_bytes = size_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes in use, without the log."""
        pages, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        return int(pages - free) * PAGE_BYTES

    # -- thinning ----------------------------------------

    def thin(self, now_ms: int) -> bool:
        """One small step towards what age and size allow; False when there is nothing to do."""
        return (
            self._aggregate((0, FAST_MS), MINUTE_MS, self._ago(now_ms, FULL_AGE_MS))
            or self._aggregate((MINUTE_MS,), QUARTER_MS, self._ago(now_ms, MINUTES_AGE_MS))
            or self._expire(self._ago(now_ms, self._keep_ms))
            or (self.used_bytes > self._limit_bytes and self._shrink(now_ms))
        )

    def _ago(self, now_ms: int, age_ms: int) -> int:
        """The instant since which so much time was recorded."""
        if self._gaps is None:
            counted = (QUARTER_MS, QUARTERS_GAP_MS, GAP_MS)
            self._gaps = self._db.execute(GAPS_SQL, counted).fetchall()
            newest = self._db.execute("SELECT max(from_ms) FROM block WHERE from_ms <= ?", (now_ms,))
            self._last_ms = newest.fetchone()[0] or now_ms
        at_ms = now_ms
        for begin_ms, end_ms, counted_ms in [(self._last_ms, now_ms, GAP_MS), *self._gaps]:
            if end_ms > now_ms or end_ms - begin_ms <= counted_ms:
                continue
            if at_ms - age_ms >= end_ms:
                break
            age_ms -= at_ms - end_ms + counted_ms
            at_ms = begin_ms
            if age_ms <= 0:
                return at_ms
        return at_ms - age_ms

    def _shrink(self, now_ms: int) -> bool:
        """One step when the size is reached: a coarser resolution, else delete what was written first."""
        if self._aggregate((0, FAST_MS), MINUTE_MS, now_ms - SHRINK_AGE_MS):
            return True
        if self._aggregate((MINUTE_MS,), QUARTER_MS, now_ms - DAY_MS):
            return True
        for step_ms in (QUARTER_MS, MINUTE_MS, FAST_MS, 0):
            sql = "SELECT n FROM block WHERE step_ms = ? ORDER BY n LIMIT ?"
            rows = self._db.execute(sql, (step_ms, DELETE_AT_ONCE // 8)).fetchall()
            if rows:
                self._replace([n for (n,) in rows], None)
                return True
        return False

    def _aggregate(self, steps: tuple[int, ...], into_ms: int, before_ms: int) -> bool:
        """Rewrite the oldest frame of one device before an instant in a coarser step."""
        marks = ",".join("?" * len(steps))
        oldest = self._db.execute(
            f"SELECT from_ms, device FROM block WHERE step_ms IN ({marks}) AND from_ms < ?"
            " ORDER BY from_ms LIMIT 1",
            (*steps, before_ms),
        ).fetchone()
        if oldest is None:
            return False
        from_ms, device = oldest
        frame_ms = FRAME_MS[into_ms]
        begin_ms = from_ms // frame_ms * frame_ms
        rows = self._db.execute(
            f"SELECT n, step_ms, data FROM block WHERE step_ms IN ({marks}) AND from_ms >= ? AND from_ms < ?"
            " AND device = ?",
            (*steps, begin_ms, begin_ms + frame_ms, device),
        ).fetchall()
        name = next(name for name, number in self._devices.items() if number == device)
        self._replace([n for n, _, _ in rows], aggregate(name, into_ms, _readable(name, rows)))
        return True

    def _expire(self, before_ms: int) -> bool:
        for step_ms, frame_ms in FRAME_MS.items():
            sql = "SELECT n FROM block WHERE step_ms = ? AND from_ms < ? LIMIT ?"
            rows = self._db.execute(sql, (step_ms, before_ms - frame_ms, DELETE_AT_ONCE)).fetchall()
            if rows:
                self._replace([n for (n,) in rows], None)
                return True
        return False

    def _replace(self, numbers: Sequence[int], block: HistoryBlock | None) -> None:
        self._begin()
        try:
            self._db.executemany("DELETE FROM block WHERE n = ?", [(n,) for n in numbers])
            if block is not None:
                self._insert(pack(block))
            self._commit()
        except BaseException:
            self._rollback()
            raise


def _readable(
    device: str, rows: Sequence[tuple[int, int, bytes]], names: Collection[str] = ()
) -> Iterator[HistoryBlock]:
    """The blocks of these rows; a damaged one is left out."""
    for _, step_ms, data in rows:
        try:
            yield decode(device, step_ms, data, names)
        except ValueError:
            continue


class HistoryReader:
    """The reading side, in any process: `with HistoryReader(path) as reader`. Raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        # As a URI, since a path may contain characters such as ? or #.
        self._db = _connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        self._db.execute("PRAGMA busy_timeout = 5000")

    def __enter__(self) -> "HistoryReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def devices(self) -> dict[str, int]:
        """The names under which something was recorded, with their numbers."""
        return dict(self._db.execute("SELECT name, id FROM device").fetchall())

    def blocks(
        self, device: str, from_ms: int, to_ms: int, formerly: Iterable[str] = ()
    ) -> Iterator[HistoryBlock]:
        """The blocks of a device that may overlap this span, in time order; `formerly`: other names of it."""
        numbers, names = self.devices(), tuple(formerly)
        found = [
            pair
            for step_ms, frame_ms in FRAME_MS.items()
            for name in {device, *names} & numbers.keys()
            for pair in self._db.execute(
                "SELECT from_ms, n FROM block WHERE step_ms = ? AND from_ms > ? AND from_ms <= ?"
                " AND device = ?",
                (step_ms, from_ms - frame_ms, to_ms, numbers[name]),
            )
        ]
        for _, n in sorted(found):
            with closing(self._db.execute("SELECT n, step_ms, data FROM block WHERE n = ?", (n,))) as rows:
                yield from _readable(device, rows.fetchall(), names)
