"""Finds the descriptor of a GPIO line that a library has claimed and does not expose.

A line is driven while any duplicate of its descriptor is open: the guard needs one in every case.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

FDS = Path("/proc/self/fd")
FDINFO = Path("/proc/self/fdinfo")


def line_fds() -> set[int]:
    """Descriptors of claimed lines that are open in this process."""
    found = set()
    for name in os.listdir(FDS):
        with suppress(OSError):  # closed meanwhile
            if os.readlink(FDS / name) == "anon_inode:gpio-line":
                found.add(int(name))
    return found


def fd_of_line(offset: int, before: set[int]) -> int:
    """The descriptor of this line that was not among those `before`; -1 where it cannot be identified."""
    fresh = line_fds() - before
    named = {fd for fd in fresh if _offsets(fd) == [offset]}
    # Kernels before 6.2 do not name the line: then it is certain only if there is one new descriptor.
    likely = named or {fd for fd in fresh if not _offsets(fd)}
    return likely.pop() if len(likely) == 1 else -1


def _offsets(fd: int) -> list[int]:
    with suppress(OSError):
        text = (FDINFO / str(fd)).read_text(encoding="ascii", errors="replace")
        return [int(number) for number in re.findall(r"^gpio-line:\s*(\d+)", text, re.MULTILINE)]
    return []
