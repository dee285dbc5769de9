"""How an alert's messages reach the owner: kept until they are taken, each tried again through outages."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from device_agent.background import Backoff
from device_agent.config.automation import Alert
from device_agent.config.secret import child_environment
from device_agent.text.printable import printable

if TYPE_CHECKING:
    import aiohttp

log = structlog.get_logger("alerts")

# The oldest of more give way: what is on now matters more than what was on.
WAITING_MAX = 50
TRY_LIMIT_S = 30.0
AGAIN_FIRST_S = 2.0
AGAIN_MAX_S = 300.0
WHY_MAX = 200


class NotTaken(Exception):
    """Why a message has not arrived."""


class Delivery:
    """One alert's way out. `waiting` is stored by the owner of this object."""

    def __init__(
        self,
        name: str,
        alert: Alert,
        waiting: list[dict[str, Any]],
        session: "Callable[[], aiohttp.ClientSession]",
    ) -> None:
        self.trouble = ""
        """Why the oldest message waits; empty if it does not."""
        self.dropped = 0
        self._name = name
        self._alert = alert
        self._waiting = waiting
        self._session = session
        self._backoff = Backoff(AGAIN_FIRST_S, AGAIN_MAX_S)
        self._added = asyncio.Event()

    def add(self, message: dict[str, Any]) -> None:
        """It is to be sent after those that wait."""
        self._waiting.append(message)
        self._added.set()
        if (excess := len(self._waiting) - WAITING_MAX) > 0:
            del self._waiting[:excess]
            self.dropped += excess
            log.error("alert_dropped", alert=self._name, dropped=self.dropped, why=self.trouble)

    async def run(self) -> None:
        """Send what waits, oldest first, until cancelled."""
        while True:
            if not self._waiting:
                self._added.clear()
                await self._added.wait()
            await asyncio.sleep(await self.send(self._waiting[0]))

    async def send(self, message: dict[str, Any]) -> float:
        """Try one message; 0 if it was taken, else the seconds until the next try."""
        try:
            async with asyncio.timeout(TRY_LIMIT_S):
                await (self._post(message) if self._alert.webhook else self._run(message))
        except (NotTaken, TimeoutError, OSError) as error:
            why = printable(str(error) or f"no answer within {TRY_LIMIT_S:g} s", WHY_MAX)
            if why != self.trouble:
                log.warning("alert_not_sent", alert=self._name, why=why)
            self.trouble = why
            return self._backoff.next_s()
        log.info("alert_sent", alert=self._name, state=message["state"], cause=message["cause"])
        self.trouble = ""
        self._backoff.reset()
        # It may have been dropped for newer ones meanwhile.
        if self._waiting and self._waiting[0] is message:
            del self._waiting[0]
        return 0.0

    async def _post(self, message: dict[str, Any]) -> None:
        import aiohttp

        assert self._alert.webhook is not None
        try:
            async with self._session().post(
                self._alert.webhook, json=message, allow_redirects=False
            ) as response:
                if not 200 <= response.status < 300:
                    raise NotTaken(f"the webhook answers {response.status}")
        except aiohttp.ClientError as error:
            raise NotTaken(f"the webhook cannot be reached: {type(error).__name__}") from error

    async def _run(self, message: dict[str, Any]) -> None:
        child = await asyncio.create_subprocess_exec(
            *self._alert.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
        )
        try:
            await child.communicate(json.dumps(message).encode() + b"\n")
        finally:
            if child.returncode is None:
                # With its own children, which would outlive it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
        if child.returncode:
            raise NotTaken(f"{self._alert.command[0]} ended with {child.returncode}")
