"""Time, passed in and never patched: the wall clock for stamps, the monotonic clock for every duration.

A board without a battery starts in 1970 (or at its last shutdown) until NTP answers; durations and
deadlines therefore never use the wall clock.
"""

import time
from pathlib import Path
from typing import Protocol

# The day this release was made: a wall clock before it cannot be right.
EARLIEST_TRUE_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


class Clock(Protocol):
    """What the runtime asks of time."""

    boot: str
    """Short identity of this start of the machine; new at each boot."""

    def now_ms(self) -> int:
        """Wall clock, epoch milliseconds. May jump, may be wrong: see `is_set`."""

    def monotonic_s(self) -> float:
        """CLOCK_MONOTONIC in seconds: never jumps, restarts at boot, the kernel's clock for GPIO edges."""

    def is_set(self) -> bool:
        """Whether the wall clock can be right (it is not before this release was made)."""


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self.boot = _boot_id()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def is_set(self) -> bool:
        return self.now_ms() >= EARLIEST_TRUE_MS


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        # Containers may hide it. The start of the monotonic clock is as good a name for this boot.
        return f"{int(time.time() - time.monotonic()):x}"
