"""Leads one question to its end: sent, answered, acted on, followed up.

Each step is stored before the next begins, so that a new process goes on with the stored one. Nothing moves
here but by an answer that was read from the session whose id is stored.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from device_agent.commands.authorization import Actor, Role
from device_agent.config.delegation import Delegation, holder
from device_agent.delegation.answer import choice, form, presentable
from device_agent.delegation.exchange import Exchange, RuleState, Turn
from device_agent.delegation.services import DelegationServices
from device_agent.delegation.session_client import ExchangeFailed, SessionClient
from device_agent.errors import Fault
from device_agent.messages.acks import Ack, AckState
from device_agent.network import Caller
from device_agent.text.printable import printable
from device_agent.triggers.listed_command import carry_out
from device_agent.triggers.timestamps import age_s, stamp

log = structlog.get_logger("delegation")

Announce = Callable[[str, dict[str, Any]], None]
"""Sends the newest event (its members, with `at`) of a delegation."""


class ExchangeRunner:
    """For one delegation, one exchange at a time."""

    def __init__(
        self,
        name: str,
        rule: Delegation,
        state: RuleState,
        services: DelegationServices,
        announce: Announce,
    ) -> None:
        self._name = name
        self._rule = rule
        self._state = state
        self._services = services
        self._announce = announce
        self._client = SessionClient(name, rule, services)
        self._actor = Actor(holder(name), f"delegation {name}", Caller(), role=Role.DELEGATION)

    @property
    def trouble(self) -> str:
        """Why the service cannot be asked now; empty if it can."""
        return self._client.trouble

    async def run(self, exchange: Exchange) -> bool:
        """Until the exchange is over, or (True) until it waits for the end of the condition, phase `open`."""
        going = True
        try:
            while going and exchange.phase != "open":
                match exchange.phase:
                    case "waiting":
                        await self._send(exchange)
                    case "asked":
                        await self._take(exchange, await self._client.answer(exchange))
                    case "answered":
                        going = await self._answered(exchange)
        except ExchangeFailed as failure:
            self._fail(exchange, failure)
            going = False
        self._client.reset()
        return going

    async def condition_ended(self, exchange: Exchange) -> None:
        """Go on from phase `open`, with the message for the AI agent."""
        await self._next(exchange, "ended", self._services.prompts.fill(self._rule.follow_up.ended or ""))

    async def _send(self, exchange: Exchange) -> None:
        await self._client.send(exchange)
        exchange.phase, exchange.message, exchange.sends = "asked", "", 0
        # If the disk fails now, a crash costs a second session; this one goes on.
        await self._save()
        log.info("delegation_asked", delegation=self._name, turn=exchange.turn, session=exchange.session)
        self._report(exchange, "asked", {})

    async def _take(self, exchange: Exchange, text: str) -> None:
        exchange.answer, exchange.cut = presentable(text)
        if self._rule.commands and exchange.turn in ("question", "unclear"):
            exchange.command, exchange.unclear = choice(text, self._rule.commands)
        exchange.phase = "answered"
        await self._save()
        log.info(
            "delegation_answered",
            delegation=self._name,
            turn=exchange.turn,
            command=exchange.command,
            answer=printable(exchange.answer, 200),
        )

    async def _answered(self, exchange: Exchange) -> bool:
        """Act on the answer, report it, choose the next turn; False if there is none."""
        members: dict[str, Any] = {"answer": exchange.answer}
        if exchange.cut:
            members["cut"] = True
        acted = exchange.turn in ("question", "unclear") and bool(exchange.command)
        if acted:
            exchange.ack = (await self._act(exchange)).members()
            members |= {"command": exchange.command, "ack": exchange.ack}
        if exchange.unclear:
            members["unclear"] = exchange.unclear
        self._report(exchange, "answered", members)
        texts, prompts = self._rule.follow_up, self._services.prompts
        if exchange.unclear and exchange.turn == "question" and texts.unclear is not None:
            await self._next(
                exchange, "unclear", f"{prompts.fill(texts.unclear)}\n\n{form(self._rule.commands)}"
            )
        elif acted and texts.acted is not None:
            await self._next(exchange, "acted", f"{prompts.fill(texts.acted)}\n\n{_outcome(exchange)}")
        elif texts.ended is not None and exchange.conditional and exchange.turn != "ended":
            exchange.phase = "open"
            await self._save()
        else:
            return False
        return True

    async def _next(self, exchange: Exchange, turn: Turn, message: str) -> None:
        exchange.turn, exchange.phase, exchange.message = turn, "waiting", message
        exchange.began, exchange.sends = stamp(self._services.clock), 0
        exchange.answer, exchange.cut, exchange.unclear = "", False, ""
        await self._save()

    async def _save(self) -> None:
        await self._services.state_file.save()

    # -- the command of an answer ----------------------------------------

    async def _act(self, exchange: Exchange) -> Ack:
        """Carry out the chosen command as any caller's: access, lease, limits, Journal."""
        id_ = f"{exchange.id}-{exchange.turn}"
        allowed = self._rule.commands.get(exchange.command)
        if why := self._why_not(exchange):
            return self._refuse(id_, exchange, allowed.device if allowed is not None else "", why)
        assert allowed is not None
        ack = await carry_out(self._services.executor, allowed, self._actor, id_)
        return replace(ack, repeated=False)

    def _why_not(self, exchange: Exchange) -> str:
        """Why the command is refused before it is tried; empty if it is not."""
        if exchange.command not in self._rule.commands:
            return "the list of commands has changed since the question"
        if exchange.conditional and not self._state.active:
            return "what asked does not hold any more"
        late_s, limit_s = age_s(exchange.began, self._services.clock), self._rule.act_within_s
        if late_s > limit_s:
            return f"the answer came {late_s:.0f} s after the question; act_within_s is {limit_s:g}"
        return ""

    def _refuse(self, id_: str, exchange: Exchange, device: str, why: str) -> Ack:
        now_ms, who = self._services.clock.now_ms(), self._actor.label
        self._services.journal.actuation(now_ms, who, device, exchange.command, "rejected", f"expired: {why}")
        log.warning("delegation_command_refused", delegation=self._name, command=exchange.command, why=why)
        return Ack(id_, AckState.REJECTED, error=Fault("expired", why))

    # -- events ----------------------------------------

    def _fail(self, exchange: Exchange, failure: ExchangeFailed) -> None:
        why, state = printable(str(failure), 300), failure.state
        log.warning("delegation_failed", delegation=self._name, turn=exchange.turn, state=state, why=why)
        self._report(exchange, state, {"error": Fault("internal", why).members()})

    def _report(self, exchange: Exchange, state: str, members: dict[str, Any]) -> None:
        """Announce an event, and keep it for callers that come later."""
        event: dict[str, Any] = {
            "at": self._services.clock.now_ms(),
            "delegation": self._name,
            "id": exchange.id,
            "turn": exchange.turn,
            "state": state,
            "cause": exchange.cause,
            "asked_at": exchange.asked_at_ms,
        }
        if exchange.do:
            event["do"] = exchange.do
        self._state.last = event | members
        self._announce(self._name, self._state.last)


def _outcome(exchange: Exchange) -> str:
    """The outcome of a command, for the AI agent."""
    ack = Ack.from_members(exchange.ack)
    text = f"{exchange.command}: {ack.state}"
    if ack.error is not None:
        text += f" ({ack.error.code}: {ack.error.message})"
    elif ack.verified:
        text += ", read back from the hardware"
    return text
