"""Finds out what makes an actuator safe, as bytes on its bus: it notes what the driver writes to do it.

By contract `open` sets the safe values whatever it finds, and `safe` sets them again. Drivers know nothing of
this: their handle is wrapped.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from device_agent.bus.core import Handle, Source
from device_agent.bus.gpio import GpioBus, InputLine, OutputLine, PwmOutput
from device_agent.bus.i2c import I2cBus
from device_agent.bus.mqtt import MqttBus
from device_agent.bus.recipe import Recipe
from device_agent.bus.serial import SerialBus
from device_agent.driver import Actuator, Driver
from device_agent.errors import BusError, DriverError

log = structlog.get_logger("guard")


class Recording:
    """The writes, and the pauses between them, from `start` to `stop`."""

    def __init__(self) -> None:
        self._calls: list[Any] | None = None
        self.dry = False

    def start(self, *, dry: bool) -> None:
        """`dry`: writes are noted and do not go out; reads are real, and pauses are skipped."""
        self._calls, self.dry = [], dry

    def stop(self) -> list[Any]:
        calls, self._calls, self.dry = self._calls or [], None, False
        return calls

    def pause(self, seconds: float) -> None:
        if self._calls is not None and seconds > 0:
            self._calls.append(float(seconds))
        if not self.dry:
            time.sleep(seconds)

    def write(self, call: Any) -> bool:
        """Note a write; True if it is to be carried out as well."""
        if self._calls is not None:
            self._calls.append(call)
        return not self.dry


class RecordedHandle:
    """What the wrapped handles have in common; each passes on its medium's calls."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.recording = Recording()

    def recipes(self, calls: Sequence[Any]) -> list[Recipe]:
        """The guard's way to do these again."""
        return [self.inner.recipe(calls)] if _has_writes(calls) else []


class RecordedI2c(RecordedHandle, I2cBus):
    """Only transfers that read nothing are noted: reading makes nothing safe."""

    def transfer(self, address: int, write: bytes, read_size: int = 0) -> bytes:
        if write and not read_size and not self.recording.write((address, bytes(write))):
            return b""
        data: bytes = self.inner.transfer(address, write, read_size)
        return data

    def present(self, address: int) -> bool:
        return bool(self.inner.present(address))


class RecordedSerial(RecordedHandle, SerialBus):
    def __init__(self, inner: SerialBus) -> None:
        super().__init__(inner)
        self.baud, self.frame = inner.baud, inner.frame

    def write(self, data: bytes) -> None:
        if self.recording.write(bytes(data)):
            self.inner.write(data)

    def read(self, size: int, timeout_s: float) -> bytes:
        if self.recording.dry:
            raise BusError("nothing went out that could be answered")
        data: bytes = self.inner.read(size, timeout_s)
        return data

    def discard_input(self) -> None:
        self.inner.discard_input()

    def set_baud(self, baud: int) -> None:
        self.inner.set_baud(baud)

    def listen(self) -> Source:
        source: Source = self.inner.listen()
        return source


class RecordedMqtt(RecordedHandle, MqttBus):
    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        if self.recording.write((topic, bytes(payload), retain)):
            self.inner.publish(topic, payload, qos=qos, retain=retain)

    def subscribe(self, topics: tuple[str, ...], *, qos: int = 1) -> Source:
        source: Source = self.inner.subscribe(topics, qos=qos)
        return source


class RecordedGpio(RecordedHandle, GpioBus):
    """Outputs are claimed at their safe values; a line that `safe` sets to another one ends at that."""

    def __init__(self, inner: GpioBus) -> None:
        super().__init__(inner)
        self.lines: list[RecordedLine] = []
        self.sensed: list[InputLine] = []

    def input(self, line: int | str, **options: Any) -> InputLine:
        claimed: InputLine = self.inner.input(line, **options)
        self.sensed.append(claimed)
        return claimed

    def output(self, line: int | str, *, active: bool, **options: Any) -> OutputLine:
        return RecordedOutput(self, self.inner.output(line, active=active, **options), (active,))

    def pwm(self, line: int | str, *, duty: float, frequency_hz: float, **options: Any) -> PwmOutput:
        claimed = self.inner.pwm(line, duty=duty, frequency_hz=frequency_hz, **options)
        return RecordedPwm(self, claimed, (duty, frequency_hz))

    def recipes(self, calls: Sequence[Any]) -> list[Recipe]:
        values = {line: line.claimed_at for line in self.lines}
        values.update(call for call in calls if isinstance(call, tuple))
        return [recipe for line, value in values.items() for recipe in line.recipes_of(value)]


