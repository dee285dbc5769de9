"""One delegation: asks by its schedule or for a caller, and leads each question to its end."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import structlog

from device_agent.config.delegation import Delegation
from device_agent.delegation.exchange import Exchange
from device_agent.delegation.exchange_runner import Announce, ExchangeRunner
from device_agent.delegation.services import DelegationServices
from device_agent.errors import Rejected
from device_agent.records import Action, Argument, Value
from device_agent.text.printable import printable
from device_agent.triggers.schedule import Schedule
from device_agent.triggers.timestamps import stamp

log = structlog.get_logger("delegation")

ASK = "ask"
QUESTION_MAX = 2000


class DelegationRule:
    """Implements `delegation_action.DelegationAction`; `run` does the asking."""

    def __init__(self, name: str, rule: Delegation, services: DelegationServices, announce: Announce) -> None:
        self.name = name
        self.rule = rule
        self.state = services.state_file.rules[name]
        self.schedule = Schedule(name, rule, self.state, services.prompts.present, services.clock)
        self._state_file = services.state_file
        self._prompts = services.prompts
        self._clock = services.clock
        self._runner = ExchangeRunner(name, rule, self.state, services, announce)
        self._beginning = asyncio.Lock()
        self._superseded = False
        self._saved = self._schedule_state()

    def __repr__(self) -> str:
        exchange = self.state.exchange
        return f"<DelegationRule {self.name}: {exchange.phase if exchange else 'idle'}>"

    # -- asking ----------------------------------------

    async def run(self) -> None:
        """Ask when it is due and lead what was asked to its end, until cancelled."""
        while True:
            if self.state.exchange is not None:
                await self._lead(self.state.exchange)
                continue
            self.schedule.changed.clear()
            if cause := self.schedule.due():
                async with self._beginning:
                    if self.state.exchange is None:
                        await self.begin(cause, conditional=self.schedule.conditional)
                continue
            if self._saved != self._schedule_state() and await self._state_file.save():
                self._saved = self._schedule_state()
            await self.schedule.changed.wait()

    async def _lead(self, exchange: Exchange) -> None:
        while await self._runner.run(exchange):
            if not await self._until_condition_ended():
                break  # a caller's question takes its place
            await self._runner.condition_ended(exchange)
        if self.state.exchange is exchange:
            self.state.exchange = None
        await self._state_file.save()

    async def _until_condition_ended(self) -> bool:
        """False if a new question came first."""
        while self.state.active and not self._superseded:
            self.schedule.changed.clear()
            await self.schedule.changed.wait()
        superseded, self._superseded = self._superseded, False
        return not superseded

    def _schedule_state(self) -> tuple[object, ...]:
        """What changes without a question and is to be stored."""
        return self.state.active, self.state.served, self.state.day, self.state.turn_of

    async def begin(self, cause: str, *, conditional: bool, asked: str = "", do: str = "") -> bool:
        """Store a new question; whether it is on the disk. `do`: the id of the command that asked."""
        message = await self._prompts.question(self.rule, asked)
        now, state = stamp(self._clock), self.state
        before = list(state.asks)
        self.schedule.acted()
        state.served = state.served or conditional
        state.exchange = Exchange(
            id=secrets.token_hex(6),
            cause=printable(cause, 200),
            conditional=conditional,
            do=do,
            asked_at_ms=self._clock.now_ms(),
            began=now,
            message=message,
        )
        log.info("delegation_begins", delegation=self.name, cause=state.exchange.cause)
        saved = await self._state_file.save()
        if not saved and do:
            state.exchange, state.asks = None, before
        return saved

    # -- a caller's `do` ----------------------------------------

    @property
    def action(self) -> Action:
        """The action by which a caller asks."""
        wanted = (Argument("question", type="string", description="What is to be asked."),)
        arguments = wanted if self.rule.asks_question else ()
        agent = self.rule.agent or "an AI agent"
        return Action(ASK, arguments, moves=False, description=f"Asks {agent}; the answer comes as an event.")

    async def ask(self, args: Mapping[str, Value], who: str, id_: str) -> None:
        """A caller asks. Returns when the question is stored; raises Rejected."""
        asked = str(args.get("question", ""))
        if len(asked) > QUESTION_MAX:
            raise Rejected("invalid_value", f"ask.question is longer than {QUESTION_MAX} characters")
        self.check()
        async with self._beginning:
            self.check()
            if self.state.exchange is not None:
                self._superseded = True
            asked = "".join(c for c in asked if c == "\n" or c.isprintable())
            if not await self.begin(f"asked by {who}", conditional=False, asked=asked, do=id_):
                raise Rejected("internal", "the question could not be stored: the disk is full or broken")
        self.schedule.changed.set()

    def check(self) -> None:
        """Raises Rejected `too_soon` while nothing may be asked."""
        exchange = self.state.exchange
        if exchange is not None and exchange.phase != "open":
            raise Rejected("too_soon", f"{self.name} waits for the answer to its last question")
        if (left_s := self.schedule.wait_s()) > 0:
            raise Rejected("too_soon", f"{self.name} may ask again in {left_s:.0f} s by the owner's limits")

    # -- for the owner ----------------------------------------

    def status(self) -> dict[str, Any]:
        """The members that `device-agent status` shows."""
        state, exchange = self.state, self.state.exchange
        shown: dict[str, Any] = {"delegation": self.name, "state": exchange.phase if exchange else "idle"}
        if self.schedule.conditional:
            shown["holds"] = state.active
        if exchange is not None:
            shown |= {"turn": exchange.turn, "cause": exchange.cause, "session": exchange.session}
            if exchange.page:
                shown["page"] = exchange.page
        if self._runner.trouble:
            shown["trouble"] = self._runner.trouble
        shown |= {"asked_today": len(self.schedule.today()), "max_per_day": self.rule.max_per_day}
        if (left_s := self.schedule.wait_s()) > 0:
            shown["may_ask_in_s"] = round(left_s)
        if state.last:
            shown["last"] = state.last
        return shown
