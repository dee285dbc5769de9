"""All delegations of one agent: their readings, their ticks, and their events."""

from collections.abc import Mapping
from typing import Any

from device_agent.config.delegation import Delegation
from device_agent.delegation.delegation_rule import DelegationRule
from device_agent.delegation.services import DelegationServices
from device_agent.messages import events
from device_agent.tasks.stream_subscriptions import StreamSubscriptions
from device_agent.triggers.rule_tasks import RuleTasks


class Delegations(RuleTasks):
    """Owns the rules."""

    def __init__(
        self,
        config: Mapping[str, Delegation],
        services: DelegationServices,
        subscriptions: StreamSubscriptions,
        rules: dict[str, DelegationRule],
    ) -> None:
        """`config` is the table [delegations]. `rules` are filled by `start`."""
        super().__init__("delegations", services.state_file)
        self.rules = rules
        self._config = config
        self._services = services
        self._subscriptions = subscriptions

    async def start(self) -> None:
        """Find what the last process left, and go on with it."""
        await self.state_file.load(list(self._config))
        for name, rule in self._config.items():
            self.rules[name] = DelegationRule(name, rule, self._services, self._announce)
            if last := self.state_file.rules[name].last:
                self._subscriptions.remember(name, _event(last))
        for name, delegation in self.rules.items():
            self.begin(f"rule {name}", delegation.schedule, delegation.run)

    # -- events ----------------------------------------

    def _announce(self, name: str, members: dict[str, Any]) -> None:
        self._subscriptions.announce(name, _event(members))

    def status(self) -> list[dict[str, Any]]:
        """For the owner."""
        return [rule.status() for rule in self.rules.values()]


def _event(members: dict[str, Any]) -> events.EventDraft:
    rest = {key: value for key, value in members.items() if key != "at"}
    return events.control(int(members["at"]), "delegation", rest)
