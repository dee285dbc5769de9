"""The limits of each actuator, whoever drives it: time away from safe, rest, step, rate, cycles, interlocks.

A point is away from the moment that it may have left its safe value until it is known to be back. These
transitions are kept in the Journal: `min_off_s` and the cycles of an hour go on counting over restarts.
`max_on_s` need not: whatever ends the process (stop, guard, reboot) makes safe, and so does opening a device.
Until it is opened a device counts as away, so that its interlocks hold.

Nothing here waits or moves anything; times are passed in, in seconds of the monotonic clock.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from device_agent.driver import DriverConfig
from device_agent.errors import Interlocked, Rejected
from device_agent.records import Value, is_number
from device_agent.store.journal.safe_transitions import SafeTransition

HOUR_S = 3600.0


@dataclass(slots=True)
class _PointState:
    """What is known of one writable point."""

    value: Value
    changed_s: float
    left_safe_s: float | None = None
    """Since when it is away from its safe value; None while it is there."""
    back_safe_s: float | None = None
    departures: deque[float] = field(default_factory=deque)

    def note(self, transition: SafeTransition) -> None:
        if not transition.away:
            self.left_safe_s, self.back_safe_s = None, transition.at_s
            return
        self.left_safe_s = transition.at_s
        self.forget_departures(transition.at_s - HOUR_S)
        self.departures.append(transition.at_s)

    def forget_departures(self, until_s: float) -> None:
        while self.departures and self.departures[0] <= until_s:
            self.departures.popleft()


class Interlocks:
    """Groups of devices of which only one may be away from its safe value at a time."""

    def __init__(self) -> None:
        self._away: dict[str, set[str]] = {}

    def other(self, group: str, device: str) -> str | None:
        """Another device of the group that is away now."""
        return next((name for name in sorted(self._away.get(group, ())) if name != device), None)

    def note(self, group: str, device: str, away: bool) -> None:
        members = self._away.setdefault(group, set())
        members.add(device) if away else members.discard(device)

    def forget(self, device: str) -> None:
        """The device is gone, or has changed its groups."""
        for members in self._away.values():
            members.discard(device)


class Limits:
    """The limits of one device's writable points."""

    def __init__(
        self,
        device: str,
        config: DriverConfig,
        safe: Mapping[str, Value],
        interlocks: Interlocks,
        now_s: float,
    ) -> None:
        self._device = device
        self._safe = dict(safe)
        self._interlocks = interlocks
        self._groups: list[str] = list(getattr(config, "interlock", ()) or ())
        self._max_on_s: float | None = getattr(config, "max_on_s", None)
        self._min_off_s: float | None = getattr(config, "min_off_s", None)
        self._max_step: float | None = getattr(config, "max_step", None)
        self._max_rate: float | None = getattr(config, "max_rate_per_s", None)
        self._max_cycles: int | None = getattr(config, "max_cycles_per_hour", None)
        self._states = {name: _PointState(value, now_s) for name, value in self._safe.items()}

    @property
    def away(self) -> bool:
        """Whether any point is not at its safe value, or not known to be."""
        return self.left_safe_s() is not None

    # -- before ----------------------------------------

    def leaves_safe(self, values: Mapping[str, Value]) -> bool:
        """Whether any of these is not a safe value."""
        return any(value != self._safe[name] for name, value in values.items())

    def check(self, values: Mapping[str, Value], now_s: float) -> None:
        """Raises Rejected with the rule and the wait that remains. The safe value is always allowed."""
        for name, value in values.items():
            state = self._states[name]
            if value == self._safe[name]:
                continue
            self._check_leaving(name, state, now_s)
            self._check_change(name, state, value, now_s)

    def _check_leaving(self, name: str, state: _PointState, now_s: float) -> None:
        for group in self._groups:
            other = self._interlocks.other(group, self._device)
            if other is not None:
                raise Interlocked(
                    f"{self._device}.{name} is interlocked with {other} (group {group}), which is not at its "
                    f"safe value; set {other} safe first",
                    other,
                )
        if state.left_safe_s is not None:
            return
        if self._min_off_s is not None and state.back_safe_s is not None:
            wait_s = state.back_safe_s + self._min_off_s - now_s
            if wait_s > 0:
                raise Rejected(
                    "too_soon",
                    f"{self._device}.{name} must rest min_off_s = {self._min_off_s:g}; wait {wait_s:.1f} s",
                )
        if self._max_cycles is not None:
            state.forget_departures(now_s - HOUR_S)
            if len(state.departures) >= self._max_cycles:
                wait_s = state.departures[0] + HOUR_S - now_s
                raise Rejected(
                    "too_soon",
                    f"{self._device}.{name} may leave its safe value {self._max_cycles} times an hour "
                    f"(max_cycles_per_hour); wait {wait_s:.0f} s",
                )

    def _check_change(self, name: str, state: _PointState, value: Value, now_s: float) -> None:
        if not is_number(value) or not is_number(state.value):
            return
        change = abs(value - state.value)
        if self._max_step is not None and change > self._max_step:
            raise Rejected(
                "out_of_range",
                f"{self._device}.{name} may change by max_step = {self._max_step:g} at once; "
                f"{state.value!r} to {value!r} is {change:g}",
            )
        if self._max_rate is not None:
            wait_s = state.changed_s + change / self._max_rate - now_s
            if wait_s > 0:
                raise Rejected(
                    "too_soon",
                    f"{self._device}.{name} may change by max_rate_per_s = {self._max_rate:g}; "
                    f"wait {wait_s:.1f} s",
                )

    def claim(self, values: Mapping[str, Value]) -> None:
        """A checked write is about to begin: from now on its interlocks hold, until `settle`."""
        if self.leaves_safe(values):
            for group in self._groups:
                self._interlocks.note(group, self._device, True)

    # -- after ----------------------------------------

    def settle(self) -> None:
        """The write is over: interlocks hold only while the device is away."""
        for group in self._groups:
            self._interlocks.note(group, self._device, self.away)

    def applied(self, values: Mapping[str, Value], now_s: float) -> list[SafeTransition]:
        """These values were set. Returns which points left their safe values, or came back."""
        transitions = []
        for name, value in values.items():
            state = self._states.get(name)
            if state is None:
                continue
            if state.value != value:
                state.changed_s = now_s
            state.value = value
            away = value != self._safe[name]
            if away is (state.left_safe_s is None):
                transitions.append(SafeTransition(self._device, name, now_s, away))
        self.recall(transitions)
        return transitions

    def mark_unknown(self, now_s: float) -> list[SafeTransition]:
        """Nobody knows where the points are: all count as away until safe values are applied."""
        transitions = [
            SafeTransition(self._device, name, now_s, True)
            for name, state in self._states.items()
            if state.left_safe_s is None
        ]
        self.recall(transitions)
        return transitions

    def recall(self, transitions: Iterable[SafeTransition]) -> None:
        """These happened, perhaps in an earlier process; in order."""
        for transition in transitions:
            state = self._states.get(transition.point)
            if state is not None:
                state.note(transition)
        self.settle()

    def inherit(self, old: "Limits") -> None:
        """The configuration changed; what happened to the points did not."""
        for name in self._states.keys() & old._states.keys():
            before = old._states[name]
            self._states[name].left_safe_s = before.left_safe_s
            self._states[name].back_safe_s = before.back_safe_s
            self._states[name].departures = before.departures
        self.settle()

    def left_safe_s(self) -> float | None:
        """Since when a point is away from its safe value; None while all are there."""
        left = [state.left_safe_s for state in self._states.values() if state.left_safe_s is not None]
        return min(left, default=None)

    def deadline_s(self) -> float | None:
        """When the first point must be back at its safe value (`max_on_s`); None where nothing is limited."""
        left_s = self.left_safe_s()
        return None if self._max_on_s is None or left_s is None else left_s + self._max_on_s
