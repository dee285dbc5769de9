"""Clock chips among the devices: a source of the time while there is no better one, and set when there is.

Also notes in the log and in the Journal when the time became known: times in the Journal before that count
from the start of the machine, for its chain is never rewritten.
"""

import asyncio

import structlog

from device_agent.background import BackgroundTasks
from device_agent.devices.context import Context
from device_agent.devices.device import Device
from device_agent.errors import BusError, DriverError
from device_agent.records import Reading, ReadingSubscriber

log = structlog.get_logger("clock")

CHECK_S = 1.0
# A chip tells whole seconds; what differs by more from the true time is wrong and set.
WRONG_BY_S = 2.0
SET_AGAIN_S = 600.0


class ClockChip(ReadingSubscriber):
    """Learns the time from clock chips, and sets those that are wrong once the time is known."""

    def __init__(self, context: Context) -> None:
        self._devices = context.devices
        self._journal = context.journal
        self._clock = context.clock
        self._background = BackgroundTasks("clock")
        self._tried_s: dict[str, float] = {}

    def on_reading(self, reading: Reading) -> None:
        device = self._devices.get(reading.device)
        if device is None or not device.driver_class.serves_as_clock:
            return
        chip_s = reading.values.get("time")
        if isinstance(chip_s, int | float):
            # Whole seconds: on average half of the next one has gone by.
            self._clock.learn(chip_s * 1000 + 500, reading.monotonic_s, "device")
        known = self._clock.source in ("system", "network")
        if known and (chip_s is None or self._wrong(reading, chip_s)):
            self._background.spawn(f"set {reading.device}", self._set(device))

    @staticmethod
    def _wrong(reading: Reading, chip_s: object) -> bool:
        return isinstance(chip_s, int | float) and abs(reading.at_ms / 1000 - chip_s) > WRONG_BY_S

    async def _set(self, device: Device) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._tried_s.get(device.name, float("-inf")) < SET_AGAIN_S:
            return
        self._tried_s[device.name] = now_s
        try:
            await device.do("set_time", {"time": self._clock.now_ms() // 1000}, may_begin=lambda: None)
        except (BusError, DriverError) as error:
            log.warning("clock_chip_not_set", device=device.name, error=str(error))
        else:
            log.info("clock_chip_set", device=device.name)

    async def run(self) -> None:
        """Note that the time is not known, and when it becomes known; then return."""
        if self._clock.is_set():
            return
        self._note("the time is not known; it counts from the start of the machine")
        log.warning("clock_unset", boot=self._clock.boot)
        while not self._clock.is_set():  # noqa: ASYNC110 - the machine's clock sends no event
            await asyncio.sleep(CHECK_S)
        started_ms = self._clock.offset_ms()
        self._note(f"the time is known ({self._clock.source}); the machine started at {started_ms}")
        log.info("clock_set", source=self._clock.source, boot=self._clock.boot, started_ms=started_ms)

    def _note(self, what: str) -> None:
        self._journal.actuation(
            self._clock.now_ms(), "device-agent", "", "clock", f"boot {self._clock.boot}", what
        )

    async def close(self) -> None:
        await self._background.close()
