"""Finds out how an actuator is made safe, as bytes on its bus, by watching its driver do it.

By contract `open` sets the safe values whatever it finds, and `safe` sets them again. What these two write is
written down; drivers know nothing of it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from device_agent.bus.core import Handle, Source
from device_agent.bus.gpio import Bias, Drive, GpioBus, InputLine, OutputLine, PwmOutput
from device_agent.bus.i2c import I2cBus
from device_agent.bus.mqtt import MqttBus
from device_agent.bus.recipe import Recipe
from device_agent.bus.serial import SerialBus
from device_agent.driver import Actuator, Driver
from device_agent.errors import BusError, DriverError

log = structlog.get_logger("guard")


class Tape:
    """What was written while it ran. `dry`: nothing goes out, what is read is real."""

    def __init__(self) -> None:
        self.dry = False
        self._calls: list[Any] | None = None

    def start(self, *, dry: bool) -> None:
        self._calls, self.dry = [], dry

    def stop(self) -> list[Any]:
        calls, self._calls, self.dry = self._calls or [], None, False
        return calls

    def pause(self, seconds: float) -> None:
        if self._calls is not None and seconds > 0:
            self._calls.append(float(seconds))
        if not self.dry:
            time.sleep(seconds)

    def wrote(self, call: Any) -> bool:
        """Note a call; True if it is to be carried out as well."""
        if self._calls is not None:
            self._calls.append(call)
        return not self.dry


class RecordedI2c(I2cBus):
    """Only transfers that read nothing are noted: reading makes nothing safe."""

    def __init__(self, inner: I2cBus) -> None:
        self.inner = inner
        self.tape = Tape()

    def transfer(self, address: int, write: bytes, read_size: int = 0) -> bytes:
        if write and not read_size and not self.tape.wrote((address, bytes(write))):
            return b""
        return self.inner.transfer(address, write, read_size)

    def present(self, address: int) -> bool:
        return self.inner.present(address)

    def recipes(self, calls: Sequence[Any]) -> list[Recipe]:
        return [self.inner.recipe(calls)] if _any(calls) else []


class RecordedSerial(SerialBus):
    def __init__(self, inner: SerialBus) -> None:
        self.inner = inner
        self.tape = Tape()

    def write(self, data: bytes) -> None:
        if self.tape.wrote(bytes(data)):
            self.inner.write(data)

    def read(self, size: int, timeout_s: float) -> bytes:
        return self.inner.read(size, timeout_s)

    def discard_input(self) -> None:
        self.inner.discard_input()

    def listen(self) -> Source:
        return self.inner.listen()

    def recipes(self, calls: Sequence[Any]) -> list[Recipe]:
        return [self.inner.recipe(calls)] if _any(calls) else []


class RecordedMqtt(MqttBus):
    def __init__(self, inner: MqttBus) -> None:
        self.inner = inner
        self.tape = Tape()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        if self.tape.wrote((topic, bytes(payload), retain)):
            self.inner.publish(topic, payload, qos=qos, retain=retain)

    def subscribe(self, topics: tuple[str, ...], *, qos: int = 1) -> Source:
        return self.inner.subscribe(topics, qos=qos)

    def recipes(self, calls: Sequence[Any]) -> list[Recipe]:
        return [self.inner.recipe(calls)] if _any(calls) else []


class RecordedGpio(GpioBus):
    """Outputs are claimed at their safe level; a line that `safe` writes another one to ends at that."""

    def __init__(self, inner: GpioBus) -> None:
        self.inner = inner
        self.tape = Tape()
        self.lines: list[RecordedOutput | RecordedPwm] = []

    def input(
        self,
        line: int | str,
        *,
        active_low: bool = False,
        bias: Bias = "as-is",
        debounce_s: float = 0.0,
        edges: bool = True,
    ) -> InputLine:
        return self.inner.input(line, active_low=active_low, bias=bias, debounce_s=debounce_s, edges=edges)

    def output(
        self, line: int | str, *, active: bool, active_low: bool = False, drive: Drive = "push-pull"
    ) -> OutputLine:
        claimed = self.inner.output(line, active=active, active_low=active_low, drive=drive)
        output = RecordedOutput(self, claimed, active)
        self.lines.append(output)
        return output

    def pwm(
        self, line: int | str, *, duty: float, frequency_hz: float, active_low: bool = False
    ) -> PwmOutput:
        claimed = self.inner.pwm(line, duty=duty, frequency_hz=frequency_hz, active_low=active_low)
        output = RecordedPwm(self, claimed, duty, frequency_hz)
        self.lines.append(output)
        return output

    def recipes(self, calls: Sequence[Any]) -> list[Recipe]:
        told: dict[RecordedOutput | RecordedPwm, Any] = {line: line.claimed_at for line in self.lines}
        told.update(call for call in calls if isinstance(call, tuple))
        return [recipe for line, value in told.items() for recipe in line.recipes_of(value)]


class RecordedOutput:
    """A claimed output; see `OutputLine`."""

    def __init__(self, bus: RecordedGpio, line: OutputLine, active: bool) -> None:
        self._bus = bus
        self._line = line
        self.claimed_at = active

    def write(self, active: bool) -> None:
        if self._bus.tape.wrote((self, active)):
            self._line.write(active)

    def read(self) -> bool:
        return self._line.read()

    def fileno(self) -> int:
        return self._line.fileno()

    def recipe(self, active: bool) -> Recipe:
        return self._line.recipe(active)

    def recipes_of(self, active: bool) -> list[Recipe]:
        return [self.recipe(active)]

    def close(self) -> None:
        if self in self._bus.lines:
            self._bus.lines.remove(self)
        self._line.close()


class RecordedPwm:
    """A claimed output that switches by itself; see `PwmOutput`."""

    def __init__(self, bus: RecordedGpio, output: PwmOutput, duty: float, frequency_hz: float) -> None:
        self._bus = bus
        self._output = output
        self.claimed_at = (duty, frequency_hz)

    def write(self, duty: float, frequency_hz: float) -> None:
        if self._bus.tape.wrote((self, (duty, frequency_hz))):
            self._output.write(duty, frequency_hz)

    def read(self) -> tuple[float, float]:
        return self._output.read()

    def recipes(self, duty: float, frequency_hz: float) -> list[Recipe]:
        return self._output.recipes(duty, frequency_hz)

    def recipes_of(self, told: tuple[float, float]) -> list[Recipe]:
        return self.recipes(*told)

    def close(self) -> None:
        if self in self._bus.lines:
            self._bus.lines.remove(self)
        self._output.close()


Recorded = RecordedI2c | RecordedSerial | RecordedMqtt | RecordedGpio

_WRAPPERS: tuple[tuple[type[Handle], Callable[[Any], Recorded]], ...] = (
    (I2cBus, RecordedI2c),
    (SerialBus, RecordedSerial),
    (MqttBus, RecordedMqtt),
    (GpioBus, RecordedGpio),
)


def recorded(handle: Handle) -> Handle:
    """The handle to give to an actuator's driver; the same one for a bus that the guard cannot use."""
    return next((wrap(handle) for kind, wrap in _WRAPPERS if isinstance(handle, kind)), handle)


