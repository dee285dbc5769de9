"""One alert: tells the owner that something began, and that it is over."""

from typing import Any

import structlog

from device_agent.automation.delivery import Delivery
from device_agent.automation.services import AutomationServices, AutomationState
from device_agent.config.automation import Alert
from device_agent.triggers.schedule import Schedule

log = structlog.get_logger("alerts")


class OwnerAlert:
    """Makes the messages; its `delivery` sends them."""

    def __init__(self, name: str, alert: Alert, state: AutomationState, services: AutomationServices) -> None:
        self.delivery = Delivery(name, alert, state.waiting, services.session)
        self.schedule = Schedule(
            name, alert, state, services.present, services.clock, watched=alert.when is None
        )
        self.name = name
        self._alert = alert
        self._state = state
        self._services = services

    def __repr__(self) -> str:
        return f"<OwnerAlert {self.name}: {'on' if self._state.told else 'idle'}>"

    async def run(self) -> None:
        """Make each message when it is due, until cancelled."""
        while True:
            await self.schedule.changed.wait()
            self.schedule.changed.clear()
            self.tell()

    def tell(self) -> None:
        """Make the message that is due."""
        state = self._state
        if self._alert.when is None:
            self.schedule.holds(bool(self._cause()))
        if state.told and not state.active:
            state.told = False
            self._add("over")
        elif self.schedule.due():
            self.schedule.acted()
            state.served = state.told = True
            self._add("begun")

    def _cause(self) -> str:
        """What holds; of what is looked at, "" if it does not."""
        alert, services = self._alert, self._services
        if alert.not_safe:
            unreached = services.safe_states.unreached
            return "; ".join(f"{device} is not safe: {why}" for device, why in unreached.items())
        if alert.outbox_above is not None:
            share = services.outbox_share()
            return f"the outbox is {share:.0%} full" if share > alert.outbox_above else ""
        return self.schedule.cause()

    def _add(self, state: str) -> None:
        clock, cause = self._services.clock, self._cause()
        text = f"{self._services.title}: {self.name} {'is over' if state == 'over' else 'has begun'}"
        message: dict[str, Any] = {
            "agent": self._services.title,
            "alert": self.name,
            "state": state,
            "cause": cause,
            "text": f"{text} ({cause})" if cause else text,
        }
        if clock.is_set():
            message["at"] = clock.now_ms()
        log.warning("alert", alert=self.name, state=state, cause=cause)
        self.delivery.add(message)

    def status(self) -> dict[str, Any]:
        """The members that `device-agent status` shows."""
        shown: dict[str, Any] = {
            "alert": self.name,
            "on": self._state.told,
            "today": len(self.schedule.today()),
            "waiting": len(self._state.waiting),
            "dropped": self.delivery.dropped,
        }
        if self.delivery.trouble:
            shown["trouble"] = self.delivery.trouble
        return shown
