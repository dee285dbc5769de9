"""The simulated buses: what a driver gets with `--simulate`, and in tests, instead of the real handle.

Each speaks to a board through links: one for calls, one more for each claimed line and each source, so that a
claim exists exactly as long as a descriptor does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from device_agent.bus.config import BusConfig, SpiBusConfig
from device_agent.bus.core import Handle, NoBus, Source, give_way
from device_agent.bus.gpio import Bias, Drive, Edge, GpioBus, InputLine, OutputLine, PwmOutput
from device_agent.bus.i2c import I2cBus
from device_agent.bus.mqtt import MqttBus, MqttMessage
from device_agent.bus.onewire import OneWireBus
from device_agent.bus.recipe import Recipe, Steps
from device_agent.bus.serial import SerialBus
from device_agent.bus.spi import SpiBus
from device_agent.errors import BusError, BusGone
from device_agent.testing.board.link import BoardLink, Place, SocketLink, connect, framed

GUARD = "guard"
"""How a guard is named in the record."""
# Calls that are one whole transaction; those of a serial port are parts of one.
TRANSACTIONS = frozenset(
    ("i2c.transfer", "i2c.present", "spi.transfer", "w1.read", "w1.write", "mqtt.publish")
)


def guard_recipe(
    board: Place,
    calls: Sequence[Any],
    answer: Any = None,
    *,
    attach: tuple[str, str] | None = None,
    hold: tuple[Any, ...] | None = None,
) -> Recipe:
    """Calls of the board (a float is a pause), each answered by `answer`.

    `attach`: bus and claim of an output that the guard holds on to; `hold`: the call by which it claims it
    anew, when that claim has ended. Raises BusError for a board that no other
    process can reach.
    """
    if not isinstance(board, Path | str):
        raise BusError("the guard cannot reach a simulated board in the daemon's own process")
    link = SocketLink(Path(board), GUARD)
    try:
        if attach is not None:
            link.call("gpio.attach", *attach)
    except BaseException:
        link.close()
        raise
    members = {
        "steps": [call if isinstance(call, float) else framed(call) for call in calls],
        "answer": framed((True, answer)),
        "farewell": True,
    }
    if hold is not None or attach is None:
        members |= {"path": str(board), "greeting": ([framed(("hello", GUARD))], framed((True, None)))}
        members |= {} if hold is None else {"claim": [framed(hold)]}
    return Recipe("bytes", members, link.detach(), hold=attach is not None)


def open_handle(name: str, config: BusConfig | None, *, board: Place, by: str = "daemon") -> Handle:
    """The simulated handle of one configured bus, to be opened by its owner as a real one is.

    `by` is who the record says it was. Touches nothing yet: `open` raises BusGone if no board is there.
    `config` is None for a device that has no bus.
    """
    if config is None:
        return NoBus(simulated=True)
    if isinstance(config, SpiBusConfig):
        return SimulatedSpi(name, board, by, config.max_speed_hz)
    return _HANDLES[config.kind](name, board, by)


def attach_output(claim: str, *, board: Place, by: str) -> "SimulatedOutput":
    """Hold and write an output that another client claimed (`SimulatedOutput.claim`), as a guard does.

    The line stays driven until its last holder lets go. Raises BusGone when it was released already.
    """
    bus = claim.split("/", 1)[0]
    link, _ = _linked(board, by, "gpio.attach", bus, claim)
    return SimulatedOutput(link, board, claim)


def _linked(board: Place, by: str, *call: Any) -> tuple[BoardLink, Any]:
    """A link and the answer to its first call; closed again where that is refused."""
    link = connect(board, by)
    try:
        return link, link.call(*call)
    except BaseException:
        link.close()
        raise


class _SimulatedBus:
    """Connection to the board, shared by all kinds."""

    def __init__(self, name: str, board: Place, by: str) -> None:
        self.name = name
        self._board = board
        self._by = by
        self._link: BoardLink | None = None

    def open(self) -> None:
        self.close()
        self._link, _ = _linked(self._board, self._by, "open", self.name)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def detach(self) -> None:
        """A board has no driver to take off; the step is taken all the same."""

    def attach(self) -> None:
        """As `detach`."""

    def _call(self, op: str, *args: Any) -> Any:
        if self._link is None:
            raise BusGone(f"bus {self.name} is not open")
        if op in TRANSACTIONS:
            give_way()
        return self._link.call(op, self.name, *args)

    def _recipe(self, op: str, steps: Steps, answer: Any = None) -> Recipe:
        calls = [step if isinstance(step, float) else (op, self.name, *step) for step in steps]
        return guard_recipe(self._board, calls, answer)

    def _apart(self, op: str, *args: Any) -> tuple[BoardLink, Any]:
        """A link of its own for what is released separately, and the answer to its call."""
        self._call("enter")
        return _linked(self._board, self._by, op, self.name, *args)

    def _listening(self, op: str, *args: Any) -> tuple[BoardLink, Any]:
        self._call("enter")
        link = connect(self._board, self._by)
        try:
            return link, link.listen(op, self.name, *args)
        except BaseException:
            link.close()
            raise


class _Arrivals:
    """A Source on a listening link; `as_chunk` makes the driver's chunk from the board's."""

    def __init__(self, link: BoardLink, as_chunk: Callable[[Any], Any]) -> None:
        self._link = link
        self._as_chunk = as_chunk

    def fileno(self) -> int:
        return self._link.fileno()

    def drain(self) -> Sequence[Any]:
        return [self._as_chunk(chunk) for chunk in self._link.drain()[0]]

    def close(self) -> None:
        self._link.close()


class SimulatedI2c(_SimulatedBus, I2cBus):
    def recipe(self, steps: Steps) -> Recipe:
        return self._recipe(
            "i2c.transfer", [step if isinstance(step, float) else (*step, 0) for step in steps], b""
        )

    def transfer(self, address: int, write: bytes, read_size: int = 0) -> bytes:
        data: bytes = self._call("i2c.transfer", address, write, read_size)
        return data

    def present(self, address: int) -> bool:
        return bool(self._call("i2c.present", address))


class SimulatedInput:
    """A claimed input; see `InputLine`."""

    def __init__(self, handle: "SimulatedGpio", link: BoardLink, claim: str, active_low: bool) -> None:
        self._handle = handle
        self._link = link
        self._claim = claim
        self._active_low = active_low

    def read(self) -> bool:
        return bool(self._handle._call("gpio.read", self._claim)) is not self._active_low

    def fileno(self) -> int:
        return self._link.fileno()

    def watched(self, active: bool) -> Recipe:
        recipe = guard_recipe(self._handle._board, [("gpio.read", self._handle.name, self._claim)])
        level = active is not self._active_low
        return Recipe("level", {**recipe.members, "answer": framed((True, level))}, recipe.detach())

    def drain(self) -> Sequence[Edge]:
        chunks, lost = self._link.drain()
        edges = [Edge(level is not self._active_low, at_s) for level, at_s in chunks]
        if edges and lost:
            edges[0] = Edge(edges[0].active, edges[0].monotonic_s, lost)
        return edges

    def close(self) -> None:
        self._link.close()


class _ClaimedOutput:
    """A link that holds an output. `claim` names it for `attach_output`."""

    def __init__(self, link: BoardLink, board: Place, bus: str, claim: str, active_low: bool) -> None:
        self.claim = claim
        self._link = link
        self._board = board
        self._bus = bus
        self._active_low = active_low

    def fileno(self) -> int:
        return self._link.fileno()

    def close(self) -> None:
        self._link.close()

    def _recipe(self, call: tuple[Any, ...], hold: tuple[Any, ...] | None = None) -> Recipe:
        return guard_recipe(self._board, [call], attach=(self._bus, self.claim), hold=hold)


class SimulatedOutput(_ClaimedOutput):
    """A claimed output; see `OutputLine`."""

    def __init__(
        self,
        link: BoardLink,
        board: Place,
        claim: str,
        *,
        active_low: bool = False,
        drive: Drive = "push-pull",
    ) -> None:
        super().__init__(link, board, claim.split("/", 1)[0], claim, active_low)
        self._drive = drive

    def write(self, active: bool) -> None:
        self._link.call(*self._writing(active))

    def _writing(self, active: bool) -> tuple[Any, ...]:
        return "gpio.write", self._bus, self.claim, active is not self._active_low

    def read(self) -> bool:
        return bool(self._link.call("gpio.read", self._bus, self.claim)) is not self._active_low

    def recipe(self, active: bool) -> Recipe:
        line = int(self.claim.split("/")[1])
        hold = ("gpio.hold", self._bus, line, active is not self._active_low, self._drive)
        return self._recipe(self._writing(active), hold)


class SimulatedPwm(_ClaimedOutput):
    """A claimed PWM output; see `PwmOutput`."""

    def write(self, duty: float, frequency_hz: float) -> None:
        self._link.call(*self._writing(duty, frequency_hz))

    def _writing(self, duty: float, frequency_hz: float) -> tuple[Any, ...]:
        physical = 1 - duty if self._active_low else duty
        return "gpio.pwm_write", self._bus, self.claim, physical, frequency_hz

    def read(self) -> tuple[float, float]:
        duty, frequency_hz = self._link.call("gpio.pwm_read", self._bus, self.claim)
        return 1 - duty if self._active_low else duty, frequency_hz

    def recipes(self, duty: float, frequency_hz: float) -> list[Recipe]:
        return [self._recipe(self._writing(duty, frequency_hz))]


class SimulatedGpio(_SimulatedBus, GpioBus):
    def input(
        self,
        line: int | str,
        *,
        active_low: bool = False,
        bias: Bias = "as-is",
        debounce_s: float = 0.0,
        edges: bool = True,
    ) -> InputLine:
        link, claim = self._listening("gpio.input", line, bias, debounce_s, edges)
        return SimulatedInput(self, link, claim, active_low)

    def output(
        self, line: int | str, *, active: bool, active_low: bool = False, drive: Drive = "push-pull"
    ) -> OutputLine:
        link, claim = self._apart("gpio.output", line, active is not active_low, drive)
        return SimulatedOutput(link, self._board, claim, active_low=active_low, drive=drive)

    def pwm(
        self, line: int | str, *, duty: float, frequency_hz: float, active_low: bool = False
    ) -> PwmOutput:
        physical = 1 - duty if active_low else duty
        link, claim = self._apart("gpio.pwm", line, physical, frequency_hz)
        return SimulatedPwm(link, self._board, self.name, claim, active_low)


class SimulatedSerial(_SimulatedBus, SerialBus):
    def recipe(self, steps: Steps) -> Recipe:
        return self._recipe("serial.write", [step if isinstance(step, float) else (step,) for step in steps])

    def write(self, data: bytes) -> None:
        self._call("serial.write", data)

    def read(self, size: int, timeout_s: float) -> bytes:
        data: bytes = self._call("serial.read", size, timeout_s)
        return data

    def discard_input(self) -> None:
        self._call("serial.discard_input")

    def set_baud(self, baud: int) -> None:
        self.baud = baud  # the simulated line carries any speed

    def listen(self) -> Source:
        return _Arrivals(self._listening("serial.listen")[0], lambda chunk: chunk)


class SimulatedMqtt(_SimulatedBus, MqttBus):
    def recipe(self, steps: Steps) -> Recipe:
        return self._recipe("mqtt.publish", steps)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._call("mqtt.publish", topic, payload, retain)

    def subscribe(self, topics: tuple[str, ...], *, qos: int = 1) -> Source:
        link, _ = self._listening("mqtt.subscribe", topics)
        return _Arrivals(link, lambda chunk: MqttMessage(*chunk))


class SimulatedSpi(_SimulatedBus, SpiBus):
    def __init__(self, name: str, board: Place, by: str, max_speed_hz: int) -> None:
        super().__init__(name, board, by)
        self._max_speed_hz = max_speed_hz

    def transfer(self, data: bytes, *, max_speed_hz: int | None = None) -> bytes:
        speed_hz = min(self._max_speed_hz, max_speed_hz or self._max_speed_hz)
        answer: bytes = self._call("spi.transfer", data, speed_hz)
        return answer


class SimulatedOneWire(_SimulatedBus, OneWireBus):
    def devices(self) -> tuple[str, ...]:
        return tuple(self._call("w1.devices"))

    def read(self, device: str, file: str) -> str:
        return str(self._call("w1.read", device, file))

    def write(self, device: str, file: str, text: str) -> None:
        self._call("w1.write", device, file, text)


_HANDLES: dict[str, Callable[[str, Place, str], Handle]] = {
    "i2c": SimulatedI2c,
    "gpio": SimulatedGpio,
    "serial": SimulatedSerial,
    "mqtt": SimulatedMqtt,
    "w1": SimulatedOneWire,
}
