"""All local rules and alerts of one agent: what they hear, when they act, and what is stored of them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from device_agent.automation.local_rule import LocalRule
from device_agent.automation.owner_alert import OwnerAlert
from device_agent.automation.services import AutomationServices
from device_agent.background import BackgroundTasks, first_of
from device_agent.config.automation import Alert, Rule
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.triggers.schedule import Schedule

TICK_S = 1.0


class Automation(ReadingSubscriber):
    """Owns the rules and the alerts, which follow what devices report."""

    def __init__(
        self, rules: Mapping[str, Rule], alerts: Mapping[str, Alert], services: AutomationServices
    ) -> None:
        """`rules` and `alerts` are the tables of these names."""
        self._tables = (rules, alerts)
        self._state_file = services.state_file
        self._services = services
        self._rules: list[LocalRule] = []
        self._alerts: list[OwnerAlert] = []
        self._schedules: list[Schedule] = []
        self._changed = asyncio.Event()
        self._background = BackgroundTasks("automation")

    async def start(self) -> None:
        """Go on with what the last process left: messages that wait, and the times of day that are done."""
        rules, alerts = self._tables
        await self._state_file.load([*map(_rule, rules), *map(_alert, alerts)])
        states = self._state_file.rules
        self._rules += [LocalRule(n, one, states[_rule(n)], self._services) for n, one in rules.items()]
        self._alerts += [OwnerAlert(n, one, states[_alert(n)], self._services) for n, one in alerts.items()]
        self._schedules += [one.schedule for one in self._rules]
        self._schedules += [one.schedule for one in self._alerts]
        self._background.run_forever("follow", self._follow)
        self._background.run_forever("save", self._save)
        for alert in self._alerts:
            self._background.run_forever(f"delivery of {alert.name}", alert.delivery.run)

    async def close(self) -> None:
        """Messages that nobody has taken wait in the file for the next process."""
        await self._background.close()
        await self._state_file.save()

    # -- what devices report ----------------------------------------

    def on_reading(self, reading: Reading) -> None:
        for schedule in self._schedules:
            if schedule.add_reading(reading):
                self._changed.set()

    def on_status(self, status: Status) -> None:
        for schedule in self._schedules:
            if schedule.add_status(status):
                self._changed.set()

    async def _follow(self) -> None:
        """Act and tell at once when a condition has changed, else when a second has passed."""
        while True:
            await first_of(self._changed.wait(), limit_s=TICK_S)
            self._changed.clear()
            for rule in self._rules:
                if cause := rule.due():
                    # A slow bus delays no other rule.
                    self._background.spawn(f"rule {rule.name}", rule.act(cause))
            for alert in self._alerts:
                alert.tell()

    async def _save(self) -> None:
        """Keep the file as it is to be found by the next process."""
        saved = None
        while True:
            await asyncio.sleep(TICK_S)
            state = [one.kept() for one in self._state_file.rules.values()]
            if state != saved and await self._state_file.save():
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
