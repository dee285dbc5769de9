"""One thread for each bus that debounces inputs and notices a dead chip."""

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from device_agent.bus.gpio import Edge
from device_agent.bus.inbox import Inbox
from device_agent.errors import BusError

CHECK_EVERY_S = 1.0


@dataclass(slots=True, eq=False)
class _Debounced:
    """A line whose changes count once the new level has held for `hold_s`."""

    inbox: Inbox[Edge]
    hold_s: float
    active: bool
    latest: Edge | None = None


@dataclass(order=True, slots=True)
class _Due:
    at_s: float
    line: _Debounced = field(compare=False)
    edge: Edge = field(compare=False)


class Debouncer:
    """Its thread starts with the first line. `check` raises BusError when the chip is dead."""

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self._name = name
        self._check = check
        self._changed = threading.Condition()
        self._due: list[_Due] = []
        self._inboxes: list[Inbox[Edge]] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    def add(self, inbox: Inbox[Edge], debounce_s: float, active: bool) -> Callable[[Edge], None]:
        """Begin with a line; returns the function that takes its raw edges, on any thread."""
        with self._changed:
            self._inboxes.append(inbox)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
        if debounce_s <= 0:
            return inbox.put
        line = _Debounced(inbox, debounce_s, active)
        return lambda edge: self._take(line, edge)

    def remove(self, inbox: Inbox[Edge]) -> None:
        with self._changed:
            self._inboxes = [kept for kept in self._inboxes if kept is not inbox]

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(CHECK_EVERY_S)

    def _take(self, line: _Debounced, edge: Edge) -> None:
        with self._changed:
            line.latest = edge
            heapq.heappush(self._due, _Due(edge.monotonic_s + line.hold_s, line, edge))
            self._changed.notify()

    def _work(self) -> None:
        check_s = time.monotonic() + CHECK_EVERY_S
        while True:
            with self._changed:
                if self._stopping:
                    return
                now_s = time.monotonic()
                self._release(now_s)
                next_s = min(check_s, self._due[0].at_s) if self._due else check_s
                if next_s > now_s:
                    self._changed.wait(next_s - now_s)
            if time.monotonic() >= check_s:
                check_s = time.monotonic() + CHECK_EVERY_S
                try:
                    self._check()
                except BusError as error:
                    for inbox in self._inboxes:
                        inbox.fail(error)

    def _release(self, now_s: float) -> None:
        """Pass on the levels that have held. One that was followed by another edge is dropped."""
        while self._due and self._due[0].at_s <= now_s:
            due = heapq.heappop(self._due)
            line = due.line
            if line.latest is due.edge and due.edge.active != line.active:
                line.active = due.edge.active
                line.inbox.put(Edge(due.edge.active, due.at_s))
