"""Limits under the driver, whoever asks: how long away from safe, how soon, how far, how often, never both.

Plain functions over times that are passed in; nothing here waits or moves anything.

A point is away from when it may have left its safe value until it is known to be back. Its transitions are
kept in the Journal: `min_off_s` and the cycles of an hour go on counting over restarts. `max_on_s` need not:
whatever ends the process (stop, guard, reboot), what follows is safe, and a device is safe when it is opened.
Until then it counts as away, so that its interlocks hold.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from device_agent.driver import DriverConfig
from device_agent.errors import Interlocked, Rejected
from device_agent.records import Point, Value
from device_agent.store.journal.safe_transitions import SafeTransition

HOUR_S = 3600.0


@dataclass(slots=True)
class _State:
    """What is known of one writable point."""

    value: Value
    changed_s: float
    left_safe_s: float | None = None
    back_safe_s: float | None = None
    departures: deque[float] = field(default_factory=deque)


class Interlocks:
    """Groups of which one member may be away from its safe value at once."""

    def __init__(self) -> None:
        self._away: dict[str, set[str]] = {}

    def holder(self, group: str, device: str) -> str | None:
        """Another device of the group that is away from safe now."""
        return next((name for name in sorted(self._away.get(group, ())) if name != device), None)

    def note(self, group: str, device: str, away: bool) -> None:
        members = self._away.setdefault(group, set())
        members.add(device) if away else members.discard(device)

    def forget(self, device: str) -> None:
        """The device is no more, or in other groups."""
        for members in self._away.values():
            members.discard(device)


class Limits:
    """The limits of one device's writable points."""

    def __init__(
        self,
        device: str,
        config: DriverConfig,
        points: Mapping[str, Point],
        safe: Mapping[str, Value],
        interlocks: Interlocks,
        now_s: float,
    ) -> None:
        self._device = device
        self._points = points
        self._safe = dict(safe)
        self._interlocks = interlocks
        self._groups: list[str] = list(getattr(config, "interlock", ()) or ())
        self._max_on_s: float | None = getattr(config, "max_on_s", None)
        self._min_off_s: float | None = getattr(config, "min_off_s", None)
        self._max_step: float | None = getattr(config, "max_step", None)
        self._max_rate: float | None = getattr(config, "max_rate_per_s", None)
        self._max_cycles: int | None = getattr(config, "max_cycles_per_hour", None)
        self._states = {name: _State(value, now_s) for name, value in self._safe.items()}

    def values(self) -> dict[str, Value]:
        """What each point was last set to."""
        return {name: state.value for name, state in self._states.items()}

    @property
    def away(self) -> bool:
        """Whether any point is not at its safe value, or not known to be."""
        return any(state.left_safe_s is not None for state in self._states.values())

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

    def _check_leaving(self, name: str, state: _State, now_s: float) -> None:
        for group in self._groups:
            other = self._interlocks.holder(group, self._device)
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
            while state.departures and state.departures[0] <= now_s - HOUR_S:
                state.departures.popleft()
            if len(state.departures) >= self._max_cycles:
                wait_s = state.departures[0] + HOUR_S - now_s
                raise Rejected(
                    "too_soon",
                    f"{self._device}.{name} may leave its safe value {self._max_cycles} times an hour "
                    f"(max_cycles_per_hour); wait {wait_s:.0f} s",
                )

    def _check_change(self, name: str, state: _State, value: Value, now_s: float) -> None:
        if not _is_number(value) or not _is_number(state.value):
            return
        change = abs(float(value) - float(state.value))  # type: ignore[arg-type]
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
        """The write is over: interlocks hold as far as the device is away."""
        for group in self._groups:
            self._interlocks.note(group, self._device, self.away)

    def applied(self, values: Mapping[str, Value], now_s: float) -> list[SafeTransition]:
        """These values were set. Returns the turns that this was."""
        turns = []
        for name, value in values.items():
            state = self._states.get(name)
            if state is None:
                continue
            if state.value != value:
                state.changed_s = now_s
            state.value = value
            away = value != self._safe[name]
            if away is (state.left_safe_s is None):
                turns.append(SafeTransition(self._device, name, now_s, away))
                self._turn(state, turns[-1])
        self.settle()
        return turns

    def doubt(self, now_s: float) -> list[SafeTransition]:
        """Nobody knows where the points are: all count as away until safe values are applied."""
        turns = [
            SafeTransition(self._device, name, now_s, True)
            for name, state in self._states.items()
            if state.left_safe_s is None
        ]
        self.recall(turns)
        return turns

    def recall(self, turns: Iterable[SafeTransition]) -> None:
        """What happened in an earlier process, in order."""
        for turn in turns:
            state = self._states.get(turn.point)
            if state is not None:
                self._turn(state, turn)
        self.settle()

    def inherit(self, old: "Limits") -> None:
        """The configuration changed; what happened to the points did not."""
        for name in self._states.keys() & old._states.keys():
            before = old._states[name]
            self._states[name].left_safe_s = before.left_safe_s
            self._states[name].back_safe_s = before.back_safe_s
            self._states[name].departures = before.departures
        self.settle()

    def _turn(self, state: _State, turn: SafeTransition) -> None:
        if not turn.away:
            state.left_safe_s, state.back_safe_s = None, turn.at_s
            return
        state.left_safe_s = turn.at_s
        while state.departures and state.departures[0] <= turn.at_s - HOUR_S:
            state.departures.popleft()
        state.departures.append(turn.at_s)

    def deadline_s(self) -> float | None:
        """When the first point must be back at its safe value (`max_on_s`); None where nothing is limited."""
        if self._max_on_s is None:
            return None
        left = [state.left_safe_s for state in self._states.values() if state.left_safe_s is not None]
        return min(left) + self._max_on_s if left else None


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
