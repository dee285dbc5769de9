"""The input of the emergency stop, as the guard sees it."""

from __future__ import annotations

from device_agent.guard.actions import is_at
from device_agent.guard.bus_workers import GuardAction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_agent.guard.bus_workers import GuardedActuator

# From contact to safe 50 ms are promised: one look, one more for the daemon's answer, and the writes.
LOOK_S = 0.015


class StopWatch:
    """One line. It is open only while a daemon has it: two requests of one line are not possible."""

    def __init__(self, device: str, action: GuardAction) -> None:
        self.device = device
        self.why = f"the emergency stop was pressed ({device})"
        self._action = action
        self._pressed = False
        self._unanswered = self._rest_due = False

    def look(self, actuators: Iterable[GuardedActuator]) -> bool:
        """Have made safe what must be; whether it was pressed just now. Raises OSError: it cannot be seen."""
        before, self._pressed = self._pressed, is_at(self._action.data, self._action.fd)
        first = self._pressed and not before
        if first:
            self._unanswered = True
        for actuator in actuators if self._unanswered else ():
            if actuator.holds:
                # Again and again: a command that was under way may still reach the line.
                actuator.make_safe(self.why, again=not first)
            elif self._rest_due:
                actuator.make_safe(self.why)
        self._rest_due = first
        return first

    def answered(self) -> None:
        """The daemon goes on with it."""
        self._unanswered = self._rest_due = False

    def close(self) -> None:
        self._action.close()
