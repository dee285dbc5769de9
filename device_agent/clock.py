"""Time, passed in and never patched: the wall clock for stamps, the monotonic clock for every duration.

A board without a battery starts in 1970, or at its last shutdown, until it gets the time. Until then
`now_ms` counts from the start of the machine: such stamps are recognised by their size, and one addition
makes them true when the time is known.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Protocol

# A wall clock before this release cannot be right, and no machine has been up for so long.
EARLIEST_TRUE_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
# How often it is checked whether the machine's clock is set: until it is, and then.
CHECK_S = 1.0
CHECK_SET_S = 10.0
# A wall clock that differs by more from what was learned was set wrongly.
AGREES_MS = 2_000
# Differences below this are the noise of a round trip; a clock chip has whole seconds.
NOISE_MS = 100
NOISE_CHIP_MS = 1_000
# Sources of the time, best last. A lesser one counts when the better one has been silent for an hour.
SOURCES = ("earlier", "device", "network")
SILENT_S = 3600.0
MEMORY_MAX_BYTES = 10_000
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def undated(at_ms: float) -> bool:
    """Whether a stamp counts from the start of the machine, because the time was not known."""
    return at_ms < EARLIEST_TRUE_MS


class Clock(Protocol):
    """What the runtime needs to know about time."""

    boot: str
    """Short identity of this start of the machine; new at each boot."""

    @property
    def source(self) -> str:
        """Where the time comes from: `system`, `network`, `device`, `earlier` (in this boot), or ""."""

    def now_ms(self) -> int:
        """Epoch milliseconds when the time is known; before that, milliseconds since the machine started."""

    def monotonic_s(self) -> float:
        """CLOCK_MONOTONIC in seconds: never jumps, restarts at boot, the kernel's clock for GPIO edges."""

    def is_set(self) -> bool:
        """Whether the time is known."""

    def offset_ms(self) -> int | None:
        """What to add to an undated stamp of this boot; None while the time is not known."""

    def learn(self, epoch_ms: float, at_s: float, source: str) -> None:
        """A source (one of `SOURCES`) reports `epoch_ms` for the instant `at_s` of the monotonic clock."""


