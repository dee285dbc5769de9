"""When something triggers by itself: each period, once a day, or while a condition holds."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from device_agent.clock import Clock
from device_agent.config.trigger import When
from device_agent.records import Reading, Status
from device_agent.triggers.present import Present
from device_agent.triggers.timestamps import DAY_S, Stamp, age_s, stamp, today, wait_s
from device_agent.triggers.trigger import TriggerState

log = structlog.get_logger("triggers")

# What was just configured does not act on a time of day that has passed.
NEW_RULE_S = 60.0
TIMES_MAX = 1000


class Triggered(Protocol):
    """What the owner wrote: what triggers, and how often at most."""

    @property
    def when(self) -> When | None: ...
    @property
    def min_interval_s(self) -> float: ...
    @property
    def max_per_day(self) -> int: ...


@dataclass(slots=True, kw_only=True)
class TriggerMemory:
    """What a restart must know."""

    active: bool = False
    """The condition holds."""
    served: bool = False
    """Whether it was acted on since the condition began to hold."""
    asks: list[Stamp] = field(default_factory=list)
    """When it was acted on."""
    day: str = ""
    """The local date of the last time by the time of day."""
    turn_of: Stamp | None = None
    """When the present period of `every_s` began."""


class Schedule:
    """Follows readings and time, and keeps what a restart must know in `state`."""

    def __init__(
        self,
        name: str,
        rule: Triggered,
        state: TriggerMemory,
        present: Present,
        clock: Clock,
        *,
        watched: bool = False,
    ) -> None:
        """`watched`: the condition is no `when`, but what `holds` is told."""
        self.changed = asyncio.Event()
        """Set when the condition has changed or is to be looked at anew; whoever waits clears it."""
        self._name = name
        self._rule = rule
        self._state = state
        self._present = present
        self._clock = clock
        self._created = stamp(clock)
        when = rule.when
        conditional = watched or (when is not None and not when.timed)
        self._trigger = TriggerState(when, active=state.active) if conditional else None

    @property
    def conditional(self) -> bool:
        """Whether it triggers because a condition holds, not because of the time."""
        return self._trigger is not None

    def add_reading(self, reading: Reading) -> None:
        """A reading of any device."""
        when = self._rule.when
        if self._trigger is None or when is None or reading.device != when.device or not when.point:
            return
        self._trigger.value(reading.values.get(when.point), reading.monotonic_s)
        self._follow(self._trigger)

    def add_status(self, status: Status) -> None:
        """A device came, went or failed."""
        if self._trigger is None or self._rule.when is None or status.device != self._rule.when.device:
            return
        self._trigger.state(status.state, self._clock.monotonic_s())
        self._follow(self._trigger)

    def holds(self, holds: bool) -> None:
        """What is neither a value nor a state was looked at."""
        assert self._trigger is not None
        self._trigger.take(holds, not holds, self._clock.monotonic_s())
        self._follow(self._trigger)

    def _follow(self, trigger: TriggerState) -> None:
        if self._state.active == trigger.active:
            return
        self._state.active = trigger.active
        if not trigger.active:
            self._state.served = False
        self.changed.set()

    def today(self) -> list[Stamp]:
        """When it was acted on within the last day."""
        return [then for then in self._state.asks if age_s(then, self._clock) < DAY_S]

    def acted(self) -> None:
        """Note that it is acted on now."""
        self._state.asks = [*self.today()[-TIMES_MAX:], stamp(self._clock)]

    def wait_s(self) -> float:
        """How long the owner's limits forbid the next time; 0 if they do not."""
        return wait_s(self._state.asks, self._rule.min_interval_s, self._rule.max_per_day, self._clock)

    def due(self) -> str:
        """Why it is time to act; empty if it is not. A period or a time of day is due once."""
        when, state = self._rule.when, self._state
        if self._trigger is not None:
            self._trigger.tick(self._clock.monotonic_s())
            self._follow(self._trigger)
        if when is not None and when.at is not None:
            return self._due_at(when.at)
        if when is not None and when.every_s is not None:
            if state.turn_of is None:
                state.turn_of = stamp(self._clock)
            if age_s(state.turn_of, self._clock) < when.every_s:
                return ""
            state.turn_of = stamp(self._clock)
            return self._unless_too_soon(f"every {when.every_s:g} s")
        # If the condition still holds when the wait is over, it is acted on then.
        if not self.conditional or not state.active or state.served or self.wait_s() > 0:
            return ""
        return self.cause()

    def cause(self) -> str:
        """What holds, as a sentence."""
        when = self._rule.when
        if when is None:
            return "it holds"
        if when.status:
            return f"{when.device} is {self._present.state_of(when.device)}"
        return f"{when.device}.{when.point} = {self._present.value_of(when.device, when.point)}"

    def _due_at(self, at: str) -> str:
        day, reached = today(at, self._clock)
        if not day or day == self._state.day or not reached:
            return ""
        first = not self._state.day
        self._state.day = day
        new = first and age_s(self._created, self._clock) < NEW_RULE_S
        return "" if new else self._unless_too_soon(f"at {at}")

    def _unless_too_soon(self, cause: str) -> str:
        if (left_s := self.wait_s()) > 0:
            log.warning("too_soon", name=self._name, cause=cause, again_in_s=round(left_s))
            return ""
        return cause