class RecordedLine:
    """A claimed output; its values are the arguments of `write`."""

    def __init__(self, bus: RecordedGpio, inner: Any, claimed_at: tuple[Any, ...]) -> None:
        self._bus = bus
        self._inner = inner
        self.claimed_at = claimed_at
        bus.lines.append(self)

    def _write(self, *value: Any) -> None:
        if self._bus.recording.write((self, value)):
            self._inner.write(*value)

    def read(self) -> Any:
        return self._inner.read()

    def recipes_of(self, value: tuple[Any, ...]) -> list[Recipe]:
        raise NotImplementedError

    def close(self) -> None:
        if self in self._bus.lines:
            self._bus.lines.remove(self)
        self._inner.close()


class RecordedOutput(RecordedLine):
    """See `OutputLine`."""

    def write(self, active: bool) -> None:
        self._write(active)

    def fileno(self) -> int:
        return int(self._inner.fileno())

    def recipe(self, active: bool) -> Recipe:
        recipe: Recipe = self._inner.recipe(active)
        return recipe

    def recipes_of(self, value: tuple[Any, ...]) -> list[Recipe]:
        return [self.recipe(*value)]


class RecordedPwm(RecordedLine):
    """An output that switches by itself; see `PwmOutput`."""

    def write(self, duty: float, frequency_hz: float) -> None:
        self._write(duty, frequency_hz)

    def recipes(self, duty: float, frequency_hz: float) -> list[Recipe]:
        return list(self._inner.recipes(duty, frequency_hz))

    def recipes_of(self, value: tuple[Any, ...]) -> list[Recipe]:
        return self.recipes(*value)


_WRAPPERS: tuple[tuple[type[Handle], Callable[[Any], Any]], ...] = (
    (I2cBus, RecordedI2c),
    (SerialBus, RecordedSerial),
    (MqttBus, RecordedMqtt),
    (GpioBus, RecordedGpio),
)


def recorded(handle: Handle) -> Handle:
    """The handle to give to an actuator's driver; the same one for a bus that the guard cannot use."""
    return next((wrap(handle) for kind, wrap in _WRAPPERS if isinstance(handle, kind)), handle)


def open_and_record(device: str, driver: Driver[Any, Any]) -> list[Recipe]:
    """Open the driver and return what makes it safe; where nothing is known to, none and a warning.

    Raises what `open` raises.
    """
    bus = driver.bus
    if not isinstance(bus, RecordedHandle):
        driver.open()
        log.warning("not_guarded", device=device, why=f"the guard cannot use a bus of kind {bus.kind!r}")
        return []
    if isinstance(bus, RecordedGpio):
        bus.lines.clear()  # of an earlier opening that was not closed in order
    sleep, driver.sleep = driver.sleep, bus.recording.pause
    try:
        bus.recording.start(dry=False)
        try:
            driver.open()
        finally:
            opened = bus.recording.stop()
        safe = _rehearsed(device, driver, bus.recording)
    finally:
        driver.sleep = sleep
    try:
        # A driver that writes only what changes has nothing to write at safe: then what `open` wrote counts.
        recipes = bus.recipes(safe if _has_writes(safe) else opened)
    except BusError as error:
        log.warning("not_guarded", device=device, why=str(error))
        return []
    if not recipes:
        log.warning(
            "not_guarded", device=device, why="neither `open` nor `safe` of its driver writes anything"
        )
    return recipes


def open_and_watch(device: str, driver: Driver[Any, Any], *, active: bool) -> list[Recipe]:
    """Open the stop input's driver and return how the guard sees it pressed; none and a warning where it
    cannot. Raises what `open` raises."""
    bus, why = driver.bus, "it is no input of a GPIO chip"
    if isinstance(bus, RecordedGpio):
        bus.sensed.clear()
    driver.open()
    if isinstance(bus, RecordedGpio) and len(bus.sensed) == 1:
        try:
            return [bus.sensed[0].watched(active)]
        except BusError as error:
            why = str(error)
    log.warning("stop_input_not_guarded", device=device, why=why)
    return []


def _rehearsed(device: str, driver: Driver[Any, Any], recording: Recording) -> list[Any]:
    """What `safe` writes, without a second command to a device that is safe already."""
    if not isinstance(driver, Actuator):
        return []
    try:
        recording.start(dry=True)
        driver.safe()
        return recording.stop()
    except (BusError, DriverError) as error:
        log.debug("safe_not_rehearsed", device=device, why=str(error))
    finally:
        recording.stop()
    # It waited for an answer to what did not go out.
    try:
        recording.start(dry=False)
        driver.safe()
        return recording.stop()
    finally:
        recording.stop()


def _has_writes(calls: Sequence[Any]) -> bool:
    return any(not isinstance(call, float) for call in calls)
