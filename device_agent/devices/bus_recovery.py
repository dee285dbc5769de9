"""What is done about a bus that fails: a recovery of few, limited, counted steps, the gentle ones first.

Each device asks again (`retry`) before anything is lost. A bus is then opened again (`reopen`), clocked free
(`clear`), its hardware given a fresh start (`rebind`) and its devices' supply switched (`power`), as far as
its configuration allows.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from device_agent.bus.clear import clear_i2c
from device_agent.bus.config import BusConfig, ClearConfig, PowerConfig
from device_agent.bus.core import Bus, BusState
from device_agent.bus.gpio import GpioBus, OutputLine
from device_agent.clock import Clock
from device_agent.errors import BusError, BusGone

log = structlog.get_logger("bus")

# How often each step is tried before the next one; opening again goes on for ever beside.
REOPEN_TRIES = 3
HARD_TRIES = 2
# When all were tried, the last step is repeated this seldom: a relay and a sensor shall outlive years of it.
HARD_AGAIN_S = 900.0
STEP_LIMIT_S = 10.0
PIN_LIMIT_S = 2.0
PIN_AGAIN_S = 10.0
# How long chips take to start after they got their power back.
POWER_UP_S = 0.5


@dataclass(slots=True)
class RecoveryStep:
    """One step with its figures; the supervisor opens the bus after it. `act` may have nothing to do."""

    name: str
    act: Callable[[], Awaitable[None]] | None
    tried: int = 0
    helped: int = 0
    failed: int = 0
    """How often the step itself could not be done; `error` says why, "" when it could the last time."""
    error: str = ""


class PowerPin:
    """The line that feeds a bus's devices; claimed with power on as long as its own bus is open."""

    def __init__(self, config: PowerConfig, pins: Bus) -> None:
        self._config = config
        self._pins = pins
        self._line: OutputLine | None = None
        self._trouble = f"bus {pins.name} is not open"

    async def run(self) -> None:
        """Until cancelled."""
        pins = self._pins
        while True:
            await pins.until(BusState.OPEN)
            with pins.in_use("power"):
                try:
                    self._line = await pins.run(self._claim, PIN_LIMIT_S)
                    await pins.until_not_open()
                except BusError as error:
                    if self._trouble != str(error):
                        log.warning(
                            "power_line_not_held", bus=pins.name, line=self._config.line, error=str(error)
                        )
                    self._trouble = str(error)
                finally:
                    await self._close()
            if pins.state is BusState.OPEN:
                await asyncio.sleep(PIN_AGAIN_S)

    async def _close(self) -> None:
        line, self._line = self._line, None
        try:
            if line is not None:
                await self._pins.run_anyway(line.close, PIN_LIMIT_S)
        except BusError as error:
            log.debug("close_failed", bus=self._pins.name, line=self._config.line, error=str(error))

    def _claim(self) -> OutputLine:
        pins, config = self._pins.handle, self._config
        assert isinstance(pins, GpioBus)
        return pins.output(config.line, active=True, active_low=config.active_low)

    async def cycle(self) -> None:
        """Power off and on again. Raises BusError where the line is not held."""
        line = self._line
        if line is None:
            raise BusGone(f"the power line {self._config.line} is not held: {self._trouble}")
        await self._pins.run(lambda: line.write(False), PIN_LIMIT_S)
        try:
            await asyncio.sleep(self._config.off_s)
        finally:
            await self._pins.run(lambda: line.write(True), PIN_LIMIT_S)
        await asyncio.sleep(POWER_UP_S)


