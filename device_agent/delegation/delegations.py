"""All delegations of one agent: their readings, their ticks, and their events."""

import asyncio
from collections.abc import Mapping
from typing import Any

from device_agent.background import BackgroundTasks
from device_agent.config.delegation import Delegation
from device_agent.delegation.delegation_rule import DelegationRule
from device_agent.delegation.services import DelegationServices
from device_agent.messages import events
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.tasks.stream_subscriptions import StreamSubscriptions

TICK_S = 1.0


class Delegations(ReadingSubscriber):
    """Owns the rules, which follow what devices report."""

    def __init__(
        self,
        config: Mapping[str, Delegation],
        services: DelegationServices,
        subscriptions: StreamSubscriptions,
        rules: dict[str, DelegationRule],
    ) -> None:
        """`config` is the table [delegations]. `rules` are filled by `start`."""
        self.rules = rules
        self._config = config
        self._services = services
        self._subscriptions = subscriptions
        self._background = BackgroundTasks("delegations")

    async def start(self) -> None:
        """Find what the last process left, and go on with it."""
        state_file = self._services.state_file
        await state_file.load(list(self._config))
        for name, rule in self._config.items():
            self.rules[name] = DelegationRule(name, rule, self._services, self._announce)
            if last := state_file.rules[name].last:
                self._subscriptions.remember(name, _event(last))
        for name, delegation in self.rules.items():
            self._background.run_forever(f"rule {name}", delegation.run)
        self._background.run_forever("tick", self._tick)

    async def close(self) -> None:
        """What is under way is stored already; the next process goes on."""
        await self._background.close()
        await self._services.state_file.save()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for rule in self.rules.values():
                rule.tick()

    # -- what devices report ----------------------------------------

    def on_reading(self, reading: Reading) -> None:
        for rule in self.rules.values():
            rule.add_reading(reading)

    def on_status(self, status: Status) -> None:
        for rule in self.rules.values():
            rule.add_status(status)

    # -- events ----------------------------------------

    def _announce(self, name: str, members: dict[str, Any]) -> None:
        self._subscriptions.announce(name, _event(members))

    def status(self) -> list[dict[str, Any]]:
        """For the owner."""
        return [rule.status() for rule in self.rules.values()]


def _event(members: dict[str, Any]) -> events.EventDraft:
    rest = {key: value for key, value in members.items() if key != "at"}
    return events.control(int(members["at"]), "delegation", rest)
