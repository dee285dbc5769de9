"""What is not yet on the card, in the runtime directory: memory that outlives the process, not a power cut.

A stream of msgpack records, each with its length and checksum and written with one system call, so that a
killed process loses nothing. It is begun anew with a snapshot after every commit, and when it has grown.
"""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import structlog

log = structlog.get_logger("outbox")

ROTATE_BYTES = 1_000_000
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
_HEAD = struct.Struct("<II")


class CrashLog:
    """Records are lists; the first member is the kind, the second the channel."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        self._descriptor = -1
        self._size_bytes = 0
        self._begun_bytes = 0
        self.failures = 0

    def read(self) -> list[list[Any]] | None:
        """The records of a process that died in this boot; None if there is no such log.

        A record that was cut off by the death of the process ends the list.
        """
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        records = list(_records(data))
        if not records or records[0][:2] != ["boot", self._boot]:
            return None
        return records[1:]

    def begin(self, snapshot: Iterable[list[Any]]) -> bool:
        """Start anew with what is true now; the old log is replaced in one step. Whether that was done."""
        temporary = self._path.with_suffix(".new")
        data = b"".join(map(_packed, (["boot", self._boot], *snapshot)))
        descriptor = -1
        try:
            descriptor = os.open(temporary, _FLAGS, 0o600)
            _write(descriptor, data)
            temporary.replace(self._path)
        except OSError as error:
            # The old log goes on: it tells more than need be, and nothing wrong.
            if descriptor >= 0:
                os.close(descriptor)
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._failed(error)
            return False
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size_bytes, self._begun_bytes = descriptor, len(data), len(data)
        return True

    def write(self, record: list[Any]) -> bool:
        """Add one record; whether it is in the log now."""
        if self._descriptor < 0:
            return False
        data = _packed(record)
        try:
            _write(self._descriptor, data)
            self._size_bytes += len(data)
            return True
        except OSError as error:
            # Half a record would hide all that follow it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size_bytes)
            self._failed(error)
            return False

    @property
    def grown(self) -> bool:
        """Whether it is time to begin anew."""
        return self._size_bytes > ROTATE_BYTES + 2 * self._begun_bytes

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


def _packed(record: list[Any]) -> bytes:
    data: bytes = msgpack.packb(record)
    return _HEAD.pack(len(data), zlib.crc32(data)) + data


def _write(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError("no room for a whole record")


def _records(data: bytes) -> Iterator[list[Any]]:
    at = 0
    while at + _HEAD.size <= len(data):
        size, checksum = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(body) < size or zlib.crc32(body) != checksum:
            log.warning("crash_log_cut", at_byte=at, bytes=len(data))
            return
        yield msgpack.unpackb(body)
        at += _HEAD.size + size
