"""Keeps buses open: opens, waits for a fault, lets everybody go, closes, opens again. Says it once."""

import asyncio
import random

import structlog

from device_agent.bus.core import Bus, BusState
from device_agent.clock import Clock
from device_agent.errors import BusError

log = structlog.get_logger("bus")

REOPEN_FIRST_S = 0.25
REOPEN_MAX_S = 10.0
# Users of a lost medium close what they took; a stuck one must not keep the others out for longer.
LET_GO_LIMIT_S = 5.0
# A thread stuck for this long will not come back: only a new process can use the bus again.
STUCK_LIMIT_S = 60.0


class BusKeeper:
    """The life of one bus."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self.bus = bus
        self.tried = asyncio.Event()
        """Set after the first try to open, whether it worked or not."""
        self._clock = clock
        self._stuck_since_s: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        delay_s = REOPEN_FIRST_S
        said = ""
        while True:
            try:
                await self.bus.open()
            except (BusError, ImportError) as error:
                # An optional library that is missing is a fault of this bus alone, and says its own name.
                self.bus.last_error = str(error)
                if said != str(error):
                    said = str(error)
                    log.warning("bus_not_opened", bus=self.bus.name, error=said)
                self.tried.set()
                await asyncio.sleep(random.uniform(0.5, 1.0) * delay_s)
                delay_s = min(REOPEN_MAX_S, delay_s * 2)
                continue
            log.info("bus_open", bus=self.bus.name)
            self.tried.set()
            said, delay_s = "", REOPEN_FIRST_S
            await self.bus.until(BusState.FAULTED, BusState.CLOSED)
            log.warning("bus_lost", bus=self.bus.name, error=self.bus.last_error)
            # Close before opening again, or the medium comes back under another name.
            await self.bus.until_unused(LET_GO_LIMIT_S)
            await self.bus.close()

    def stuck_too_long(self) -> bool:
        """Whether the bus's thread hangs for so long that only a new process helps."""
        if not self.bus.stuck:
            self._stuck_since_s = None
            return False
        now_s = self._clock.monotonic_s()
        self._stuck_since_s = self._stuck_since_s or now_s
        return now_s - self._stuck_since_s > STUCK_LIMIT_S