class SystemClock:
    """The machine's own clocks, and what other sources report while its wall clock is not reliable."""

    def __init__(self, memory: Path | None = None) -> None:
        """`memory`: a file that outlives the process and not the boot, for what was learned."""
        self.boot = _boot_id()
        self._memory = memory
        self._learned_ms: float | None = None
        self._learned_from = SOURCES[0]
        self._learned_s = 0.0
        self._saved_ms: float | None = None
        self._checked_s = float("-inf")
        self._trusted = False
        self._recall()

    # -- the machine, which tests replace ----------------------------------------

    def _wall_ms(self) -> float:
        return time.time_ns() / 1e6

    def monotonic_s(self) -> float:
        return time.monotonic()

    def _machine_knows(self) -> bool | None:
        return machine_knows()

    # -- the clock ----------------------------------------

    def now_ms(self) -> int:
        return round(self.monotonic_s() * 1000) + (self.offset_ms() or 0)

    def is_set(self) -> bool:
        return self.offset_ms() is not None

    def offset_ms(self) -> int | None:
        now_s = self.monotonic_s()
        system_ms = self._wall_ms() - now_s * 1000
        if self._wall_clock_counts(now_s, system_ms):
            if self._learned_from == SOURCES[0]:
                # Kept for the case that the wall clock jumps to where it cannot be right.
                self._keep(system_ms, now_s, SOURCES[0])
            return round(system_ms)
        return None if self._learned_ms is None else round(self._learned_ms)

    @property
    def source(self) -> str:
        now_s = self.monotonic_s()
        if self._wall_clock_counts(now_s, self._wall_ms() - now_s * 1000):
            return "system"
        return "" if self._learned_ms is None else self._learned_from

    def learn(self, epoch_ms: float, at_s: float, source: str) -> None:
        if undated(epoch_ms):
            return
        worse = SOURCES.index(source) < SOURCES.index(self._learned_from)
        if worse and at_s - self._learned_s < SILENT_S:
            return
        learned_ms = epoch_ms - at_s * 1000
        same = source == self._learned_from and self._learned_ms is not None
        noise_ms = NOISE_CHIP_MS if source == "device" else NOISE_MS
        if same and abs(learned_ms - (self._learned_ms or 0.0)) < noise_ms:
            self._learned_s = at_s
            return
        self._keep(learned_ms, at_s, source)

    # -- which source counts ----------------------------------------

    def _wall_clock_counts(self, now_s: float, system_ms: float) -> bool:
        """Whether the wall clock is right: the machine knows, or it agrees with what was learned."""
        if undated(system_ms + now_s * 1000):
            return False
        if now_s - self._checked_s >= (CHECK_SET_S if self._trusted else CHECK_S):
            self._checked_s = now_s
            knows = self._machine_knows()
            # A time service is enough; a clock that runs on by itself gives way to the network.
            self._trusted = knows is True or (knows is None and self._learned_from != SOURCES[-1])
        return self._trusted or (
            self._learned_ms is not None and abs(system_ms - self._learned_ms) < AGREES_MS
        )

    def _keep(self, learned_ms: float, at_s: float, source: str) -> None:
        if source != self._learned_from:
            self._checked_s = float("-inf")
        self._learned_ms, self._learned_from, self._learned_s = learned_ms, source, at_s
        if self._saved_ms is None or abs(learned_ms - self._saved_ms) > NOISE_MS:
            self._saved_ms = learned_ms
            self._remember()

    def _remember(self) -> None:
        if self._memory is not None:
            with contextlib.suppress(OSError):  # a full disk: the next process learns it again
                self._memory.write_text(json.dumps({"boot": self.boot, "offset_ms": self._learned_ms}))

    def _recall(self) -> None:
        if self._memory is None:
            return
        try:
            with self._memory.open("rb") as file:
                known = json.loads(file.read(MEMORY_MAX_BYTES))
            if known["boot"] == self.boot:
                self._learned_ms = self._saved_ms = float(known["offset_ms"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return  # nothing was learned in this boot


def machine_knows(root: Path = Path("/")) -> bool | None:
    """Whether the machine's wall clock is right. True: a time service says so. None: it runs on by itself
    (on a battery, or a host's). False: a board that may have started anywhere."""
    if (root / "run/systemd/timesync/synchronized").exists() or (root == Path("/") and _synchronized()):
        return True
    for rtc in root.glob("sys/class/rtc/rtc*/hctosys"):
        with contextlib.suppress(OSError):
            if rtc.read_text(encoding="ascii").strip() == "1":
                return None  # the kernel took the time from it at the start
    # With a device tree and no such clock it is a board; a PC has a battery, a container its host.
    return False if (root / "proc/device-tree").exists() else None


def _synchronized() -> bool:
    """What the kernel says (`adjtimex`, which needs no privilege to read; a sandbox may forbid it)."""
    import ctypes

    try:
        # Only the return value counts; the buffer fits the largest form of the structure.
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024))) not in (-1, TIME_ERROR)
    except (AttributeError, OSError):
        return False


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        # Containers may hide it. The start of the monotonic clock is as good a name for this boot.
        return f"{int(time.time() - time.monotonic()):x}"


class TokenBucket:
    """So many at once, and so many a second after that (a rate limit)."""

    def __init__(self, most: float, a_second: float, clock: Clock) -> None:
        self._most, self._a_second, self._clock = most, a_second, clock
        self._left, self._at_s = most, clock.monotonic_s()

    @property
    def left(self) -> float:
        """How many may go now; below 0 after more was spent than there was."""
        now_s = self._clock.monotonic_s()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._a_second)
        self._at_s = now_s
        return self._left

    def take(self) -> bool:
        """Whether there is one more now."""
        if self.left < 1:
            return False
        self._left -= 1
        return True

    def spend(self, count: int) -> None:
        """Take as many, whether they are there or not."""
        self._left = self.left - count

    def wait_s(self) -> float:
        """Seconds until there is one."""
        return max(0.0, (1 - self.left) / self._a_second)
