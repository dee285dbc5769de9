"""Command rows that the Journal's disk refused, kept in the runtime directory until the disk takes them.

So no command is carried out twice if the disk is full and the process dies as well.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from device_agent.store.outbox.crash_log import CrashLog

log = structlog.get_logger("journal")

# Some thousand plain commands; more are not taken, and so not carried out.
KEEP_BYTES = 1_000_000
# The rows are valid after a reboot too.
_ANY_BOOT = ""


class CommandRow(NamedTuple):
    """A row of the Journal's table of commands; `what` and `ack` are msgpack, `ack` may be None."""

    caller: str
    id: str
    at_ms: int
    what: bytes
    ack: bytes | None

    @property
    def key(self) -> tuple[str, str]:
        return self.caller, self.id

    @property
    def cost_bytes(self) -> int:
        return 100 + len(self.id) + len(self.what) + len(self.ack or b"")


class CommandFallback:
    """The file exists only while the disk refuses. Belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._log = CrashLog(path, _ANY_BOOT)
        self._rows: dict[tuple[str, str], CommandRow] = {}
        self._size_bytes = 0
        self._begun = False

    def __iter__(self) -> Iterator[CommandRow]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def load(self) -> None:
        """What an earlier process left."""
        for record in self._log.read() or ():
            self._put(CommandRow(*record))
        if self._rows:
            log.info("journal_fallback_found", commands=len(self._rows))

    def add(self, row: CommandRow) -> bool:
        """Keep a row; whether it survives the end of this process."""
        if self._size_bytes > KEEP_BYTES and row.key not in self._rows:
            return False
        self._put(row)
        if self._begun and not self._log.grown:
            return self._log.write(list(row))
        written = self._log.begin([list(row) for row in self])
        self._begun = self._begun or written
        return written

    def end(self) -> None:
        """The disk has taken all rows."""
        self._rows.clear()
        self._size_bytes = 0
        self._begun = False
        self._log.end()

    def _put(self, row: CommandRow) -> None:
        old = self._rows.pop(row.key, None)
        if old is not None:
            self._size_bytes -= old.cost_bytes
            row = row._replace(what=row.what if row.ack is None else old.what)
        self._rows[row.key] = row
        self._size_bytes += row.cost_bytes
