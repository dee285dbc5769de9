"""One configured driver at work: its schedule, its stamps, its health.

A failing driver takes only itself down and is opened again, later each time. Lost and back are said once.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from device_agent.bus.core import Bus, BusState
from device_agent.clock import Clock
from device_agent.devices.actuator_hooks import ActuatorHooks
from device_agent.devices.byte_listeners import Watchers, while_watched
from device_agent.devices.listening import Listening, present_of
from device_agent.devices.reading_builder import ReadingBuilder
from device_agent.driver import Actuator, Driver, DriverConfig, Listener, Sensor
from device_agent.errors import (
    BadReading,
    BusBusy,
    BusError,
    BusFaulted,
    BusGone,
    BusTimeout,
    DriverError,
    NoAnswer,
)
from device_agent.records import (
    DeviceState,
    File,
    Flagged,
    Point,
    Reading,
    ReadingSubscriber,
    Status,
    Step,
    Value,
    Values,
)

log = structlog.get_logger("device")

# A chip that misses one question is asked again at once; only the third miss in a row means that it is gone.
READ_TRIES = 3
RETRY_PAUSE_S = 0.1
# Reading waits patiently for its turn: thirty thermometers on one wire take 0.75 s each.
TURN_LIMIT_S = 30.0
# Opening again: soon enough that a replugged sensor is back within seconds, seldom enough to spare the bus.
REOPEN_FIRST_S = 0.5
REOPEN_MAX_S = 15.0
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
# A caller may ask for readings this often at most, whatever the configuration says.
FASTEST_S = 0.05


NOT_OPENED = "not opened yet"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a write: read back values where the hardware can be asked."""

    read_back: Mapping[str, Value]


