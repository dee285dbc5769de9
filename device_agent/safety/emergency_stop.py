"""The emergency stop: every actuator safe at once, every command refused, until it is released on the spot.

Pressed by the owner's command or by a line of the board. What cannot be read may be pressed: while the line's
device is not there, everything is safe and nothing moves, without a latch.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from device_agent.background import BackgroundTasks
from device_agent.config.models import SafetyConfig
from device_agent.devices.context import Context
from device_agent.devices.device import Device
from device_agent.errors import NotReady, Rejected
from device_agent.records import AGE_UNKNOWN, Reading, ReadingSubscriber, Status
from device_agent.safety.safe_states import SafeStates
from device_agent.store.files import overwrite, read_small, write_atomically
from device_agent.store.mounts import in_memory

log = structlog.get_logger("emergency_stop")

# How long a question waits for the answer which actuators are safe; they are tried on after it.
SAFE_LIMIT_S = 5.0
SAVE_LIMIT_S = 2.0
# The latch's file is well below a sector: it is written whole or not at all.
LATCH_BYTES = 256


class StopLine:
    """The point of a device that says whether the stop's button is pressed; there may be none."""

    def __init__(self, config: SafetyConfig, devices: Mapping[str, Device]) -> None:
        self.device = config.stop_device
        self._point = config.stop_point
        self._active = config.stop_active
        self._devices = devices

    def is_active(self, reading: Reading) -> bool:
        return reading.values.get(self._point) is self._active

    def is_active_now(self) -> bool:
        """By the newest reading."""
        device = self._devices.get(self.device or "")
        return device is not None and device.latest is not None and self.is_active(device.latest)

    def why_unreadable(self) -> str:
        """Why nobody knows now whether it is pressed; "" if that is known, or if there is no line."""
        if self.device is None:
            return ""
        device = self._devices.get(self.device)
        if device is None or not device.online or device.latest is None:
            return (
                f"the emergency stop's line cannot be read ({self.device} is not there), so nothing may move"
            )
        return self.why_unclear(device.latest)

    def why_unclear(self, reading: Reading) -> str:
        """Why this reading of the line tells nothing; "" if it does."""
        if reading.values.get(self._point) is None:
            return f"the emergency stop's line cannot be read ({reading.device}.{self._point} is null)"
        if (flag := reading.flags.get(self._point)) in AGE_UNKNOWN:
            return f"the emergency stop's line cannot be read ({reading.device}.{self._point} is {flag})"
        return ""


class StopLatch:
    """Whether the stop is set. `check` may be called on any thread.

    It is in a file that always exists and is written in place: a full disk cannot keep it from being
    set. A damaged file counts as set.
    """

    def __init__(
        self, path: Path, line: StopLine | None = None, *, boot: str = "", persists: bool = False
    ) -> None:
        """While `line` cannot be read, `check` refuses as well.

        With `persists` it counts as set where nobody knows: when there is no file, or one in memory that is
        not of this `boot`.
        """
        self._path = path
        self._line = line
        self._boot = boot
        self._persists = persists
        self._set: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<StopLatch {'free' if self._set is None else 'set by ' + self._set['who']}>"

    def load(self) -> None:
        """Find out what the last process left. Raises NotReady where the file cannot be made."""
        if not self._path.exists():
            if self._persists:
                self._set = {"who": "nobody knows: there is no record of it", "at_ms": None}
            try:  # nothing is left of a try that failed: half a file would count as set
                write_atomically(self._path, self._bytes())
            except OSError as error:
                raise NotReady(
                    f"the emergency stop's file {self._path} cannot be made ({error.strerror}): make room"
                ) from error
            return
        try:
            found = json.loads(read_small(self._path))
            self._set = _pressed(found["set"])
            if self._persists and found.get("boot") != self._boot and in_memory(self._path.resolve()):
                # What an overlay shows after a reboot is what was there before it.
                self._set = self._set or {"who": "nobody knows: its record is in memory", "at_ms": None}
        except (ValueError, KeyError, TypeError, RecursionError):
            self._set = {"who": "a damaged file", "at_ms": None}

    @property
    def state(self) -> dict[str, Any] | None:
        """`{"who", "at_ms"}` while it is set."""
        return self._set

    def set(self, who: str, at_ms: int) -> None:
        """In force at once; `save` makes it last."""
        self._set = {"who": who.encode()[:100].decode(errors="ignore"), "at_ms": at_ms}

    def clear(self) -> None:
        self._set = None

    def save(self) -> None:
        """Blocks until it is on the disk. Raises OSError."""
        overwrite(self._path, self._bytes())

    def _bytes(self) -> bytes:
        return (
            json.dumps({"set": self._set, "boot": self._boot}, ensure_ascii=False).encode().ljust(LATCH_BYTES)
        )

    def check(self) -> None:
        """Raises Rejected `not_allowed` with a sentence while nothing may move."""
        if self._set is not None:
            raise Rejected(
                "not_allowed",
                f"the emergency stop was pressed ({self._set['who']}): everything is safe and stays so until "
                "somebody releases it at the device with `device-agent release`",
            )
        if self._line is not None and (reason := self._line.why_unreadable()):
            raise Rejected("not_allowed", reason)


