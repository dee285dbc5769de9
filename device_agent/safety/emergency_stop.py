"""The emergency stop: every actuator safe at once, every command refused, until it is released on the spot.

Pressed by the owner's command or by a line of the board. What cannot be read may be pressed: while the line's
device is not there, everything is safe and nothing moves, without a latch.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.config.models import SafetyConfig
from device_agent.devices.device import Device, ReadingSink
from device_agent.errors import Rejected
from device_agent.records import Flag, Reading, Status
from device_agent.safety.safe_states import SafeStates
from device_agent.safety.stop_latch import StopLatch
from device_agent.store.journal.journal import Journal

log = structlog.get_logger("emergency_stop")

# How long a question waits for the answer which actuators are safe; they are tried on after it.
SAFE_LIMIT_S = 5.0


class EmergencyStop:
    """`tap` the devices' sink, so that the line is seen before anybody else hears of it."""

    def __init__(
        self,
        config: SafetyConfig,
        latch: StopLatch,
        devices: Mapping[str, Device],
        safe_states: SafeStates,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._config = config
        self._latch = latch
        self._devices = devices
        self._safe_states = safe_states
        self._journal = journal
        self._clock = clock
        self._background = BackgroundTasks("emergency_stop")
        latch.barred = self._barred

    def status(self) -> dict[str, Any]:
        """For the owner."""
        state = self._latch.state
        told = {"latched": state is not None, **(state or {})}
        return {**told, "barred": reason} if (reason := self._barred()) else told

    async def press(self, who: str) -> dict[str, bool]:
        """Latch, make everything safe at once; which actuators are known to be safe now."""
        first = self._latch.state is None
        if first:
            now_ms = self._clock.now_ms()
            self._latch.set(who, now_ms)
            log.critical("emergency_stop", who=who)
            self._journal.actuation(now_ms, who, "", "emergency stop", "latched")
        # Hardware first; the file meanwhile.
        saving = self._background.spawn("latch", self._save()) if first else None
        safe = await self._safe_states.all_safe("emergency stop", SAFE_LIMIT_S)
        if saving is not None:
            await saving
        return safe

    async def release(self, who: str) -> None:
        """Commands are obeyed again. Raises Rejected while the line is active, OSError from the disk."""
        if self._pressed():
            raise Rejected(
                "not_allowed",
                f"the emergency stop's line ({self._config.stop_device}) is still active; release it first",
            )
        before = self._latch.state
        self._latch.clear()
        try:
            await asyncio.to_thread(self._latch.save)
        except OSError as error:
            if before is not None:
                self._latch.set(before["who"], before["at_ms"] or 0)
            raise Rejected("internal", f"the release could not be written down ({error})") from error
        log.warning("emergency_stop_released", who=who)
        self._journal.actuation(self._clock.now_ms(), who, "", "emergency stop", "released")

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self._latch.save)
        except OSError as error:
            log.critical("latch_not_saved", error=str(error), why="a restart would release it")

    # -- the line ----------------------------------------

    def tap(self, sink: ReadingSink) -> ReadingSink:
        """The sink with an ear for the line; unchanged where there is none."""
        return sink if self._config.stop_device is None else _Tap(sink, self)

    def heard(self, reading: Reading) -> None:
        if reading.device != self._config.stop_device:
            return
        if self._latch.state is None and self._is_active(reading):
            self._background.spawn("press", self.press(f"the line of {reading.device}"))
        elif why := self._unreadable(reading):
            for name in self._safe_states.away(self._safe_states.limits):
                self._safe_states.spawn_safe(name, why)

    def lost(self, status: Status) -> None:
        if status.device == self._config.stop_device and not self._devices[status.device].online:
            why = f"the emergency stop's line is {status.state}"
            self._background.spawn("lost", self._safe_states.all_safe(why, SAFE_LIMIT_S))

    def _is_active(self, reading: Reading) -> bool:
        return reading.values.get(self._config.stop_point) is self._config.stop_active

    def _pressed(self) -> bool:
        device = self._devices.get(self._config.stop_device or "")
        return device is not None and device.latest is not None and self._is_active(device.latest)

    def _barred(self) -> str:
        name = self._config.stop_device
        if name is None:
            return ""
        device = self._devices.get(name)
        if device is None or not device.online or device.latest is None:
            return f"the emergency stop's line cannot be read ({name} is not there), so nothing may move"
        return self._unreadable(device.latest)

    def _unreadable(self, reading: Reading) -> str:
        point = self._config.stop_point
        if reading.values.get(point) is None:
            return f"the emergency stop's line cannot be read ({reading.device}.{point} is null)"
        if reading.flags.get(point) is Flag.STALE:
            return f"the emergency stop's line cannot be read ({reading.device}.{point} is stale)"
        return ""

    async def close(self) -> None:
        await self._background.close()


class _Tap:
    def __init__(self, sink: ReadingSink, stop: EmergencyStop) -> None:
        self._sink = sink
        self._stop = stop

    def on_reading(self, reading: Reading) -> None:
        self._stop.heard(reading)
        self._sink.on_reading(reading)

    def on_status(self, status: Status) -> None:
        self._stop.lost(status)
        self._sink.on_status(status)

    def on_bytes(self, device: str, data: bytes) -> None:
        self._sink.on_bytes(device, data)
