"""One question from its words to its end: sent, stored, polled, answered, acted on, followed up.

Each step is durable before the next begins. A question is asked once; only where nobody can know whether the
service heard it (a crash or a broken connection between request and answer) it is asked a second time, and
never a third: the service has no key to tell a repetition, and a session costs money. What a session says
moves nothing here that was not read from the one session whose id is stored.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.config.delegation import Delegation
from device_agent.delegation.answer import choice, clean, form, presentable
from device_agent.delegation.prompt_builder import PromptBuilder
from device_agent.delegation.rate_limit import RateLimit
from device_agent.delegation.state_file import Exchange, Turn
from device_agent.delegation.timestamps import age_s, stamp
from device_agent.errors import Fault, NetworkError, Refused
from device_agent.messages.acks import Ack
from device_agent.network.sessions_api import SessionsApi, may_exist

log = structlog.get_logger("delegation")

SENDS_MAX = 2
# A disk that takes nothing now is tried again this late: nothing is asked that could not be remembered.
DISK_RETRY_S = 10.0

Act = Callable[[Exchange], Awaitable[Ack]]
"""Carries out the command that an exchange names."""
Say = Callable[[Exchange, str, dict[str, Any]], None]
"""An event about an exchange: state, and members that go with it."""


class ExchangeRunner:
    """Leads one rule's exchanges, one at a time."""

    def __init__(
        self,
        name: str,
        rule: Delegation,
        api: SessionsApi,
        pace: RateLimit,
        writer: PromptBuilder,
        clock: Clock,
        *,
        save: Callable[[], Awaitable[bool]],
        act: Act,
        say: Say,
        until_ended: Callable[[], Awaitable[bool]],
    ) -> None:
        """`until_ended` returns True when what asked holds no more, False when a new question came."""
        self.trouble = ""
        """Why the service cannot be asked now; empty if it can."""
        self._name = name
        self._rule = rule
        self._api = api
        self._pace = pace
        self._writer = writer
        self._clock = clock
        self._save = save
        self._act = act
        self._say = say
        self._until_ended = until_ended

    async def lead(self, exchange: Exchange) -> None:
        """Until the exchange is over. A crash goes on from the step that was stored last."""
        going = True
        while going:
            match exchange.phase:
                case "waiting":
                    going = await self._send(exchange)
                case "asked":
                    going = await self._poll(exchange)
                case "answered":
                    going = await self._answered(exchange)
                case _:
                    going = await self._until_ended()
                    if going:
                        await self._next(exchange, "ended", self._rule.follow_up.ended or "")
        self.trouble = ""

    # -- out ----------------------------------------

    async def _send(self, exchange: Exchange) -> bool:
        tries = 0
        while True:
            if exchange.sends >= SENDS_MAX:
                self._over(
                    exchange, "unknown", f"sent {SENDS_MAX} times, and never known whether it was heard"
                )
                return False
            if self._left_s(exchange) <= 0:
                self._over(
                    exchange, "no_answer", f"it could not be sent: {self.trouble or 'no time was left'}"
                )
                return False
            await self._pace.turn()
            exchange.sends += 1
            if not await self._save():
                exchange.sends -= 1
                await asyncio.sleep(DISK_RETRY_S)
                continue
            try:
                await self._send_once(exchange)
            except NetworkError as error:
                if not may_exist(error):
                    exchange.sends -= 1
                    if isinstance(error, Refused) and error.status not in (429, 503):
                        self._over(exchange, "failed", str(error))
                        return False
                self._note(error)
                await asyncio.sleep(self._wait_s(exchange, self._pace.retry_after_s(error, tries)))
                tries += 1
                continue
            self.trouble = ""
            exchange.phase, exchange.message, exchange.sends = "asked", "", 0
            # A disk that fails now costs a second session after a crash, not this one.
            await self._save()
            log.info("delegation_asked", delegation=self._name, turn=exchange.turn, session=exchange.session)
            self._say(exchange, "asked", {})
            return True

    async def _send_once(self, exchange: Exchange) -> None:
        if exchange.session:
            exchange.final_message = await self._api.follow_up(exchange.session, exchange.message)
            return
        rule = self._rule
        agent = {"agent_name": rule.agent, "agent_id": rule.agent_id, "profile": rule.profile}
        given = {name: value for name, value in agent.items() if value is not None}
        opened = await self._api.create(given, exchange.message, private=rule.private)
        exchange.session, exchange.final_message, exchange.page = opened

    # -- in ----------------------------------------

    async def _poll(self, exchange: Exchange) -> bool:
        polls, tries = 0, 0
        wait_s = self._pace.poll_after_s(0)
        while True:
            await asyncio.sleep(self._wait_s(exchange, wait_s))
            # Looked at once at least: the answer to what was asked before a long night may be there.
            await self._pace.turn()
            try:
                text = await self._api.final_message(exchange.final_message)
            except NetworkError as error:
                if isinstance(error, Refused) and error.status in (400, 404, 410):
                    self._over(exchange, "failed", str(error))
                    return False
                self._note(error)
                wait_s = self._pace.retry_after_s(error, tries)
                tries += 1
            else:
                self.trouble, tries = "", 0
                if text is not None:
                    await self._take(exchange, text)
                    return True
                polls += 1
                wait_s = self._pace.poll_after_s(polls)
            if self._left_s(exchange) <= 0:
                self._over(exchange, "no_answer", f"no answer within {self._rule.answer_within_s:g} s")
                return False

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
            answer=clean(exchange.answer, 200),
        )

    # -- on ----------------------------------------

    async def _answered(self, exchange: Exchange) -> bool:
        members: dict[str, Any] = {"answer": exchange.answer}
        if exchange.cut:
            members["cut"] = True
        acted = exchange.turn in ("question", "unclear") and bool(exchange.command)
        if acted:
            exchange.ack = (await self._act(exchange)).members()
            members |= {"command": exchange.command, "ack": exchange.ack}
        if exchange.unclear:
            members["unclear"] = exchange.unclear
        self._say(exchange, "answered", members)
        texts = self._rule.follow_up
        if exchange.unclear and exchange.turn == "question" and texts.unclear is not None:
            message = f"{self._writer.filled(texts.unclear)}\n\n{form(self._rule.commands)}"
            return await self._next(exchange, "unclear", message)
        if acted and texts.acted is not None:
            return await self._next(
                exchange, "acted", f"{self._writer.filled(texts.acted)}\n\n{_told(exchange)}"
            )
        if texts.ended is not None and exchange.conditional and exchange.turn != "ended":
            exchange.phase = "open"
            await self._save()
            return True
        return False

    async def _next(self, exchange: Exchange, turn: Turn, message: str) -> bool:
        if turn == "ended":
            message = self._writer.filled(message)
        exchange.turn, exchange.phase, exchange.message = turn, "waiting", message
        exchange.began, exchange.sends = stamp(self._clock), 0
        exchange.answer, exchange.cut, exchange.unclear = "", False, ""
        await self._save()
        return True

    def _over(self, exchange: Exchange, state: str, why: str) -> None:
        why = clean(why, 300)
        log.warning("delegation_over", delegation=self._name, turn=exchange.turn, state=state, why=why)
        self._say(exchange, state, {"error": Fault("internal", why).members()})

    # -- waiting ----------------------------------------

    def _left_s(self, exchange: Exchange) -> float:
        return self._rule.answer_within_s - age_s(exchange.began, self._clock)

    def _wait_s(self, exchange: Exchange, wish_s: float) -> float:
        """No longer than the question still has."""
        return max(0.0, min(wish_s, self._left_s(exchange)))

    def _note(self, error: NetworkError) -> None:
        told = clean(str(error), 300)
        if not self.trouble:
            log.warning("delegation_waits", delegation=self._name, error=told)
        self.trouble = told


def _told(exchange: Exchange) -> str:
    """The outcome of a command, for the AI agent."""
    ack = Ack.from_members(exchange.ack)
    told = f"{exchange.command}: {ack.state}"
    if ack.error is not None:
        told += f" ({ack.error.code}: {ack.error.message})"
    elif ack.verified:
        told += ", read back from the hardware"
    return told