def _pressed(said: Any) -> dict[str, Any] | None:
    """Raises TypeError, KeyError for what `StopLatch` did not write."""
    if said is None:
        return None
    who, at_ms = said["who"], said["at_ms"]
    if not isinstance(who, str) or not isinstance(at_ms, int | None):
        raise TypeError("who pressed, and when, are a text and a number")
    return {"who": who, "at_ms": at_ms}


class EmergencyStop(ReadingSubscriber):
    """Sets and releases the latch, and makes everything safe; as a subscriber it watches the line."""

    def __init__(self, context: Context, latch: StopLatch, line: StopLine, safe_states: SafeStates) -> None:
        self._latch = latch
        self._line = line
        self._devices = context.devices
        self._safe_states = safe_states
        self._journal = context.journal
        self._clock = context.clock
        self._background = BackgroundTasks("emergency_stop")

    def status(self) -> dict[str, Any]:
        """For the owner."""
        state = self._latch.state
        status = {"latched": state is not None, **(state or {})}
        return {**status, "barred": reason} if (reason := self._line.why_unreadable()) else status

    async def press(self, who: str, recorded: str = "") -> dict[str, bool]:
        """Latch, make everything safe at once; which actuators are known to be safe now.

        `who` is what callers are told; `recorded`, for the owner, may say more.
        """
        recorded = recorded or who
        first = self._latch.state is None
        if first:
            now_ms = self._clock.now_ms()
            self._latch.set(who, now_ms)
            log.critical("emergency_stop", who=recorded)
            self._journal.actuation(now_ms, recorded, "", "emergency stop", "latched")
        # Hardware first; the file meanwhile.
        saving = self._background.spawn("latch", self._save()) if first else None
        safe = await self._safe_states.all_safe("emergency stop", SAFE_LIMIT_S)
        if saving is not None:
            # The answer does not depend on a disk that hangs.
            await asyncio.wait([saving], timeout=SAVE_LIMIT_S)
        return safe

    async def release(self, who: str) -> None:
        """Commands are obeyed again. Raises Rejected while the line is active, or if the disk fails."""
        if self._line.is_active_now():
            raise Rejected(
                "not_allowed",
                f"the emergency stop's line ({self._line.device}) is still active; release it first",
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

    def on_reading(self, reading: Reading) -> None:
        if reading.device != self._line.device:
            return
        if self._latch.state is None and self._line.is_active(reading):
            self._background.spawn("press", self.press(f"the line of {reading.device}"))
        elif why := self._line.why_unclear(reading):
            for name in self._safe_states.away(self._safe_states.limits):
                self._safe_states.spawn_safe(name, why)

    def on_status(self, status: Status) -> None:
        if status.device == self._line.device and not self._devices[status.device].online:
            why = f"the emergency stop's line is {status.state}"
            self._background.spawn("lost", self._safe_states.all_safe(why, SAFE_LIMIT_S))

    async def close(self) -> None:
        await self._background.close()
