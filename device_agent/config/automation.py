"""[rules.NAME] and [alerts.NAME]: what the device does and says by itself, without any agent."""

from typing import Annotated, Any

from device_agent.config.trigger import AllowedCommand, When
from device_agent.config.types import Table
from device_agent.schema import BeforeValidator, Field, model_validator

COMMAND_MAX = 16
# Often enough for whatever an actuator's own limits allow.
A_DAY_MAX = 100_000


class Rule(Table):
    """[rules.NAME]: one command, at a time or when a condition begins to hold; refused, it is tried again
    after `min_interval_s` while the condition holds."""

    when: When = Field(description="When it acts.")
    then: AllowedCommand = Field(description="What it does.")
    min_interval_s: float = Field(10, ge=1, le=31_622_400, description="Shortest time between two commands.")
    max_per_day: int = Field(1000, ge=1, le=A_DAY_MAX, description="Commands a day, at most.")


def _words(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError('must be a list such as ["/usr/local/bin/tell-me", "greenhouse"]')
    return value


class Alert(Table):
    """[alerts.NAME]: word to the owner, and again when it is over. Exactly one of the first three."""

    when: When | None = Field(None, description="What is told: a value or a state that lasts.")
    not_safe: bool = Field(False, description="Or: an actuator could not be brought to its safe state.")
    outbox_above: float | None = Field(
        None, gt=0, lt=1, description="Or: share of `outbox.max_bytes` that waits for the network."
    )
    webhook: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]\S*$",
        max_length=2000,
        description="Gets a POST with the message as JSON.",
    )
    command: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        (),
        max_length=COMMAND_MAX,
        strict=False,
        description="Or: program and arguments, run with the message as JSON on standard input.",
    )
    min_interval_s: float = Field(600, ge=1, le=31_622_400, description="Shortest time between two messages.")
    max_per_day: int = Field(100, ge=1, le=A_DAY_MAX, description="Messages a day, at most.")

    @model_validator(mode="after")
    def _one_of_each(self) -> "Alert":
        causes = [self.when is not None, self.not_safe, self.outbox_above is not None]
        if sum(causes) != 1:
            raise ValueError("must have exactly one of when, not_safe = true, outbox_above")
        if self.when is not None and self.when.timed:
            raise ValueError("has a when that is never over: use above, below, equals or status")
        if bool(self.webhook) == bool(self.command):
            raise ValueError("must have either a webhook or a command")
        return self


def rule_holder(name: str) -> str:
    """How a rule is named in leases, in the access rules and in the Journal."""
    return f"rule:{name}"
