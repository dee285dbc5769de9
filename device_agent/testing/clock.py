"""A clock that a test steps by hand, for the runtime and for a simulated board at once."""

import threading
from collections.abc import Callable

from device_agent.clock import EARLIEST_TRUE_MS


class SteppedClock:
    """A `device_agent.clock.Clock` that stands still until it is stepped. Waiting on it makes time pass."""

    boot = "stepped0"

    def __init__(self, monotonic_s: float = 1000.0, now_ms: int = EARLIEST_TRUE_MS) -> None:
        self._monotonic_s = monotonic_s
        self._offset_ms = now_ms - monotonic_s * 1000
        self.lock = threading.RLock()
        self._watchers: list[tuple[Callable[[], float | None], Callable[[], None]]] = []

    def now_ms(self) -> int:
        return round(self._offset_ms + self._monotonic_s * 1000)

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def is_set(self) -> bool:
        return self.now_ms() >= EARLIEST_TRUE_MS

    def set_wall(self, now_ms: int) -> None:
        """The wall clock jumps, as when NTP answers; the monotonic one does not."""
        self._offset_ms = now_ms - self._monotonic_s * 1000

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