class RecoveryPolicy:
    """Of one bus. `take_next_step` while it is closed, before it is opened again."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        config: BusConfig | None = None,
        *,
        pins: Bus | None = None,
        power: PowerPin | None = None,
    ) -> None:
        """`pins` is the bus that `config.clear` names, `power` the line of `config.power`."""
        self._bus = bus
        self._clock = clock
        self._power = power
        self._last: RecoveryStep | None = None
        self._taken = 0
        self._hard_s = -HARD_AGAIN_S
        self._logged = ""
        clear: ClearConfig | None = getattr(config, "clear", None)
        detaches = clear is not None or bool(getattr(config, "rebind", False))
        # What a step before took off and could not put back is put back first.
        self.steps = [RecoveryStep("reopen", self._put_back if detaches else None)]
        if clear is not None and pins is not None:
            self.steps.append(RecoveryStep("clear", lambda: self._clear(clear, pins)))
        if getattr(config, "rebind", False):
            self.steps.append(RecoveryStep("rebind", self._rebind))
        if power is not None:
            self.steps.append(RecoveryStep("power", power.cycle))
        hard = [step for step in self.steps[1:] for _ in range(HARD_TRIES)]
        self._plan = [self.steps[0]] * REOPEN_TRIES + hard

    def __repr__(self) -> str:
        last = self._last.name if self._last is not None else "none"
        return f"<RecoveryPolicy: last step {last}, {self._taken} of {len(self._plan)} taken>"

    def figures(self) -> dict[str, dict[str, Any]]:
        """Every step that may be taken, with how often it was tried, helped, and could not be done."""
        figures: dict[str, dict[str, Any]] = {
            "retry": {"tried": self._bus.retries, "helped": self._bus.retries_helped, "failed": 0}
        }
        for step in self.steps:
            figures[step.name] = {"tried": step.tried, "helped": step.helped, "failed": step.failed}
            if step.error:
                figures[step.name]["error"] = step.error
        return figures

    def note_success(self) -> None:
        """Something on the bus works: the step before it helped, and the next failure begins anew."""
        if self._last is not None:
            self._last.helped += 1
            log.info("bus_recovered", bus=self._bus.name, by=self._last.name)
        self._last, self._taken, self._logged = None, 0, ""

    @property
    def exhausted(self) -> bool:
        """Whether every step was taken in vain: from here on there is no hurry."""
        return self._taken >= len(self._plan)

    async def take_next_step(self) -> None:
        """Take the next step; never raises for a step that fails."""
        await self._take(self._next())

    async def free_stuck_thread(self) -> None:
        """The bus's thread hangs inside a call: only its devices' power can be taken from here."""
        power = next((step for step in self.steps if step.name == "power"), None)
        if power is not None and self._may_be_hard():
            self._hard_s = self._clock.monotonic_s()
            await self._take(power)

    def _next(self) -> RecoveryStep:
        if self._taken < len(self._plan):
            step = self._plan[self._taken]
            self._taken += 1
        else:
            step = self.steps[-1] if self._may_be_hard() else self.steps[0]
        if step is not self.steps[0]:
            self._hard_s = self._clock.monotonic_s()
        return step

    def _may_be_hard(self) -> bool:
        return self._clock.monotonic_s() - self._hard_s >= HARD_AGAIN_S

    async def _take(self, step: RecoveryStep) -> None:
        step.tried += 1
        self._last = step
        if step.act is None:
            return
        step.error = ""
        try:
            await step.act()
        except BusError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error  # it failed to put back what the end interrupted
            step.failed += 1
            step.error = str(error)
        logged = f"{step.name} {step.error}"
        if logged != self._logged and (step is not self.steps[0] or step.error):
            self._logged = logged
            log.warning("bus_recovery", bus=self._bus.name, step=step.name, error=step.error or None)

    # -- steps ----------------------------------------

    async def _put_back(self) -> None:
        await self._bus.run_anyway(self._bus.handle.attach, STEP_LIMIT_S)

    async def _rebind(self) -> None:
        handle = self._bus.handle
        await self._bus.run_anyway(handle.detach, STEP_LIMIT_S)
        await self._bus.run_anyway(handle.attach, STEP_LIMIT_S)

    async def _clear(self, config: ClearConfig, pins: Bus) -> None:
        """With the controller off the lines: it would fight, and its driver muxes the pins back to it."""
        handle = self._bus.handle
        await self._bus.run_anyway(handle.detach, STEP_LIMIT_S)
        try:
            gpio = pins.handle
            assert isinstance(gpio, GpioBus)
            pulses = await pins.run(lambda: clear_i2c(gpio, config.scl, config.sda), STEP_LIMIT_S)
            log.info("bus_cleared", bus=self._bus.name, pulses=pulses)
        finally:
            await self._bus.run_anyway(handle.attach, STEP_LIMIT_S)