def open_and_record(device: str, driver: Driver[Any, Any]) -> list[Recipe]:
    """Open the driver and return its way to safe; empty, and said in the log, where there is none.

    Raises what `open` raises.
    """
    bus = driver.bus
    if not isinstance(bus, Recorded):
        driver.open()
        log.warning("not_guarded", device=device, why=f"the guard cannot use a bus of kind {bus.kind!r}")
        return []
    if isinstance(bus, RecordedGpio):
        bus.lines.clear()  # of an earlier opening that was not closed in order
    sleep, driver.sleep = driver.sleep, bus.tape.pause
    try:
        bus.tape.start(dry=False)
        try:
            driver.open()
        finally:
            opened = bus.tape.stop()
        safe = _rehearsed(device, driver, bus.tape)
    finally:
        driver.sleep = sleep
    try:
        # A driver that writes only what changes has nothing to write at safe: then what `open` wrote counts.
        recipes = bus.recipes(safe if _any(safe) else opened)
    except BusError as error:
        log.warning("not_guarded", device=device, why=str(error))
        return []
    if not recipes:
        log.warning(
            "not_guarded", device=device, why="neither `open` nor `safe` of its driver writes anything"
        )
    return recipes


def _rehearsed(device: str, driver: Driver[Any, Any], tape: Tape) -> list[Any]:
    """What `safe` writes, without a second command to a device that is safe already."""
    if not isinstance(driver, Actuator):
        return []
    try:
        tape.start(dry=True)
        driver.safe()
        return tape.stop()
    except (BusError, DriverError) as error:
        log.debug("safe_not_rehearsed", device=device, why=str(error))
    finally:
        tape.stop()
    # It waited for an answer to what did not go out.
    try:
        tape.start(dry=False)
        driver.safe()
        return tape.stop()
    finally:
        tape.stop()


def _any(calls: Sequence[Any]) -> bool:
    return any(not isinstance(call, float) for call in calls)
