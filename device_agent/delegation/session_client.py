"""Sends a question to the service and polls for its answer, with retries.

A question is sent once. Only where it cannot be known whether the service received it (a crash or a broken
connection between request and answer) it is sent a second time, and never a third: the service has no
idempotency key, and a session costs money.
"""

import asyncio

import structlog

from device_agent.config.delegation import Delegation
from device_agent.delegation.exchange import Exchange
from device_agent.delegation.services import DelegationServices
from device_agent.errors import NetworkError, Refused
from device_agent.network.sessions_api import may_exist
from device_agent.text.printable import printable
from device_agent.triggers.timestamps import age_s

log = structlog.get_logger("delegation")

SENDS_MAX = 2
# Nothing is asked that could not be remembered; a disk that takes nothing is tried again after this.
DISK_RETRY_S = 10.0


class ExchangeFailed(Exception):
    """An exchange ends without an answer. `state` is the one of its event."""

    def __init__(self, state: str, why: str) -> None:
        super().__init__(why)
        self.state = state


class SessionClient:
    """For one delegation."""

    def __init__(self, name: str, rule: Delegation, services: DelegationServices) -> None:
        self.trouble = ""
        """Why the service cannot be asked now; empty if it can."""
        self._name = name
        self._rule = rule
        self._services = services

    def reset(self) -> None:
        """The exchange is over; the next one begins without trouble."""
        self.trouble = ""

    async def send(self, exchange: Exchange) -> None:
        """Until the service has the message; then `exchange` says where its answer will be.

        Raises ExchangeFailed.
        """
        rate_limit, tries = self._services.rate_limit, 0
        while True:
            if exchange.sends >= SENDS_MAX:
                raise ExchangeFailed(
                    "unknown", f"sent {SENDS_MAX} times, and never known whether it was received"
                )
            if self._left_s(exchange) <= 0:
                raise ExchangeFailed(
                    "no_answer", f"it could not be sent: {self.trouble or 'no time was left'}"
                )
            await rate_limit.acquire()
            exchange.sends += 1
            if not await self._services.state_file.save():
                exchange.sends -= 1
                await asyncio.sleep(DISK_RETRY_S)
                continue
            try:
                await self._send_once(exchange)
            except NetworkError as error:
                if not may_exist(error):
                    exchange.sends -= 1
                    if isinstance(error, Refused) and error.status not in (429, 503):
                        raise ExchangeFailed("failed", str(error)) from error
                self._note(error)
                await asyncio.sleep(self._bounded_s(exchange, rate_limit.retry_after_s(error, tries)))
                tries += 1
            else:
                self.trouble = ""
                return

    async def _send_once(self, exchange: Exchange) -> None:
        api, rule = self._services.api, self._rule
        if exchange.session:
            exchange.final_message = await api.follow_up(exchange.session, exchange.message)
            return
        agent = {"agent_name": rule.agent, "agent_id": rule.agent_id, "profile": rule.profile}
        chosen = {name: value for name, value in agent.items() if value is not None}
        opened = await api.create(chosen, exchange.message, private=rule.private)
        exchange.session, exchange.final_message, exchange.page = opened

    async def answer(self, exchange: Exchange) -> str:
        """The text of the answer, polled at least once. Raises ExchangeFailed."""
        rate_limit, polls, tries = self._services.rate_limit, 0, 0
        wait_s = rate_limit.poll_after_s(0)
        while True:
            await asyncio.sleep(self._bounded_s(exchange, wait_s))
            await rate_limit.acquire()
            try:
                text = await self._services.api.final_message(exchange.final_message)
            except NetworkError as error:
                if isinstance(error, Refused) and error.status in (400, 404, 410):
                    raise ExchangeFailed("failed", str(error)) from error
                self._note(error)
                wait_s = rate_limit.retry_after_s(error, tries)
                tries += 1
            else:
                self.trouble, tries = "", 0
                if text is not None:
                    return text
                polls += 1
                wait_s = rate_limit.poll_after_s(polls)
            if self._left_s(exchange) <= 0:
                raise ExchangeFailed("no_answer", f"no answer within {self._rule.answer_within_s:g} s")

    def _left_s(self, exchange: Exchange) -> float:
        return self._rule.answer_within_s - age_s(exchange.began, self._services.clock)

    def _bounded_s(self, exchange: Exchange, wait_s: float) -> float:
        """No longer than the question may still wait."""
        return max(0.0, min(wait_s, self._left_s(exchange)))

    def _note(self, error: NetworkError) -> None:
        text = printable(str(error), 300)
        if not self.trouble:
            log.warning("delegation_waits", delegation=self._name, error=text)
        self.trouble = text
