"""What is not yet on the card, in the runtime directory: memory that outlives the process, not a power cut.

A stream of msgpack records, each written with one system call, so that a killed process loses nothing. It is
begun anew with a snapshot after every commit, and when it has grown.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack
import structlog

log = structlog.get_logger("outbox")

ROTATE_BYTES = 1_000_000
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC


class CrashLog:
    """Records are lists; the first member is the kind."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        self._descriptor = -1
        self._size_bytes = 0
        self.failures = 0

    def read(self) -> list[list[Any]] | None:
        """The records of a process that died in this boot; None if there is no such log.

        A record that was cut off by the death of the process ends the list.
        """
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
        unpacker.feed(data)
        records: list[list[Any]] = []
        try:
            records.extend(record for record in unpacker if isinstance(record, list) and record)
        except (ValueError, msgpack.UnpackException) as error:
            log.warning("crash_log_cut", file=str(self._path), after=len(records), error=str(error))
        if not records or records[0][:2] != ["boot", self._boot]:
            return None
        return records[1:]

    def begin(self, snapshot: Iterable[list[Any]]) -> None:
        """Start anew with what is true now; the old log is replaced in one step."""
        temporary = self._path.with_suffix(".new")
        data = b"".join(msgpack.packb(record) for record in (["boot", self._boot], *snapshot))
        try:
            descriptor = os.open(temporary, _FLAGS, 0o600)
            os.write(descriptor, data)
            temporary.replace(self._path)
        except OSError as error:
            self._failed(error)
            return
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size_bytes = descriptor, len(data)

    def write(self, record: list[Any]) -> None:
        """Add one record."""
        if self._descriptor < 0:
            return
        data = msgpack.packb(record)
        try:
            self._size_bytes += os.write(self._descriptor, data)
        except OSError as error:
            self._failed(error)

    @property
    def grown(self) -> bool:
        """Whether it is time to begin anew."""
        return self._size_bytes > ROTATE_BYTES

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        if self.failures == 1 or self.failures % 10_000 == 0:
            log.error("crash_log_not_written", file=str(self._path), error=str(error), failures=self.failures)

    def end(self) -> None:
        """An orderly end: everything is on the card, nothing needs to be told."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            self._path.unlink()