class Device:
    """`run` is its life. Everything else may be called at any time and raises while it is not online."""

    def __init__(
        self,
        name: str,
        driver_class: type[Driver[Any, Any]],
        config: DriverConfig,
        bus: Bus,
        clock: Clock,
        subscriber: ReadingSubscriber,
        hooks: ActuatorHooks | None = None,
    ) -> None:
        self.name = name
        self.driver_class = driver_class
        self.config = config
        self.bus = bus
        self.state = DeviceState.OFFLINE
        self.reason = "absent"
        self.detail = NOT_OPENED
        self.latest: Reading | None = None
        self._builder = ReadingBuilder(name, driver_class, config, clock)
        self.points: dict[str, Point] = self._builder.points
        self.losses = 0
        self.watchers = Watchers()
        self._clock = clock
        self._subscriber = subscriber
        self._hooks = hooks if hooks is not None and self.is_actuator else ActuatorHooks()
        self._driver: Driver[Any, Any] | None = None
        self._said = False
        self._demands: dict[str, float] = {}
        self._asking = asyncio.Lock()
        self._demand_changed = asyncio.Event()
        self._rng = random.Random()

    # -- what it is ----------------------------------------

    @property
    def is_actuator(self) -> bool:
        return issubclass(self.driver_class, Actuator) and any(p.write for p in self.points.values())

    @property
    def safe_values(self) -> dict[str, Value]:
        """The safe value of each writable point; empty for what does not move."""
        if not issubclass(self.driver_class, Actuator):
            return {}
        return dict(self.driver_class.safe_of(self.config))

    @property
    def period_s(self) -> float | None:
        """Seconds between readings; None for what is only told."""
        return self.config.every_s or self.driver_class.default_every_s

    @property
    def present(self) -> Status:
        """The present health, as an event would say it."""
        return Status(self.name, self._clock.now_ms(), self.state, "" if self.online else self.reason)

    @property
    def online(self) -> bool:
        return self.state is DeviceState.ONLINE

    @property
    def fastest_s(self) -> float | None:
        """Seconds between readings as configured or, sooner, as a session wants them."""
        return min([*filter(None, [self.period_s]), *self._demands.values()], default=None)

    def demand(self, who: str, every_s: float | None) -> None:
        """A session wants readings this often (None: no wish any more)."""
        if every_s is None:
            self._demands.pop(who, None)
        else:
            self._demands[who] = max(FASTEST_S, every_s)
        self._demand_changed.set()

    # -- life ----------------------------------------

    async def run(self) -> None:
        """Open, work, close, wait, again, until cancelled."""
        delay_s = REOPEN_FIRST_S
        # One driver for the life of the device: what it counted survives an unplugged cable.
        driver = self.driver_class(self.config, self._hooks.handle(self.bus.handle))
        while True:
            await self.bus.until(BusState.OPEN)
            self.bus.users += 1
            try:
                made = await self.bus.run(lambda: self._hooks.open(self.name, driver), OPEN_TIMEOUT_S)
                self._hooks.opened(self.name, made)
                self._driver = driver
                self._builder.staleness.begin(self._clock.monotonic_s())
                if not isinstance(driver, Sensor | Listener):
                    self.bus.well()
                delay_s = REOPEN_FIRST_S
                await self._work(driver)
            except (BusError, DriverError) as error:
                self._lost(error, getattr(error, "reason", "driver_error"))
                await self._leave_safe()
            except Exception as error:
                log.exception("driver_failed", device=self.name)
                self._lost(error, "driver_error")
                await self._leave_safe()
            finally:
                self._driver = None
                try:
                    await self._close(driver)
                    await self._hooks.closed(self.name)
                finally:
                    self.bus.let_go()
            if await self._wait_on_bus(self._rng.uniform(0.5, 1.0) * delay_s):
                delay_s = min(REOPEN_MAX_S, delay_s * 2)
            else:
                delay_s = REOPEN_FIRST_S  # what was done about the bus deserves a try at once

    async def _wait_on_bus(self, delay_s: float) -> bool:
        """False as soon as the bus is not open."""
        try:
            async with asyncio.timeout(delay_s):
                await self.bus.until(BusState.FAULTED, BusState.CLOSED)
        except TimeoutError:
            return True
        return False

    async def _leave_safe(self) -> None:
        """A device that gives up may still obey: what it was last told must not stay."""
        driver = self._driver
        if not isinstance(driver, Actuator) or self.bus.state is not BusState.OPEN:
            return
        try:
            await self.bus.run(driver.safe, CLOSE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - it is lost already, and opening it again makes it safe
            log.debug("not_safe_when_lost", device=self.name, error=str(error))

    async def _close(self, driver: Driver[Any, Any]) -> None:
        try:
            if self.bus.state is BusState.OPEN:
                await self.bus.run(driver.close, CLOSE_TIMEOUT_S)
            else:
                # The medium is gone: closing is a system call on a dead descriptor and must still happen.
                await self.bus.run_anyway(driver.close, CLOSE_TIMEOUT_S)
        except (BusError, DriverError) as error:
            log.debug("close_failed", device=self.name, error=str(error))
        except Exception:
            log.exception("driver_failed_to_close", device=self.name)

    async def _work(self, driver: Driver[Any, Any]) -> None:
        if isinstance(driver, Listener) and driver.on_demand:
            self.now_online()
            await while_watched(self.watchers, self.bus, driver, self._listen, self._close)
        elif isinstance(driver, Listener):
            await self._listen(driver)
        elif isinstance(driver, Sensor):
            await self._poll(driver)
        else:
            self.now_online()
            await self.bus.until(BusState.FAULTED, BusState.CLOSED)

    def now_online(self) -> None:
        if not self.online:
            self.state, self.reason, self.detail = DeviceState.ONLINE, "", ""
            log.info("device_online", device=self.name)
            self._said = True
            self._subscriber.on_status(Status(self.name, self._clock.now_ms(), DeviceState.ONLINE))

    def _lost(self, error: BaseException, reason: str) -> None:
        was_online, before = self.online, self.reason
        if self._said and not was_online and isinstance(error, (BusBusy, BusFaulted)):
            return  # the bus that could not be used tells less than what was said before
        absent = reason in ("absent", "unplugged", "timeout", "bus_fault", "busy", "permission")
        self.state = DeviceState.OFFLINE if absent else DeviceState.FAULT
        self.reason, self.detail = reason, str(error)
        if isinstance(error, BusGone):
            self.bus.fault(error)
        elif isinstance(error, BusTimeout) or (
            isinstance(error, BusError)
            and reason == "bus_fault"
            and not isinstance(error, (BusBusy, BusFaulted))
        ):
            self.bus.ill(error)
        if was_online or reason != before or not self._said:
            self._said = True
            self.losses += was_online
            log.warning("device_lost", device=self.name, reason=reason, error=str(error))
            self._subscriber.on_status(
                Status(self.name, self._clock.now_ms(), self.state, reason, str(error))
            )

    async def _listen(self, driver: Listener[Any, Any]) -> None:
        await Listening(driver, self, self._builder, self._clock, self._demand_changed).run(self._subscriber)

    # -- asked ----------------------------------------

    async def _poll(self, driver: Sensor[Any, Any]) -> None:
        next_s = self._clock.monotonic_s()
        while True:
            self.emit(await self._read_patiently(driver))
            period_s = self.fastest_s or 10.0
            now_s = self._clock.monotonic_s()
            # Missed turns are not made up for: one reading now, then on the same beat.
            next_s = max(next_s + period_s, now_s)
            await self._pause(next_s - now_s)

    async def _pause(self, delay_s: float) -> None:
        self._demand_changed.clear()
        waits = [
            asyncio.ensure_future(self.bus.until(BusState.FAULTED, BusState.CLOSED)),
            asyncio.ensure_future(self._demand_changed.wait()),
        ]
        try:
            done, _ = await asyncio.wait(waits, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if waits[0] in done:
            raise self.bus.loss()

    async def _read_patiently(self, driver: Sensor[Any, Any]) -> Reading:
        for tries_left in range(READ_TRIES - 1, -1, -1):
            try:
                reading = await self._read_once(driver)
                self.bus.retries_helped += tries_left < READ_TRIES - 1
                return reading
            except (NoAnswer, BadReading, BusBusy):
                if not tries_left:
                    raise
                self.bus.retries += 1
                await asyncio.sleep(RETRY_PAUSE_S)
        raise AssertionError("unreachable")

    async def _read_once(self, driver: Sensor[Any, Any]) -> Reading:
        # One question at a time: another trigger in between would spoil the first one's answer.
        async with self._asking:
            if driver.settle_s > 0:
                await self.bus.run(driver.trigger, self.bus.timeout_s, turn_s=TURN_LIMIT_S)
                await asyncio.sleep(driver.settle_s)
            values = await self.bus.run(driver.read, self.bus.timeout_s, turn_s=TURN_LIMIT_S)
        self.bus.well()
        self.now_online()
        return self._builder.measured(values, self._clock.monotonic_s())

    def emit(self, reading: Reading) -> None:
        """This is the device's newest reading."""
        self.latest = reading
        self._subscriber.on_reading(reading)

    # -- questions and commands ----------------------------------------

    def _need(self) -> Driver[Any, Any]:
        if self._driver is None or not self.online:
            raise NoAnswer(
                f"device {self.name} is {self.state} ({self.reason or 'no answer'}): {self.detail}"
            )
        return self._driver

    async def read_now(self) -> Reading:
        """A fresh reading where the device can be asked, else the last one. Raises BusError, DriverError."""
        driver = self._need()
        if isinstance(driver, Sensor):
            return await self._read_patiently(driver)
        if isinstance(driver, Listener) and (values := present_of(driver, self._clock)) is not None:
            return self._builder.present(values)
        if self.latest is not None:
            return self.latest
        raise NoAnswer(f"device {self.name} has said nothing yet")

    async def write(self, values: Mapping[str, Value], *, may_begin: Callable[[], None]) -> WriteResult:
        """Set points. `may_begin` runs on the bus's thread right before, and raises if it came too late.

        Raises BusTimeout when it is not known whether it happened.
        """
        driver = self._need()
        if not isinstance(driver, Actuator):
            raise DriverError(f"device {self.name} has nothing to set")

        def job() -> Values:
            may_begin()
            return driver.write(values)

        read_back = await self.bus.run(job, self.bus.timeout_s)
        plain = {k: v.value if isinstance(v, Flagged) else v for k, v in (read_back or {}).items()}
        self._note_written(driver, {**values, **plain})
        return WriteResult(plain)

    async def do(
        self, action: str, args: Mapping[str, Value], *, may_begin: Callable[[], None]
    ) -> list[Step] | File:
        """Carry out an action; the steps it returns are the caller's to carry out. Raises as `write`."""
        driver = self._need()

        def job() -> list[Step] | File:
            may_begin()
            given = driver.do(action, args) or ()
            return given if isinstance(given, File) else list(given)

        return await self.bus.run(job, self.bus.timeout_s)

    async def safe(self) -> None:
        """Every actuator point to its safe value, now. Raises BusError, DriverError."""
        driver = self._driver
        if not isinstance(driver, Actuator):
            return
        await self.bus.run(driver.safe, self.bus.timeout_s)
        self._note_written(driver, self.safe_values)

    async def send_bytes(self, data: bytes) -> None:
        """Pass bytes to the device's bytes side. Raises BusError, DriverError."""
        driver = self._need()
        await self.bus.run(lambda: driver.write_bytes(data), self.bus.timeout_s)

    def _note_written(self, driver: Driver[Any, Any], values: Mapping[str, Value]) -> None:
        """Callers see what a command changed at once, not at the next period."""
        self.emit(self._builder.commanded(values, self.latest))
