"""Finds the descriptor of a GPIO line that a library has claimed and does not expose.

A line is driven while any duplicate of its descriptor is open: the guard needs one, whoever claimed the line.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

OPEN = Path("/proc/self/fd")
FACTS = Path("/proc/self/fdinfo")


def line_fds() -> set[int]:
    """Descriptors of claimed lines that are open in this process."""
    found = set()
    for name in os.listdir(OPEN):
        with suppress(OSError):  # closed meanwhile
            if os.readlink(OPEN / name) == "anon_inode:gpio-line":
                found.add(int(name))
    return found


def fd_of_line(offset: int, before: set[int]) -> int:
    """The descriptor of this line that was not among those `before`; -1 where it cannot be told."""
    fresh = line_fds() - before
    named = {fd for fd in fresh if _offsets(fd) == [offset]}
    # Kernels before 6.2 do not say whose it is: then it is certain only if there is no other.
    likely = named or {fd for fd in fresh if not _offsets(fd)}
    return likely.pop() if len(likely) == 1 else -1


def _offsets(fd: int) -> list[int]:
    with suppress(OSError):
        return [int(number) for number in re.findall(r"^gpio-line:\s*(\d+)", _facts(fd), re.MULTILINE)]
    return []


def _facts(fd: int) -> str:
    return (FACTS / str(fd)).read_text(encoding="ascii", errors="replace")
