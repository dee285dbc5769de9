"""A simulated board: one medium for each configured bus, a chip for each configured device.

Synchronous and thread-safe: one lock, one clock. The same object serves tests in their own process and,
behind a Unix socket (`server`), a daemon, its guard and the command line.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from device_agent.bus.config import BusConfig
from device_agent.clock import Clock, SystemClock
from device_agent.driver import Driver, DriverConfig
from device_agent.testing.board.chip_buses import I2cMedium, OneWireMedium, SpiMedium
from device_agent.testing.board.gpio import GpioMedium
from device_agent.testing.board.medium import BusFault, Medium, Pacer, Placed, Record, Timer, Timers
from device_agent.testing.board.mqtt import MqttMedium
from device_agent.testing.board.serial import SerialMedium
from device_agent.testing.chips import Chip, Physical
from device_agent.testing.clock import SteppedClock

_MEDIA: dict[str, type[Medium]] = {
    medium.kind: medium
    for medium in (I2cMedium, GpioMedium, SerialMedium, MqttMedium, SpiMedium, OneWireMedium)
}
M = TypeVar("M", bound=Medium)

# How soon a stuck call notices that its client has gone.
ALIVE_CHECK_S = 0.05


class Board:
    """`buses` by name, `devices` by name with their driver class and configuration. Ends with `close`.

    With a `SteppedClock` time stands still until the test steps it, or until a call waits.
    """

    def __init__(
        self,
        buses: Mapping[str, BusConfig],
        devices: Mapping[str, tuple[type[Driver[Any, Any]], DriverConfig]],
        *,
        clock: Clock | None = None,
        record: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.clock = clock or SystemClock()
        # A stepped clock runs what is due while it is locked: one lock for both leaves no order to get wrong.
        self.lock = self.clock.lock if isinstance(self.clock, SteppedClock) else threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.record = Record(record)
        self._closed = False
        self._timers = Timers()
        self._pacer: Pacer | None = None
        if isinstance(self.clock, SteppedClock):
            self.clock.watch(self._timers.next_due_s, self._run_due)
        else:
            self._pacer = Pacer(self.changed, self._timers, self.clock.monotonic_s)
        self.devices = {name: self._place(name, *device) for name, device in devices.items()}
        self.media: dict[str, Medium] = {}
        with self.lock:
            for name, config in buses.items():
                placed = {n: d for n, d in self.devices.items() if d.config.bus == name}
                self.media[name] = _MEDIA[config.kind](self, name, placed, seed)
                for device in placed.values():
                    self._advance(self.media[name], device, self.now_s())

    def _place(self, name: str, driver: type[Driver[Any, Any]], config: DriverConfig) -> Placed:
        chip = None if driver.simulator is None else driver.simulator(config)
        if isinstance(chip, Chip):
            chip.now_s = self.now_s
        else:
            chip = None  # simulated otherwise, such as a folder of files: not on any bus
        return Placed(name, driver, config, chip)

    def close(self) -> None:
        """End the board's thread and its record, free what is stuck; may be called twice."""
        with self.lock:
            self._closed = True
            self.changed.notify_all()
        if self._pacer is not None:
            self._pacer.close()
        self.record.close()

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the world around it ------------------------------------------------------------------------------

    def medium(self, bus: str) -> Medium:
        """Raises ValueError that names the buses there are."""
        if bus not in self.media:
            raise ValueError(
                f"there is no bus {bus!r} on the board; there are: {', '.join(self.media) or 'none'}"
            )
        return self.media[bus]

    def chip(self, device: str) -> Any:
        """The simulated chip of a device, for a test to look into."""
        return self._placed(device)[1].chip

    def set(self, device: str, **quantities: Physical) -> None:
        """Set physical quantities of a device's chip. Raises ValueError that names what there is."""
        with self.lock:
            medium, placed = self._placed(device)
            for quantity, value in quantities.items():
                medium.set(placed, quantity, value)
                now = placed.chip.quantities()[quantity] if placed.chip is not None else value
                self.record.add(
                    self.now_s(), medium.name, "stimulus", device=device, point=quantity, value=now
                )

    def reset(self, device: str) -> None:
        """Power-cycle the chip: it is in its power-on state again."""
        with self.lock:
            medium, placed = self._placed(device)
            medium.reset(placed)

    def pin(self, bus: str, line: int | str, level: bool | None) -> None:
        """The far end drives a GPIO line to a physical level, or lets go of it (None)."""
        with self.lock:
            self._of_kind(bus, GpioMedium).pin(line, level)

    def feed(self, bus: str, data: bytes) -> bool:
        """Bytes from a serial port's far end; False if they are lost because the port is not open."""
        with self.lock:
            return self._of_kind(bus, SerialMedium).feed(data)

    def sent(self, bus: str) -> bytes:
        """What the host has sent to a serial port, the newest 64 KiB."""
        with self.lock:
            return bytes(self._of_kind(bus, SerialMedium).sent)

    def say(self, bus: str, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Another device publishes on an MQTT bus."""
        with self.lock:
            self._of_kind(bus, MqttMedium).feed(topic, payload, retain)

    def published(self, bus: str) -> list[tuple[str, bytes]]:
        """What the host has published on an MQTT bus, the newest 1000 messages."""
        with self.lock:
            return list(self._of_kind(bus, MqttMedium).sent)

    def fault(self, bus: str, kind: str, *, for_s: float | None = None, device: str | None = None) -> None:
        """Break something (`faults.KINDS`). Raises ValueError for what this bus does not know."""
        with self.lock:
            medium = self.medium(bus)
            until_s = None if for_s is None else self.now_s() + for_s
            made = medium.fault(kind, device, until_s)
            if until_s is not None:
                self.at(until_s, lambda _: self._end_fault(medium, made))
            self.changed.notify_all()

    def heal(self, bus: str | None = None) -> None:
        """End all faults, of one bus or of all."""
        with self.lock:
            for medium in self.media.values() if bus is None else (self.medium(bus),):
                medium.heal()
            self.changed.notify_all()

    def show(self) -> dict[str, Any]:
        """Levels, physical values, ports and faults, as `board show --json` prints them."""
        with self.lock:
            devices = {}
            for name, placed in self.devices.items():
                chip = placed.chip
                devices[name] = {
                    "bus": placed.config.bus,
                    "driver": getattr(placed.config, "driver", placed.driver.__name__),
                    "values": {} if chip is None else {**chip.quantities(), **chip.outputs()},
                }
            return {"buses": {name: medium.show() for name, medium in self.media.items()}, "devices": devices}

    def _end_fault(self, medium: Medium, made: BusFault | None) -> None:
        # Healed and made again in between: that one has its own end.
        if made is not None and medium.faults.get((made.kind, made.device)) is made:
            medium.mend(made.kind, made.device)
            self.changed.notify_all()

    def _placed(self, device: str) -> tuple[Medium, Placed]:
        placed = self.devices.get(device)
        if placed is None:
            known = ", ".join(self.devices) or "none"
            raise ValueError(f"there is no device {device!r} on the board; there are: {known}")
        if placed.config.bus is None or placed.config.bus not in self.media:
            raise ValueError(f"device {device!r} sits on no bus, so nothing of it is simulated here")
        return self.media[placed.config.bus], placed

    def _of_kind(self, bus: str, kind: type[M]) -> M:
        medium = self.medium(bus)
        if not isinstance(medium, kind):
            raise ValueError(f"bus {bus} is of kind {medium.kind}; this is for kind {kind.kind}")
        return medium

    # -- time (for the media; the lock is held) -----------------------------------------------------------

    def now_s(self) -> float:
        return self.clock.monotonic_s()

    def at(self, due_s: float, act: Callable[[float], None]) -> Timer:
        """Call `act(due_s)` then, under the lock."""
        timer = self._timers.at(due_s, act)
        if self._pacer is not None:
            self._pacer.nudge()
        return timer

    def wait(
        self,
        done: Callable[[], bool],
        timeout_s: float,
        alive: Callable[[], bool] = lambda: True,
        *,
        real_time: bool = False,
    ) -> bool:
        """Let go of the lock until `done`; False when the limit passed or the caller has gone.

        `real_time`: for what a person must end, which takes time even where the clock is stepped.
        """
        if isinstance(self.clock, SteppedClock) and not real_time:
            return self._step_until(self.clock, done, timeout_s)
        deadline_s = time.monotonic() + timeout_s
        while not done():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or self._closed or not alive():
                return False
            self.changed.wait(min(left_s, ALIVE_CHECK_S))
        return True

    def _step_until(self, clock: SteppedClock, done: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = clock.monotonic_s() + timeout_s
        while not done():
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0:
                return False
            due_s = self._timers.next_due_s()
            clock.step(left_s if due_s is None else min(left_s, max(0.0, due_s - clock.monotonic_s())))
        return True

    def _run_due(self) -> None:
        with self.lock:
            self._timers.run_due(self.now_s())

    def _advance(self, medium: Medium, placed: Placed, at_s: float) -> None:
        if placed.chip is None:
            return
        next_s = placed.chip.advance(at_s)
        medium.after(placed, at_s)
        if next_s is not None:
            self.at(next_s, lambda due_s: self._advance(medium, placed, due_s))
