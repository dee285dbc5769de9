"""One delegation at work: when it asks, what its answer may move, what is said about it."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.commands.authorization import Actor
from device_agent.commands.executor import CommandExecutor
from device_agent.config.delegation import Delegation, holder
from device_agent.delegation.answer import clean
from device_agent.delegation.exchange_runner import ExchangeRunner
from device_agent.delegation.prompt_builder import PromptBuilder
from device_agent.delegation.rate_limit import RateLimit
from device_agent.delegation.state_file import Exchange, RuleState, StateFile
from device_agent.delegation.timestamps import DAY_S, age_s, stamp, today, wait_s
from device_agent.delegation.trigger import TriggerState
from device_agent.errors import Fault, Rejected
from device_agent.messages.acks import Ack, AckState
from device_agent.messages.commands import Command, Do, Set
from device_agent.network import Caller
from device_agent.network.sessions_api import SessionsApi
from device_agent.records import Action, Argument, Reading, Status, Value
from device_agent.store.journal.journal import Journal

log = structlog.get_logger("delegation")

ASK = "ask"
QUESTION_MAX = 2000
ASKS_MAX = 1000

Announce = Callable[[str, dict[str, Any]], None]


class DelegationRule:
    """`run` is its life. Implements `askable.Askable`."""

    def __init__(
        self,
        name: str,
        rule: Delegation,
        book: StateFile,
        api: SessionsApi,
        pace: RateLimit,
        writer: PromptBuilder,
        executor: CommandExecutor,
        journal: Journal,
        clock: Clock,
        announce: Announce,
    ) -> None:
        self.name = name
        self.rule = rule
        self.state: RuleState = book.rules[name]
        self._book = book
        self._writer = writer
        self._executor = executor
        self._journal = journal
        self._clock = clock
        self._announce = announce
        self._changed = asyncio.Event()
        self._born = stamp(clock)
        self._beginning = asyncio.Lock()
        self._superseded = False
        self._saved = self._small()
        self._actor = Actor(holder(name), f"delegation {name}", Caller())
        when = rule.when
        timed = when is None or when.timed
        self.condition = None if timed or when is None else TriggerState(when, active=self.state.active)
        self._conductor = ExchangeRunner(
            name,
            rule,
            api,
            pace,
            writer,
            clock,
            save=book.save,
            act=self._act,
            say=self._say,
            until_ended=self._until_ended,
        )

    # -- news ----------------------------------------

    def heard(self, reading: Reading) -> None:
        """A reading of any device."""
        when = self.rule.when
        if self.condition is None or when is None or reading.device != when.device:
            return
        if when.point:
            self.condition.value(reading.values.get(when.point), reading.monotonic_s)
            self._follow()

    def told(self, status: Status) -> None:
        """A device came, went or failed."""
        if self.condition is not None and self.rule.when and status.device == self.rule.when.device:
            self.condition.state(status.state, self._clock.monotonic_s())
            self._follow()

    def tick(self) -> None:
        """Time went by."""
        if self.condition is not None:
            self.condition.tick(self._clock.monotonic_s())
            self._follow()
        self._changed.set()

    def _follow(self) -> None:
        assert self.condition is not None
        state = self.state
        if state.active != self.condition.active:
            state.active = self.condition.active
            if not state.active:
                state.served = False
            self._changed.set()

    # -- life ----------------------------------------

    async def run(self) -> None:
        """Ask when it is time, lead what was asked to its end, until cancelled."""
        while True:
            exchange = self.state.exchange
            if exchange is not None:
                await self._conductor.lead(exchange)
                if self.state.exchange is exchange:
                    self.state.exchange = None
                await self._book.save()
                continue
            self._changed.clear()
            if cause := self._due():
                async with self._beginning:
                    if self.state.exchange is None:
                        await self._begin(cause, conditional=self.condition is not None)
                continue
            if self._saved != self._small() and await self._book.save():
                self._saved = self._small()
            await self._changed.wait()

    def _small(self) -> tuple[object, ...]:
        """What is stored without a question being asked."""
        return self.state.active, self.state.served, self.state.day, self.state.turn_of

    def _due(self) -> str:
        """Why it is time to ask; empty if it is not."""
        when, state = self.rule.when, self.state
        if when is None:
            return ""
        if when.at is not None:
            return self._due_at(when.at)
        if when.every_s is not None:
            if state.turn_of is None:
                state.turn_of = stamp(self._clock)
            if age_s(state.turn_of, self._clock) < when.every_s:
                return ""
            state.turn_of = stamp(self._clock)
            return self._unless_too_soon(f"every {when.every_s:g} s")
        if not state.active or state.served or wait_s(state.asks, self.rule, self._clock) > 0:
            return ""  # what still holds when the wait is over is asked about then
        return self._why()

    def _due_at(self, at: str) -> str:
        day, reached = today(at, self._clock)
        if not day or day == self.state.day:
            return ""
        first = not self.state.day
        if not reached:
            return ""
        self.state.day = day
        # A rule that was written a moment ago does not ask about a time that has passed.
        return "" if first and age_s(self._born, self._clock) < 60 else self._unless_too_soon(f"at {at}")

    def _unless_too_soon(self, cause: str) -> str:
        if (left_s := wait_s(self.state.asks, self.rule, self._clock)) > 0:
            log.warning("delegation_not_asked", delegation=self.name, cause=cause, again_in_s=round(left_s))
            return ""
        return cause

    def _why(self) -> str:
        when = self.rule.when
        assert when is not None
        if when.status:
            return f"{when.device} is {self._writer.state_of(when.device)}"
        return f"{when.device}.{when.point} = {self._writer.filled(f'{{{when.device}.{when.point}}}')}"

    async def _begin(self, cause: str, *, conditional: bool, asked: str = "", do: str = "") -> bool:
        message = await self._writer.question(self.rule, asked)
        now = stamp(self._clock)
        state = self.state
        before = list(state.asks)
        today_s = [one for one in state.asks if age_s(one, self._clock) < DAY_S]
        state.asks = [*today_s[-ASKS_MAX:], now]
        state.served = state.served or conditional
        state.exchange = Exchange(
            id=secrets.token_hex(6),
            cause=clean(cause, 200),
            conditional=conditional,
            do=do,
            asked_at_ms=self._clock.now_ms(),
            began=now,
            message=message,
        )
        log.info("delegation_begins", delegation=self.name, cause=state.exchange.cause)
        saved = await self._book.save()
        if not saved and do:
            state.exchange, state.asks = None, before
        return saved

    async def _until_ended(self) -> bool:
        assert self.condition is not None
        while self.state.active and not self._superseded:
            self._changed.clear()
            await self._changed.wait()
        superseded, self._superseded = self._superseded, False
        return not superseded

    # -- a caller's `do` ----------------------------------------

    @property
    def action(self) -> Action:
        """What a caller may `do` with it."""
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
            if not await self._begin(f"asked by {who}", conditional=False, asked=asked, do=id_):
                raise Rejected("internal", "the question could not be stored: the disk is full or broken")
        self._changed.set()

    def check(self) -> None:
        """Raises Rejected `too_soon` while nothing may be asked."""
        exchange = self.state.exchange
        if exchange is not None and exchange.phase != "open":
            raise Rejected("too_soon", f"{self.name} waits for the answer to its last question")
        if (left_s := wait_s(self.state.asks, self.rule, self._clock)) > 0:
            raise Rejected("too_soon", f"{self.name} may ask again in {left_s:.0f} s by the owner's limits")

    # -- the answer ----------------------------------------

    async def _act(self, exchange: Exchange) -> Ack:
        """The named command, by the way of any caller's: access, lease, limits, Journal."""
        allowed = self.rule.commands.get(exchange.command)
        id_ = f"{exchange.id}-{exchange.turn}"
        if allowed is None:
            return self._refused(id_, exchange, "", "the list of commands has changed since the question")
        if exchange.conditional and not self.state.active:
            return self._refused(id_, exchange, allowed.device, "what asked does not hold any more")
        if (late_s := age_s(exchange.began, self._clock)) > self.rule.act_within_s:
            limit_s = self.rule.act_within_s
            why = f"the answer came {late_s:.0f} s after the question; act_within_s is {limit_s:g}"
            return self._refused(id_, exchange, allowed.device, why)
        command: Command
        if allowed.action:
            command = Do(
                kind="do", id=id_, device=allowed.device, action=allowed.action, args=dict(allowed.args)
            )
        else:
            command = Set(kind="set", id=id_, device=allowed.device, values=dict(allowed.values))
        try:
            ack = await self._executor.execute(command, self._actor, age_ms=0.0, for_s=allowed.for_s)
        finally:
            self._executor.leases.release(self._actor.holder)
        return replace(ack, repeated=False)

    def _refused(self, id_: str, exchange: Exchange, device: str, why: str) -> Ack:
        now_ms = self._clock.now_ms()
        self._journal.actuation(
            now_ms, self._actor.label, device, exchange.command, "rejected", f"expired: {why}"
        )
        log.warning("delegation_command_refused", delegation=self.name, command=exchange.command, why=why)
        return Ack(id_, AckState.REJECTED, error=Fault("expired", why))

    # -- what is said ----------------------------------------

    def _say(self, exchange: Exchange, state: str, members: dict[str, Any]) -> None:
        told: dict[str, Any] = {
            "delegation": self.name,
            "id": exchange.id,
            "turn": exchange.turn,
            "state": state,
            "cause": exchange.cause,
            "asked_at": exchange.asked_at_ms,
        }
        if exchange.do:
            told["do"] = exchange.do
        told |= members
        self.state.last = {"at": self._clock.now_ms(), **told}
        self._announce(self.name, self.state.last)

    def status(self) -> dict[str, Any]:
        """For the owner."""
        state, exchange = self.state, self.state.exchange
        told: dict[str, Any] = {"delegation": self.name, "state": exchange.phase if exchange else "idle"}
        if self.condition is not None:
            told["holds"] = state.active
        if exchange is not None:
            told |= {"turn": exchange.turn, "cause": exchange.cause, "session": exchange.session}
            if exchange.page:
                told["page"] = exchange.page
        if self._conductor.trouble:
            told["trouble"] = self._conductor.trouble
        asked = [one for one in state.asks if age_s(one, self._clock) < DAY_S]
        told |= {"asked_today": len(asked), "max_per_day": self.rule.max_per_day}
        if (left_s := wait_s(state.asks, self.rule, self._clock)) > 0:
            told["may_ask_in_s"] = round(left_s)
        if state.last:
            told["last"] = state.last
        return told
