"""A log of what is not on disk yet, in the runtime directory: it survives the process, but not a power cut.

Records are msgpack, each after its length and CRC-32 (little-endian) and written with one system call, so
that a killed process loses nothing. A snapshot replaces the log when it has grown, or lacks something.
"""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgpack
import structlog

log = structlog.get_logger("outbox")

ROTATE_BYTES = 256_000
# Of the whole file, which has grown so far when the file system takes no snapshot any more.
TOTAL_MAX_BYTES = 64_000_000
# One event, or one message on its way, with room to spare.
RECORD_MAX_BYTES = 4_000_000
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
_HEADER = struct.Struct("<II")


class CrashLog:
    """A file of records (lists). The first one names the boot in which the log was written."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        self._descriptor = -1
        self._size_bytes = 0
        self._begun_bytes = 0
        self._lacks = False
        self._pack = msgpack.Packer().pack  # `packb` would make a packer for each record
        self.failures = 0

    def read(self) -> list[list[Any]] | None:
        """What a killed process wrote in this boot; None if there is no such log.

        An incomplete or damaged record ends the list.
        """
        try:
            with self._path.open("rb") as file:
                records = list(_records(file))
        except OSError:
            return None
        if not records or records[0][:2] != ["boot", self._boot]:
            return None
        return records[1:]

    def begin(self, snapshot: Iterable[list[Any]]) -> bool:
        """Replace the log, in one step, by these records; False if the file system refused."""
        temporary = self._path.with_suffix(".new")
        data = b"".join(map(self._packed, (["boot", self._boot], *snapshot)))
        descriptor = -1
        try:
            descriptor = os.open(temporary, _FLAGS, 0o600)
            _write(descriptor, data)
            temporary.replace(self._path)
        except OSError as error:
            # The old log goes on: it holds more than needed, and nothing wrong.
            if descriptor >= 0:
                os.close(descriptor)
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._failed(error)
            return False
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size_bytes, self._begun_bytes = descriptor, len(data), len(data)
        self._lacks = False
        return True

    def write(self, *records: list[Any]) -> bool:
        """Append these with one system call; False if there is no log or the file system refused."""
        if self._descriptor < 0:
            self._lacks = True
            return False
        data = b"".join(map(self._packed, records))
        try:
            if self._size_bytes + len(data) > TOTAL_MAX_BYTES:
                raise OSError(f"the log has {TOTAL_MAX_BYTES} bytes, and no other takes its place")
            _write(self._descriptor, data)
            self._size_bytes += len(data)
            return True
        except OSError as error:
            # An incomplete record would hide all that follow it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size_bytes)
            self._lacks = True
            self._failed(error)
            return False

    def _packed(self, record: list[Any]) -> bytes:
        data: bytes = self._pack(record)
        return _HEADER.pack(len(data), zlib.crc32(data)) + data

    @property
    def grown(self) -> bool:
        """Whether it is time to replace the log by a snapshot."""
        return self._lacks or self._size_bytes > ROTATE_BYTES + 2 * self._begun_bytes

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        if self.failures == 1 or self.failures % 10_000 == 0:
            log.error("crash_log_not_written", file=str(self._path), error=str(error), failures=self.failures)

    def end(self) -> None:
        """Delete the log: everything is on disk."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            self._path.unlink()


def _write(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError("no space for a whole record")


def _records(file: IO[bytes]) -> Iterator[list[Any]]:
    """Record by record: what a damaged one says of its size is not taken into memory."""
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        size, checksum = _HEADER.unpack(header)
        fits = size <= RECORD_MAX_BYTES and file.tell() + size <= TOTAL_MAX_BYTES
        body = file.read(size) if fits else b""
        record = _unpacked(body) if len(body) == size and zlib.crc32(body) == checksum else None
        if record is None:
            log.warning("crash_log_cut", before_byte=file.tell())
            return
        yield record


def _unpacked(body: bytes) -> list[Any] | None:
    """None if it is no record; zeros, for one, have the right checksum."""
    try:
        record = msgpack.unpackb(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, list) and record else None
