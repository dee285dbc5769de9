"""Where log lines go: a bounded queue, and a thread of its own that writes them.

Shared by the daemon and the guard, so it imports as little as the guard does. Neither may be delayed or ended
by its log: the reader of a pipe leaves, a terminal is halted, a disk is full.
"""

from __future__ import annotations

import _thread
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Lines that wait for a slow reader; what comes on top is dropped and counted.
WAITING_MAX_BYTES = 256_000
STANDARD_ERROR = 2
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


class LogOutput:
    """`write` returns at once and never raises. `told` makes the line that says how many were dropped."""

    def __init__(self, told: Callable[[int], str], fd: int = STANDARD_ERROR) -> None:
        self._told = told
        self._fd = fd
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._dropped = 0
        self._torn = False
        self._running = False
        # Reentrant: the garbage collector may log in the middle of `write`.
        self._lock = _thread.RLock()
        self._wake = _thread.allocate_lock()

    def write(self, text: str) -> None:
        """Queue whole lines; the last one ends in a line break."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._waiting_bytes + len(data) > WAITING_MAX_BYTES or not self._started():
                self._dropped += 1
                return
            self._waiting_bytes += len(data)
            self._lines.append(data)
            if self._wake.locked():
                self._wake.release()

    def flush(self) -> None:
        """Nothing: whoever must know that lines are out calls `close`."""

    def close(self, limit_s: float) -> None:
        """Wait until everything is written, for `limit_s` at most."""
        ends_s = time.monotonic() + limit_s
        while self._lines and time.monotonic() < ends_s:
            time.sleep(0.005)

    def _started(self) -> bool:
        if not self._running:
            try:
                _thread.start_new_thread(self._write_forever, ())
                self._running = True
            except RuntimeError:  # no memory for a thread
                return False
        return True

    def _write_forever(self) -> None:
        while True:
            self._wake.acquire()
            while self._lines:
                dropped = self._dropped
                if dropped and self._written(self._told(dropped).encode()):
                    with self._lock:
                        self._dropped -= dropped
                written = self._written(self._lines[0])
                with self._lock:
                    self._waiting_bytes -= len(self._lines.pop(0))
                    self._dropped += not written

    def _written(self, line: bytes) -> bool:
        rest = b"\n" + line if self._torn else line
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
                self._torn = bool(rest)
            except BlockingIOError:
                self._wait_for_room()
            except OSError:
                return False
        return True

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()


def marked(text: str, level: str, *, for_journal: bool) -> str:
    """The lines with the priority that journald takes off again, so that `journalctl -p err` finds them."""
    if not for_journal:
        return text
    mark = f"<{_PRIORITIES.get(level, 6)}>"
    return mark + text.replace("\n", "\n" + mark)


def to_journal(fd: int = STANDARD_ERROR) -> bool:
    """Whether journald reads this descriptor, as $JOURNAL_STREAM says (systemd.exec(5))."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def open_standard_streams() -> None:
    """A closed descriptor 0, 1 or 2 (`2>&-`) would be given to the next file, and take lines of the log."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(fd, True)
    os.close(fd)
