"""What waits for one listener: a bounded queue whose descriptor is readable while something is in it."""

import os
import threading
from collections import deque
from typing import Any

from device_agent.errors import BusGone


class Mailbox:
    """Chunks for one listener, under the board's lock. Full: the oldest go, and `lost` counts them."""

    def __init__(self, lock: threading.RLock, chunks_max: int) -> None:
        self._lock = lock
        self._chunks: deque[Any] = deque()
        self._chunks_max = chunks_max
        self._gone = ""
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.lost = 0

    def put(self, chunk: Any) -> None:
        """Add a chunk; the caller holds the lock."""
        if len(self._chunks) >= self._chunks_max:
            self._chunks.popleft()
            self.lost += 1
        self._chunks.append(chunk)
        if len(self._chunks) == 1:
            self._ring()

    def end(self, reason: str) -> None:
        """The medium has gone: once emptied, `drain` raises BusGone with this reason."""
        self._gone = self._gone or reason
        self._ring()

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> list[Any]:
        """All that waits. Raises BusGone when nothing more can come."""
        with self._lock:
            if self._fd < 0:
                return []
            chunks = list(self._chunks)
            self._chunks.clear()
            if not chunks and self._gone:
                raise BusGone(self._gone)
            if not self._gone:  # then it stays readable, as a hung-up descriptor does
                self._quiet()
            return chunks

    def take_lost(self) -> int:
        """How many were lost since the last time."""
        lost, self.lost = self.lost, 0
        return lost

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _ring(self) -> None:
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def _quiet(self) -> None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return
