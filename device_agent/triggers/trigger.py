"""Whether a condition holds: a threshold with hysteresis, a value or a device state, for long enough.

Times are monotonic seconds. A missing value neither starts nor ends the condition, but it breaks the time
for which it must have held.
"""

from device_agent.config.trigger import When
from device_agent.records import DeviceState, Value, is_number


class TriggerState:
    """`active` begins when it has held for `for_s` without a break, and ends at the other threshold."""

    def __init__(self, when: When | None, *, active: bool = False) -> None:
        """`when` is None for what is told by `take` alone."""
        self.active = active
        self._when = when
        self._for_s = 0.0 if when is None else when.for_s
        self._since_s: float | None = None

    def value(self, value: Value, now_s: float) -> None:
        """The point was read."""
        holds, over = self._judge(value)
        self.take(holds, over, now_s)

    def state(self, state: DeviceState, now_s: float) -> None:
        """The device came, went or failed."""
        if self._when is not None and self._when.status:
            holds = state in self._when.status
            self.take(holds, not holds, now_s)
        elif state is not DeviceState.ONLINE:
            self._since_s = None

    def tick(self, now_s: float) -> None:
        """Time passed without a reading."""
        if self._since_s is not None and not self.active and now_s - self._since_s >= self._for_s:
            self.active = True

    def take(self, holds: bool, over: bool, now_s: float) -> None:
        """Whether the condition holds now, and whether it has ended; between two thresholds neither."""
        if over:
            self.active = False
        if not holds:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        self.tick(now_s)

    def _judge(self, value: Value) -> tuple[bool, bool]:
        """(holds, over); between the thresholds neither."""
        when = self._when
        if value is None or when is None:
            return False, False
        if when.equals is not None:
            same = type(value) is type(when.equals) and value == when.equals
            return same, not same
        if not is_number(value):
            return False, False
        if when.above is not None:
            back = when.above if when.below_again is None else when.below_again
            return value > when.above, value <= back
        assert when.below is not None
        back = when.below if when.above_again is None else when.above_again
        return value < when.below, value >= back
