"""What is due later on a board: debounce periods, periodic output, the end of a fault."""

import heapq
import itertools
import threading
from collections.abc import Callable


class Timer:
    """One thing to do at `due_s`; `cancel` makes it a no-op."""

    __slots__ = ("act", "due_s")

    def __init__(self, due_s: float, act: Callable[[float], None]) -> None:
        self.due_s = due_s
        self.act: Callable[[float], None] | None = act

    def cancel(self) -> None:
        self.act = None


class Timers:
    """Pending timers in order. Used under the board's lock alone."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def at(self, due_s: float, act: Callable[[float], None]) -> Timer:
        """Call `act(due_s)` then: it is told when it was due, so that stamps do not depend on lateness."""
        timer = Timer(due_s, act)
        heapq.heappush(self._heap, (due_s, next(self._order), timer))
        return timer

    def next_due_s(self) -> float | None:
        while self._heap and self._heap[0][2].act is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_due(self, now_s: float) -> None:
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            timer = heapq.heappop(self._heap)[2]
            if timer.act is not None:
                timer.act(due_s)


class Pacer:
    """Runs timers on the real clock: one daemon thread, begun with the first timer."""

    def __init__(
        self, changed: threading.Condition, timers: Timers, monotonic_s: Callable[[], float]
    ) -> None:
        self._changed = changed
        self._timers = timers
        self._monotonic_s = monotonic_s
        self._thread: threading.Thread | None = None
        self._ended = False

    def nudge(self) -> None:
        """A timer was added (the caller holds the lock)."""
        if self._thread is None and not self._ended:
            self._thread = threading.Thread(target=self._run, name="board-pacer", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        with self._changed:
            while not self._ended:
                now_s = self._monotonic_s()
                self._timers.run_due(now_s)
                due_s = self._timers.next_due_s()
                self._changed.wait(None if due_s is None else max(0.0, due_s - self._monotonic_s()))

    def close(self) -> None:
        """End the thread and wait for it; not to be called under the lock."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
