"""All local rules and alerts of one agent: what they hear, when they act, and what is stored of them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from device_agent.automation.local_rule import LocalRule
from device_agent.automation.owner_alert import OwnerAlert
from device_agent.automation.services import AutomationServices
from device_agent.config.automation import Alert, Rule
from device_agent.triggers.rule_tasks import RuleTasks

SAVE_EVERY_S = 1.0


class Automation(RuleTasks):
    """Owns the rules and the alerts."""

    def __init__(
        self, rules: Mapping[str, Rule], alerts: Mapping[str, Alert], services: AutomationServices
    ) -> None:
        """`rules` and `alerts` are the tables of these names."""
        super().__init__("automation", services.state_file)
        self._tables = (rules, alerts)
        self._services = services
        self._rules: list[LocalRule] = []
        self._alerts: list[OwnerAlert] = []

    async def start(self) -> None:
        """Go on with what the last process left: messages that wait, and the times of day that are done."""
        rules, alerts = self._tables
        await self.state_file.load([*map(_rule, rules), *map(_alert, alerts)])
        states = self.state_file.rules
        self._rules += [LocalRule(n, one, states[_rule(n)], self._services) for n, one in rules.items()]
        self._alerts += [OwnerAlert(n, one, states[_alert(n)], self._services) for n, one in alerts.items()]
        for rule in self._rules:
            self.begin(_rule(rule.name), rule.schedule, rule.run)
        for alert in self._alerts:
            self.begin(_alert(alert.name), alert.schedule, alert.run)
            self.background.run_forever(f"delivery of {alert.name}", alert.delivery.run)
        self.background.run_forever("save", self._save)

    async def _save(self) -> None:
        """Keep the file as it is to be found by the next process."""
        saved = None
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            state = [one.kept() for one in self.state_file.rules.values()]
            if state != saved and await self.state_file.save():
                saved = state

    # -- for the owner ----------------------------------------

    def rules(self) -> list[dict[str, Any]]:
        """For `status`."""
        return [rule.status() for rule in self._rules]

    def alerts(self) -> list[dict[str, Any]]:
        """For `status`."""
        return [alert.status() for alert in self._alerts]


def _rule(name: str) -> str:
    return f"rule {name}"


def _alert(name: str) -> str:
    return f"alert {name}"
