"""Clocks for tests: one that is stepped, for the runtime and a simulated board together, and one with a wrong
wall clock, as a file says, for a whole daemon.
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from device_agent.clock import EARLIEST_TRUE_MS, SystemClock


class ShiftedClock(SystemClock):
    """The machine's clocks, with a wall clock that is wrong by `shift_s` of a JSON file; `knows` there says
    what the machine thinks of it (`device_agent.clock.machine_knows`). Read again when it changes."""

    def __init__(self, file: Path, memory: Path | None = None) -> None:
        self._file = file
        self._stamp = 0
        self._shift_ms = 0.0
        self._knows: bool | None = None
        super().__init__(memory)

    def _look_at_file(self) -> None:
        stamp = self._file.stat().st_mtime_ns
        if stamp != self._stamp:
            said = json.loads(self._file.read_text(encoding="utf-8"))
            self._stamp, self._checked_s = stamp, float("-inf")
            self._shift_ms, self._knows = float(said["shift_s"]) * 1000, said["knows"]

    def _wall_ms(self) -> float:
        self._look_at_file()
        return super()._wall_ms() + self._shift_ms

    def _machine_knows(self) -> bool | None:
        return self._knows


class SteppedClock(SystemClock):
    """A `device_agent.clock.Clock` that stands still until it is stepped. Waiting on it makes time pass."""

    def __init__(self, monotonic_s: float = 1000.0, now_ms: int = EARLIEST_TRUE_MS) -> None:
        super().__init__()
        self.boot = "stepped0"
        self.knows: bool | None = True
        """What the machine thinks of its wall clock (`device_agent.clock.machine_knows`)."""
        self._monotonic_s = monotonic_s
        self._offset_ms = now_ms - monotonic_s * 1000
        self.lock = threading.RLock()
        self._watchers: list[tuple[Callable[[], float | None], Callable[[], None]]] = []

    def _wall_ms(self) -> float:
        return self._offset_ms + self._monotonic_s * 1000

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def _machine_knows(self) -> bool | None:
        return self.knows

    def set_wall(self, now_ms: int) -> None:
        """The wall clock jumps, as when NTP answers; the monotonic one does not."""
        self._offset_ms = now_ms - self._monotonic_s * 1000
        self._checked_s = float("-inf")

    def watch(self, next_due_s: Callable[[], float | None], run_due: Callable[[], None]) -> None:
        """From now on `step` stops at each instant that `next_due_s` names and calls `run_due` there."""
        self._watchers.append((next_due_s, run_due))

    def step(self, seconds: float) -> None:
        """Let `seconds` pass; what becomes due on the way happens at its own time, in order."""
        with self.lock:
            target_s = self._monotonic_s + seconds
            while True:
                dues = [
                    (due_s, run) for next_due_s, run in self._watchers if (due_s := next_due_s()) is not None
                ]
                due_s, run_due = min(dues, key=lambda due: due[0], default=(target_s, None))
                if run_due is None or due_s > target_s:
                    self._monotonic_s = target_s
                    return
                self._monotonic_s = max(self._monotonic_s, due_s)
                run_due()

    def sleep(self, seconds: float) -> None:
        """`step` under the name that drivers know; pass it as their `sleep`."""
        self.step(seconds)
