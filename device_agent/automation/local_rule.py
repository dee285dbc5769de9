"""One local rule: a command of the owner's list, when its time or its condition has come."""

import secrets
from typing import Any

import structlog

from device_agent.automation.services import AutomationServices
from device_agent.commands.authorization import Actor, Role
from device_agent.config.automation import Rule, rule_holder
from device_agent.messages.acks import Ack, AckState
from device_agent.network import Caller
from device_agent.triggers.listed_command import carry_out
from device_agent.triggers.schedule import Schedule, TriggerMemory

log = structlog.get_logger("rules")


class LocalRule:
    """Acts under the limits, leases and Journal of all callers; its line in the file is its right."""

    def __init__(self, name: str, rule: Rule, state: TriggerMemory, services: AutomationServices) -> None:
        self.schedule = Schedule(name, rule, state, services.present, services.clock)
        self.name = name
        self._rule = rule
        self._state = state
        self._services = services
        self._actor = Actor(rule_holder(name), rule_holder(name), Caller(), role=Role.RULE)
        self._last: Ack | None = None
        # A new process begins with everything safe: what a condition has set before is not set any more.
        state.active = state.served = False

    def __repr__(self) -> str:
        return f"<LocalRule {self.name}: {'holds' if self._state.active else 'idle'}>"

    async def run(self) -> None:
        """Act when it is time, until cancelled."""
        while True:
            await self.schedule.changed.wait()
            self.schedule.changed.clear()
            await self.act()

    async def act(self) -> None:
        """Carry out the command if it is due."""
        if not (cause := self.schedule.due()):
            return
        self.schedule.acted()
        id_ = secrets.token_hex(8)
        ack = await carry_out(self._services.executor, self._rule.then, self._actor, id_)
        # Refused, it is tried again while the condition holds.
        self._state.served = self.schedule.conditional and ack.state is not AckState.REJECTED
        self._last = ack
        why = {} if ack.error is None else {"why": ack.error.message}
        log.info("rule_acted", rule=self.name, cause=cause, state=ack.state.value, **why)

    def status(self) -> dict[str, Any]:
        """The members that `device-agent status` shows."""
        shown: dict[str, Any] = {"rule": self.name, "today": len(self.schedule.today())}
        if self.schedule.conditional:
            shown["holds"] = self._state.active
        if self._last is not None:
            shown["last"] = self._last.members()
        return shown
