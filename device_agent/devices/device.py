"""One configured driver at work: opened, polled or listened to, written, lost, and opened again.

A failing driver takes only itself down and is opened again, later each time. Each loss and each return is
logged once.
"""

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import structlog

from device_agent.background import Backoff, first_of
from device_agent.bus.core import Bus, BusState, Call, Urgency
from device_agent.bus.serial import SerialBus
from device_agent.clock import Clock
from device_agent.devices.actuator_hooks import ActuatorHooks
from device_agent.devices.heard import Heard
from device_agent.devices.listening import Listening, Watchers, present_of, while_watched
from device_agent.devices.reading_builder import ReadingBuilder
from device_agent.driver import Actuator, Driver, DriverConfig, Listener, Sensor
from device_agent.errors import (
    BadReading,
    BusBusy,
    BusError,
    BusFaulted,
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
# A reading may wait so long for the bus: thirty thermometers on one wire take 0.75 s each.
QUEUE_LIMIT_S = 30.0
# Opening again: soon enough that a replugged sensor is back within seconds, seldom enough to spare the bus.
REOPEN_FIRST_S = 0.5
REOPEN_MAX_S = 15.0
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
# A caller may ask for readings this often at most, whatever the configuration says.
SHORTEST_PERIOD_S = 0.05
# Reasons for which a lost device is `offline`; for all others it is in `fault`.
ABSENT = frozenset({"absent", "unplugged", "timeout", "bus_fault", "busy", "permission"})
NOT_OPENED = "not opened yet"
SAYS_NOTHING = "has said nothing yet"

T = TypeVar("T")


class Device:
    """`run` keeps it open. Everything else may be called at any time and raises while it is not online."""

    def __init__(
        self,
        name: str,
        driver_class: type[Driver[Any, Any]],
        config: DriverConfig,
        bus: Bus,
        clock: Clock,
        subscriber: ReadingSubscriber,
        hooks: ActuatorHooks | None = None,
        kept: dict[str, float] | None = None,
    ) -> None:
        """`kept` is what its driver keeps over restarts, and changes."""
        self.name = name
        self.driver_class = driver_class
        self.config = config
        self.bus = bus
        self.state = DeviceState.OFFLINE
        self.reason = "absent"
        self.detail = NOT_OPENED
        self.latest: Reading | None = None
        self.readings = 0
        self._builder = ReadingBuilder(name, driver_class, config, clock)
        self.points: dict[str, Point] = self._builder.points
        self.watchers = Watchers()
        self._clock = clock
        self._subscriber = subscriber
        self._kept = {} if kept is None else kept
        hooks = hooks or ActuatorHooks()
        told = hooks.concerns(name, is_actuator=self.is_actuator)
        self._hooks = hooks if told else ActuatorHooks()
        self._driver: Driver[Any, Any] | None = None
        self.tried = asyncio.Event()
        """Set after the first try to open, whether it worked or not."""
        self._state_reported = False
        self._noted: dict[str, int | str] = {}
        self._heard = Heard(clock.monotonic_s)
        self._demands: dict[str, float] = {}
        self._asking = asyncio.Lock()
        self._hurry = asyncio.Event()
        """Set while somebody waits for it to be opened, which makes it safe."""
        self._writes = self._made_safe = 0
        """How often it was set, and made safe; counted on the bus's thread."""
        self._demand_changed = asyncio.Event()

    def __repr__(self) -> str:
        why = "" if self.online else f" ({self.reason}: {self.detail})"
        return f"<Device {self.name} {self.state}{why}>"

    # -- what it is ----------------------------------------

    @property
    def is_actuator(self) -> bool:
        return issubclass(self.driver_class, Actuator) and any(p.write for p in self.points.values())

    @property
    def confirms(self) -> bool:
        """Whether what was set is known to be; see :meth:`device_agent.driver.Actuator.confirms`."""
        return issubclass(self.driver_class, Actuator) and self.driver_class.confirms(self.config)

    @property
    def safe_values(self) -> dict[str, Value]:
        """The safe value of each writable point; empty for what does not move."""
        if not issubclass(self.driver_class, Actuator):
            return {}
        return dict(self.driver_class.safe_of(self.config))

    @property
    def period_s(self) -> float | None:
        """Seconds between readings; None for a device that speaks by itself and is never polled."""
        return self.config.every_s or self.driver_class.default_every_s

    @property
    def _call_limit_s(self) -> float:
        """Of one call of the driver, or one step of a call: the bus's, or longer where its options say so."""
        return max(self.bus.timeout_s, self.driver_class.step_limit_s(self.config))

    @property
    def present(self) -> Status:
        """The present state, as a `status` event reports it."""
        return Status(self.name, self._clock.now_ms(), self.state, "" if self.online else self.reason)

    @property
    def online(self) -> bool:
        return self.state is DeviceState.ONLINE

    @property
    def awaited(self) -> bool:
        """Whether it was opened and may yet say something: its first `status` follows either way."""
        return self.detail == SAYS_NOTHING and not self._state_reported

    @property
    def effective_period_s(self) -> float | None:
        """Seconds between readings: as configured or, if that is sooner, as a session asked for."""
        return min([*filter(None, [self.period_s]), *self._demands.values()], default=None)

    @property
    def notes(self) -> dict[str, int | str]:
        """What its driver has to say of it while it is open; see :meth:`device_agent.driver.Driver.notes`."""
        if self._driver is None:
            return {}
        trouble = {"not_understood": text} if (text := self._not_understood()) else {}
        return {**self._driver.notes(), **trouble}

    def _not_understood(self) -> str:
        handle = self.bus.handle
        return self._heard.trouble(handle.baud, handle.frame) if isinstance(handle, SerialBus) else ""

    def demand(self, who: str, every_s: float | None) -> None:
        """A session asks for a reading every so many seconds; None withdraws that."""
        if every_s is None:
            self._demands.pop(who, None)
        else:
            self._demands[who] = max(SHORTEST_PERIOD_S, every_s)
        self._demand_changed.set()

    # -- open, work, close, wait, again ----------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(REOPEN_FIRST_S, REOPEN_MAX_S)
        # One driver for all openings: what it counted survives an unplugged cable.
        driver = self.driver_class(self.config, self._hooks.handle(self.bus.handle))
        driver.keep(self._kept)
        while True:
            await self.bus.until(BusState.OPEN)
            # Whoever asks from here on, also while it is being closed, has it opened once more at once.
            self._hurry.clear()
            with self.bus.in_use(self.name):
                try:
                    await self._open(driver)
                    backoff.reset()
                    await self._work(driver)
                except (BusError, DriverError) as error:
                    self._lost(error, getattr(error, "reason", "driver_error"))
                    await self._make_safe_when_lost()
                except Exception as error:
                    log.exception("driver_failed", device=self.name)
                    self._lost(error, "driver_error")
                    await self._make_safe_when_lost()
                finally:
                    self._driver = None
                    await self._close(driver)
                    await self._hooks.closed(self.name)
            bus_closed, _ = await first_of(
                self.bus.until_not_open(), self._hurry.wait(), limit_s=backoff.next_s()
            )
            if bus_closed is not None:
                backoff.reset()  # a bus that is opened again deserves a try at once

    async def _open(self, driver: Driver[Any, Any]) -> None:
        # Opening makes an actuator safe.
        urgency = Urgency.SAFE if self.is_actuator else Urgency.ROUTINE
        limit_s = max(OPEN_TIMEOUT_S, self._call_limit_s)
        try:
            opened = await self._run(lambda: self._hooks.open(self.name, driver), limit_s, urgency=urgency)
        finally:
            self.tried.set()
        self._hooks.opened(self.name, opened)
        self._driver = driver
        self._builder.staleness.begin(self._clock.monotonic_s())
        if not isinstance(driver, Sensor | Listener):
            self.bus.note_success()

    async def _make_safe_when_lost(self) -> None:
        """A device that gives up may still obey: what was set last must not stay."""
        driver = self._driver
        if not isinstance(driver, Actuator) or self.bus.state is not BusState.OPEN:
            return
        try:
            await self._run(driver.safe, max(CLOSE_TIMEOUT_S, self._call_limit_s), urgency=Urgency.SAFE)
        except Exception as error:  # noqa: BLE001 - it is lost already, and opening it again makes it safe
            log.debug("not_safe_when_lost", device=self.name, error=str(error))

    async def _close(self, driver: Driver[Any, Any]) -> None:
        try:
            if self.bus.state is BusState.OPEN:
                await self._run(driver.close, CLOSE_TIMEOUT_S)
            else:
                # The medium is gone: closing is a system call on a dead descriptor and must still happen.
                await self.bus.run_anyway(driver.close, CLOSE_TIMEOUT_S)
        except (BusError, DriverError) as error:
            log.debug("close_failed", device=self.name, error=str(error))
        except Exception:
            log.exception("driver_failed_to_close", device=self.name)

    async def _work(self, driver: Driver[Any, Any]) -> None:
        if isinstance(driver, Listener) and driver.on_demand:
            self.mark_online()
            await while_watched(
                self.watchers, self.bus, lambda: self._listen(driver), lambda: self._close(driver)
            )
        elif isinstance(driver, Listener):
            await self._listen(driver)
        elif isinstance(driver, Sensor):
            await self._poll(driver)
        else:
            self.mark_online()
            await self.bus.until_not_open()

    def mark_online(self) -> None:
        """It has just worked."""
        if not self.online:
            self.state, self.reason, self.detail = DeviceState.ONLINE, "", ""
            log.info("device_online", device=self.name)
            self._state_reported = True
            self._subscriber.on_status(Status(self.name, self._clock.now_ms(), DeviceState.ONLINE))

    def mark_silent(self) -> None:
        """It is open, and only what it says will prove that it is there."""
        self.detail = SAYS_NOTHING

    def mark_unheard(self) -> None:
        """It has said nothing for a while, or nothing that its driver understands."""
        trouble = self._not_understood()
        state, reason = (DeviceState.FAULT, "not_understood") if trouble else (DeviceState.OFFLINE, "absent")
        same = self._state_reported and (state, reason) == (self.state, self.reason)
        self.state, self.reason, self.detail = state, reason, trouble or SAYS_NOTHING
        if not same:
            self._report_lost()

    def _report_lost(self) -> None:
        self._state_reported = True
        log.warning("device_lost", device=self.name, reason=self.reason, error=self.detail)
        self._subscriber.on_status(
            Status(self.name, self._clock.now_ms(), self.state, self.reason, self.detail)
        )

    def _lost(self, error: BaseException, reason: str) -> None:
        was_online, before = self.online, self.reason
        if self._state_reported and not was_online and isinstance(error, (BusBusy, BusFaulted)):
            return  # that the bus cannot be used says less than what was reported before
        self.state = DeviceState.OFFLINE if reason in ABSENT else DeviceState.FAULT
        self.reason, self.detail = reason, str(error)
        self.bus.note_failure(self.name, error)
        if was_online or reason != before or not self._state_reported:
            self._report_lost()

    async def _listen(self, driver: Listener[Any, Any]) -> None:
        await Listening(driver, self, self._builder, self._clock, self._demand_changed, self._heard).run(
            self._subscriber
        )

    # -- reading ----------------------------------------

    async def _poll(self, driver: Sensor[Any, Any]) -> None:
        next_s = self._clock.monotonic_s()
        while True:
            self.emit(await self._read_patiently(driver))
            period_s = self.effective_period_s or 10.0
            now_s = self._clock.monotonic_s()
            # Readings that were missed are not made up for: one now, then at the same times as before. One
            # that came early, because a session asked for a shorter period, begins that period.
            next_s = min(max(next_s + period_s, now_s), now_s + period_s)
            await self._pause(next_s - now_s)

    async def _pause(self, delay_s: float) -> None:
        self._demand_changed.clear()
        gone, *_ = await first_of(
            self.bus.until_not_open(),
            self._demand_changed.wait(),
            self.bus.until_doubted(self.name),
            limit_s=delay_s,
        )
        if gone is not None:
            raise self.bus.loss()

    async def _read_patiently(self, driver: Sensor[Any, Any]) -> Reading:
        for tries_left in range(READ_TRIES - 1, -1, -1):
            try:
                reading = await self._read_once(driver)
                if tries_left < READ_TRIES - 1:
                    self.bus.note_retry(helped=True)
                return reading
            except (NoAnswer, BadReading, BusBusy):
                if not tries_left:
                    raise
                self.bus.note_retry(helped=False)
                await asyncio.sleep(RETRY_PAUSE_S)
        raise AssertionError("unreachable")

    async def _read_once(self, driver: Sensor[Any, Any]) -> Reading:
        # One question at a time: another trigger in between would spoil the first one's answer.
        async with self._asking:
            if driver.settle_s > 0:
                await self._run(driver.trigger, queue_s=QUEUE_LIMIT_S)
                await asyncio.sleep(driver.settle_s)
            values: Values = await self._run(
                lambda: self._read_in_steps(driver), queue_s=QUEUE_LIMIT_S, restarts=True
            )
        self.bus.note_success()
        self.mark_online()
        self._log_notes()
        return self._builder.measured(values, self._clock.monotonic_s())

    def _log_notes(self) -> None:
        before, self._noted = self._noted, self.notes
        for about, text in self._noted.items():
            if isinstance(text, str) and before.get(about) != text:
                log.warning("device_note", device=self.name, about=about, text=text)

    def _read_in_steps(self, driver: Sensor[Any, Any]) -> Generator[None, None, Values]:
        """On the bus's thread. One that was set in the middle of it is read anew."""
        values: Values = {}
        for _ in range(READ_TRIES):
            before = self._writes, self._made_safe
            values = yield from driver.read_steps()
            if before == (self._writes, self._made_safe):
                break
        return values

    def emit(self, reading: Reading) -> None:
        """Pass on the device's newest reading."""
        self.take(reading)
        self._subscriber.on_readings((reading,))

    def take(self, reading: Reading) -> None:
        """Its newest reading, for who reacts to it; `on_readings`, for who keeps or sends it, must follow."""
        self.readings += 1
        if not reading.past:
            self.latest = reading
            self._subscriber.on_reading(reading)

    async def _run(
        self,
        call: Call[T],
        limit_s: float | None = None,
        *,
        queue_s: float | None = None,
        urgency: Urgency = Urgency.ROUTINE,
        restarts: bool = False,
    ) -> T:
        """On the bus's thread, as one of its users."""
        limit_s = limit_s or self._call_limit_s
        return await self.bus.run(
            call, limit_s, queue_s=queue_s, urgency=urgency, user=self.name, restarts=restarts
        )

    # -- what callers ask for ----------------------------------------

    def _online_driver(self) -> Driver[Any, Any]:
        if self._driver is None or not self.online:
            raise NoAnswer(
                f"device {self.name} is {self.state} ({self.reason or 'no answer'}): {self.detail}"
            )
        return self._driver

    async def read_now(self) -> Reading:
        """A fresh reading where the device can be asked, else the last one. Raises BusError, DriverError."""
        driver = self._online_driver()
        if isinstance(driver, Sensor):
            return await self._read_patiently(driver)
        if isinstance(driver, Listener) and (values := present_of(driver, self._clock)) is not None:
            return self._builder.present(values)
        if self.latest is not None:
            return self.latest
        raise NoAnswer(f"device {self.name} {SAYS_NOTHING}")

    async def write(
        self, values: Mapping[str, Value], *, may_begin: Callable[[], None], urgent: bool = False
    ) -> dict[str, Value]:
        """Set points; the values that were read back from the hardware, as far as it can be asked.

        `may_begin` runs on the bus's thread right before, and raises if nothing may move any more. `urgent`:
        these are safe values, which come as `safe` does. Raises BusError, DriverError; BusTimeout when it is
        not known whether it happened.
        """
        driver = self._online_driver()
        if not isinstance(driver, Actuator):
            raise DriverError(f"device {self.name} has nothing to set")

        def job() -> Generator[None, None, Values]:
            may_begin()
            self._writes += 1
            self._made_safe += urgent
            made_safe = self._made_safe
            steps = driver.write_steps(values)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    result: Values = end.value
                    return result
                yield
                if made_safe != self._made_safe:
                    raise BusTimeout(
                        f"device {self.name} was made safe while it was set: its rest was left out"
                    )

        read_back: Values = await self._run(job, urgency=Urgency.SAFE if urgent else Urgency.COMMAND)
        plain = {k: v.value if isinstance(v, Flagged) else v for k, v in (read_back or {}).items()}
        self._emit_written({**values, **plain})
        return plain

    async def do(
        self, action: str, args: Mapping[str, Value], *, may_begin: Callable[[], None]
    ) -> list[Step] | File:
        """Carry out an action; the steps it returns are the caller's to carry out. Raises as `write`."""
        driver = self._online_driver()

        def job() -> list[Step] | File:
            may_begin()
            self._writes += 1
            result = driver.do(action, args) or ()
            return result if isinstance(result, File) else list(result)

        return await self._run(job, urgency=Urgency.COMMAND)

    async def safe(self) -> None:
        """Every actuator point to its safe value, now. Raises BusError, DriverError.

        One that is not open is opened without waiting any longer, and its bus too, which makes it safe; until
        then NoAnswer.
        """
        if not self.is_actuator:
            return
        driver = self._driver
        if not isinstance(driver, Actuator):
            self._hurry.set()
            self.bus.hurry()
            raise NoAnswer(f"device {self.name} is {self.state} ({self.reason}): {self.detail}")

        def job() -> None:
            self._made_safe += 1
            driver.safe()

        try:
            await self._run(job, urgency=Urgency.SAFE)
        except BusError as error:
            self.bus.note_failure(self.name, error)
            raise
        self._emit_written(self.safe_values)

    async def send_bytes(self, data: bytes) -> None:
        """Pass bytes to the device's bytes side. Raises BusError, DriverError."""
        driver = self._online_driver()
        await self._run(lambda: driver.write_bytes(data), urgency=Urgency.COMMAND)

    def _emit_written(self, values: Mapping[str, Value]) -> None:
        """Callers see what a command changed at once, not at the next regular reading."""
        self.emit(self._builder.commanded(values, self.latest))
