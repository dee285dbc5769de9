"""Keeps buses open: opens, waits for a fault, lets everybody go, closes, opens again. Says it once."""

import asyncio
import random
from typing import Any

import structlog

from device_agent.bus.core import JOBS_MAX, Bus, BusState
from device_agent.clock import Clock
from device_agent.devices.bus_recovery import RecoveryPolicy
from device_agent.errors import BusError

log = structlog.get_logger("bus")

REOPEN_FIRST_S = 0.25
REOPEN_MAX_S = 10.0
# Users of a lost medium close what they took; a stuck one must not keep the others out for longer.
LET_GO_LIMIT_S = 5.0
# A thread stuck for this long will not come back: only a new process can use the bus again.
STUCK_LIMIT_S = 60.0
# A call that hangs for longer is not just slow.
FREE_LIMIT_S = 5.0


class BusSupervisor:
    """The life of one bus. `recovery` is what is done about its failures, beside opening it again."""

    def __init__(self, bus: Bus, clock: Clock, recovery: RecoveryPolicy | None = None) -> None:
        self.bus = bus
        self.recovery = recovery or RecoveryPolicy(bus, clock)
        self.tried = asyncio.Event()
        """Set after the first try to open, whether it worked or not."""
        self._clock = clock
        self._stuck_since_s: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        delay_s = REOPEN_FIRST_S
        said = lost = ""
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
                await self.recovery.climb()
                continue
            if not lost:
                log.info("bus_open", bus=self.bus.name)
            self.tried.set()
            said = ""
            await self._while_open()
            if self.bus.proven or not self.recovery.at_top:
                delay_s = REOPEN_FIRST_S
            if self.bus.proven or lost != self.bus.last_error:
                lost = self.bus.last_error
                log.warning("bus_lost", bus=self.bus.name, error=lost)
            # Close before opening again, or the medium comes back under another name.
            await self.bus.until_unused(LET_GO_LIMIT_S)
            await self.bus.close()
            await self.recovery.climb()
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay_s)
            delay_s = min(REOPEN_MAX_S, delay_s * 2)

    async def _while_open(self) -> None:
        """Until the bus is lost; a call in which its thread hangs may be helped from outside."""
        lost = asyncio.ensure_future(self.bus.until(BusState.FAULTED, BusState.CLOSED))
        try:
            while not lost.done():
                stuck = asyncio.ensure_future(self.bus.until_stuck(True))
                await asyncio.wait([lost, stuck], return_when=asyncio.FIRST_COMPLETED)
                stuck.cancel()
                if not lost.done() and not await self._freed_by_itself():
                    await self.recovery.free()
                    await self.bus.until_stuck(False)
        finally:
            lost.cancel()

    async def _freed_by_itself(self) -> bool:
        try:
            async with asyncio.timeout(FREE_LIMIT_S):
                await self.bus.until_stuck(False)
        except TimeoutError:
            return False
        return True

    def figures(self) -> dict[str, Any]:
        """State, faults and recoveries, for `status`."""
        bus = self.bus
        figures: dict[str, Any] = {"bus": bus.name, "kind": bus.handle.kind, "state": bus.state}
        if bus.stuck:
            figures["stuck"] = True
        figures |= {"faults": bus.faults, "jobs": bus.waiting, "jobs_max": JOBS_MAX}
        if bus.last_error:
            figures["last_error"] = bus.last_error
        return figures | {"recovery": self.recovery.figures()}

    def stuck_too_long(self) -> bool:
        """Whether the bus's thread hangs for so long that only a new process helps."""
        if not self.bus.stuck:
            self._stuck_since_s = None
            return False
        now_s = self._clock.monotonic_s()
        self._stuck_since_s = self._stuck_since_s or now_s
        return now_s - self._stuck_since_s > STUCK_LIMIT_S
