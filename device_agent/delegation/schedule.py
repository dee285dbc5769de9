"""When a delegation asks by itself: each period, once a day, or while a condition holds."""

import structlog

from device_agent.clock import Clock
from device_agent.config.delegation import Delegation
from device_agent.delegation.prompt_builder import PromptBuilder
from device_agent.delegation.state_file import RuleState
from device_agent.delegation.timestamps import age_s, stamp, today, wait_s
from device_agent.delegation.trigger import TriggerState
from device_agent.records import Reading, Status

log = structlog.get_logger("delegation")

# A delegation that was just configured does not ask about a time of day that has passed.
NEW_RULE_S = 60.0


class Schedule:
    """Follows readings and time, and keeps what a restart must know in the delegation's state.

    `state.active`: the condition holds; `state.served`: it was asked about since it began to hold.
    """

    def __init__(
        self, name: str, rule: Delegation, state: RuleState, prompts: PromptBuilder, clock: Clock
    ) -> None:
        self._name = name
        self._rule = rule
        self._state = state
        self._prompts = prompts
        self._clock = clock
        self._created = stamp(clock)
        when = rule.when
        self._trigger = None if when is None or when.timed else TriggerState(when, active=state.active)

    @property
    def conditional(self) -> bool:
        """Whether it asks because a condition holds, not because of the time."""
        return self._trigger is not None

    def add_reading(self, reading: Reading) -> bool:
        """A reading of any device; whether the condition changed."""
        when = self._rule.when
        if self._trigger is None or when is None or reading.device != when.device or not when.point:
            return False
        self._trigger.value(reading.values.get(when.point), reading.monotonic_s)
        return self._follow(self._trigger)

    def add_status(self, status: Status) -> bool:
        """A device came, went or failed; whether the condition changed."""
        if self._trigger is None or self._rule.when is None or status.device != self._rule.when.device:
            return False
        self._trigger.state(status.state, self._clock.monotonic_s())
        return self._follow(self._trigger)

    def tick(self) -> None:
        """Time passed."""
        if self._trigger is not None:
            self._trigger.tick(self._clock.monotonic_s())
            self._follow(self._trigger)

    def _follow(self, trigger: TriggerState) -> bool:
        if self._state.active == trigger.active:
            return False
        self._state.active = trigger.active
        if not trigger.active:
            self._state.served = False
        return True

    def wait_s(self) -> float:
        """How long the owner's limits forbid the next question; 0 if they do not."""
        return wait_s(self._state.asks, self._rule, self._clock)

    def due(self) -> str:
        """Why it is time to ask; empty if it is not. A period or a time of day is due once."""
        when, state = self._rule.when, self._state
        if when is None:
            return ""
        if when.at is not None:
            return self._due_at(when.at)
        if when.every_s is not None:
            if state.turn_of is None:
                state.turn_of = stamp(self._clock)
            if age_s(state.turn_of, self._clock) < when.every_s:
                return ""
            state.turn_of = stamp(self._clock)
            return self._unless_too_soon(f"every {when.every_s:g} s")
        # If the condition still holds when the wait is over, it is asked about then.
        if not state.active or state.served or self.wait_s() > 0:
            return ""
        if when.status:
            return f"{when.device} is {self._prompts.state_of(when.device)}"
        point = f"{when.device}.{when.point}"
        return f"{point} = {self._prompts.fill(f'{{{point}}}')}"

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
            log.warning("delegation_not_asked", delegation=self._name, cause=cause, again_in_s=round(left_s))
            return ""
        return cause
