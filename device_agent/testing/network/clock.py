"""Timetokens: 17-digit numbers of 100 ns units since 1970, never the same twice (protocol section 7)."""

from __future__ import annotations

import time

REPLAY_ALL = 1000
"""The timetoken with which clients ask for everything a channel still caches."""


class Clock:
    """Gives strictly rising timetokens, so that a cursor never skips a message of the same instant."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def timetoken(self) -> int:
        """The next timetoken."""
        now = time.time_ns() // 100
        last = self._last
        self._last = now = now if now > last else last + 1
        return now


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000
