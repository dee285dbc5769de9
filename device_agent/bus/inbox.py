"""From a library's own thread to the event loop: a bounded queue that polls readable while items wait."""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from device_agent.errors import BusError

T = TypeVar("T")


class Inbox(Generic[T]):
    """A `Source`. `put` and `fail` belong to the library's thread, the rest to the event loop.

    At `items_max`, or when all items together are above `bytes_max` by `size_bytes`, the oldest make room and
    are counted in `lost`.
    """

    def __init__(
        self, items_max: int, *, bytes_max: int = 0, size_bytes: Callable[[T], int] = lambda item: 0
    ) -> None:
        self.lost = 0
        self._items: deque[T] = deque()
        self._items_max = items_max
        self._bytes_max = bytes_max
        self._size_bytes = size_bytes
        self._held_bytes = 0
        self._error: BusError | None = None
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False

    def fileno(self) -> int:
        return self._fd

    def put(self, item: T) -> None:
        """Never blocks, never raises: what raises in a library's callback can silence it for good."""
        with self._lock:
            self._items.append(item)
            self._held_bytes += self._size_bytes(item)
            while len(self._items) > self._items_max or self._held_bytes > self._bytes_max:
                self._held_bytes -= self._size_bytes(self._items.popleft())
                self.lost += 1
            self._wake()

    def lose(self) -> None:
        """An item could not even be taken in."""
        with self._lock:
            self.lost += 1

    def fail(self, error: BusError) -> None:
        """The medium is gone: what waits is still delivered, then every `drain` raises this."""
        with self._lock:
            self._error = self._error or error
            self._wake()

    def _wake(self) -> None:
        if not self._closed:
            os.eventfd_write(self._fd, 1)

    def drain(self) -> Sequence[T]:
        with self._lock:
            if self._closed:
                return ()
            items = tuple(self._items)
            self._items.clear()
            self._held_bytes = 0
            if self._error is not None:
                # Stays readable: this call delivers what waits, the next one raises the error.
                if not items:
                    raise self._error
                return items
            with suppress(BlockingIOError):
                os.eventfd_read(self._fd)
            return items

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._items.clear()
                os.close(self._fd)
