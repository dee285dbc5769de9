"""Checks of [rules] and [alerts] against the devices: what they name is there and can be done."""

from collections.abc import Iterator

from device_agent.config.draft import ConfigDraft
from device_agent.config.trigger_checks import checked_command, conditions


def automation(draft: ConfigDraft) -> Iterator[str]:
    """Every fault that a rule's or an alert's own table cannot see."""
    for name, rule in draft.rules.items():
        yield from conditions(draft, f"rules.{name}", rule.when)
        problem, _ = checked_command(draft, f"rules.{name}.then", rule.then)
        if problem:
            yield problem
    for name, alert in draft.alerts.items():
        yield from conditions(draft, f"alerts.{name}", alert.when)
