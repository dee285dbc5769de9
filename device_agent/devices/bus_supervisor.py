"""Keeps a bus open: opens it, waits for a fault, waits for its users to let go, closes it, opens it again."""

import asyncio
from typing import Any

import structlog

from device_agent.background import Backoff, first_of
from device_agent.bus.core import JOBS_MAX, Bus
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
    """Of one bus. `recovery` is what is done about its failures, beside opening it again."""

    def __init__(self, bus: Bus, clock: Clock, recovery: RecoveryPolicy | None = None) -> None:
        self.bus = bus
        self.recovery = recovery or RecoveryPolicy(bus, clock)
        self.tried = asyncio.Event()
        """Set after the first try to open, whether it worked or not."""
        self._clock = clock
        self._stuck_since_s: float | None = None

    def __repr__(self) -> str:
        return f"<BusSupervisor of {self.bus!r}, {self.recovery!r}>"

    async def run(self) -> None:
        """Until cancelled. Each failure is logged once, however often it comes in a row."""
        backoff = Backoff(REOPEN_FIRST_S, REOPEN_MAX_S)
        logged = lost = ""
        while True:
            try:
                await self.bus.open()
            except (BusError, ImportError) as error:
                # An optional library that is missing is a fault of this bus alone.
                if logged != str(error):
                    logged = str(error)
                    log.warning("bus_not_opened", bus=self.bus.name, error=logged)
                self.tried.set()
                await first_of(self.bus.until_hurried(), limit_s=backoff.next_s())
                await self.recovery.take_next_step()
                continue
            if not lost:
                log.info("bus_open", bus=self.bus.name)
            self.tried.set()
            logged = ""
            await self._while_open()
            if self.bus.proven or not self.recovery.exhausted:
                backoff.reset()
            if self.bus.proven or lost != self.bus.last_error:
                lost = self.bus.last_error
                log.warning("bus_lost", bus=self.bus.name, error=lost)
            # Close before opening again, or the medium comes back under another name.
            await self.bus.until_unused(LET_GO_LIMIT_S)
            await self.bus.close()
            await self.recovery.take_next_step()
            await first_of(self.bus.until_hurried(), limit_s=backoff.next_s())

    async def _while_open(self) -> None:
        """Until the bus is lost; a call in which its thread hangs may be ended from outside."""
        lost, noted = None, False
        while lost is None:
            waits = [self.bus.until_not_open(), self.bus.until_stuck(True)]
            lost, stuck, *_ = await first_of(*waits, *([] if noted else [self.bus.until_proven()]))
            if self.bus.proven and not noted:
                self.recovery.note_success()
            noted = self.bus.proven
            if lost is None and stuck is not None:
                (freed,) = await first_of(self.bus.until_stuck(False), limit_s=FREE_LIMIT_S)
                if freed is None:
                    await self.recovery.free_stuck_thread()
                    await self.bus.until_stuck(False)

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
