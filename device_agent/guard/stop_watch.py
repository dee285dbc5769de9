"""The input of the emergency stop, as the guard sees it."""

from __future__ import annotations

import select
import time

from device_agent.guard.actions import is_at
from device_agent.guard.bus_workers import GuardAction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_agent.guard.bus_workers import GuardedActuator

# An edge wakes the guard at once, unless the daemon has taken it out of the queue that both share; what that
# took and did not act upon is seen by looking. As long the daemon has to answer, on buses other than lines.
LOOK_S = 0.015


class StopWatch:
    """One line. It is open only while a daemon has it: two requests of one line are not possible."""

    def __init__(self, device: str, action: GuardAction) -> None:
        self.device = device
        self.why = f"the emergency stop was pressed ({device})"
        self._action = action
        # Told once of each edge: one that nobody takes out of the queue must not keep the guard busy.
        self._edges = select.epoll()
        self._edges.register(action.fd, select.EPOLLIN | select.EPOLLET)
        self._settles_s: float = action.data.get("settles_s", 0.0)
        """How long the level must hold, where nobody below sees to that."""
        self._away_s = time.monotonic()
        """When it was last seen elsewhere."""
        self._pressed = False
        self._unanswered = False
        self._rest_due_s: float | None = None

    def look(self, actuators: Iterable[GuardedActuator]) -> bool:
        """Have made safe what must be; whether it was pressed just now. Raises OSError: it cannot be seen."""
        self._edges.poll(0)
        now_s = time.monotonic()
        at_level = is_at(self._action.data, self._action.fd)
        if not at_level:
            self._away_s = now_s
        before, self._pressed = self._pressed, at_level and now_s >= self._away_s + self._settles_s
        first = self._pressed and not before
        if first:
            self._unanswered, self._rest_due_s = True, now_s + LOOK_S
        rest = self._rest_due_s is not None and now_s >= self._rest_due_s
        if rest:
            self._rest_due_s = None
        for actuator in actuators if self._unanswered else ():
            if actuator.holds:
                # Again and again: a command that was under way may still reach the line.
                actuator.make_safe(self.why, again=not first)
            elif rest:
                actuator.make_safe(self.why)
        return first

    def answered(self) -> None:
        """The daemon goes on with it."""
        self._unanswered = False

    def fileno(self) -> int:
        """Polls readable when the line has changed."""
        return self._edges.fileno()

    def close(self) -> None:
        self._edges.close()
        self._action.close()
