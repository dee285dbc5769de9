"""The rules of `check_driver` that need a chip: a driver from open to close on a simulated board."""

import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from device_agent.bus.config import BusConfig
from device_agent.driver import Actuator, Driver, DriverConfig, Flagged, Listener, Point, Sensor, Value
from device_agent.errors import AgentError, BusError, DriverError
from device_agent.testing.board import Board, SteppedClock, open_handle
from device_agent.testing.check import BUS, Rules, leaves_nothing
from device_agent.testing.chips import GpioChip, RegisterChip, SerialChip

# How long a simulated knob may take for one step of its quantity, and rest in its detent after it.
TURN_S = 0.5


def speak(board: Board, device: str, feed: Sequence[Any], clock: SteppedClock) -> None:
    """`feed` (bytes for a serial port, (topic, payload) for MQTT), or else whatever the chip can say."""
    bus, chip = str(board.devices[device].config.bus), board.chip(device)
    for chunk in feed:
        if isinstance(chunk, bytes):
            board.feed(bus, chunk)
        else:
            board.say(bus, *chunk)
    if chip is None or feed:
        return
    for quantity, value in chip.quantities().items():
        if isinstance(value, bool):  # a contact speaks by changing
            board.set(device, **{quantity: not value})
        if isinstance(chip, GpioChip) and not isinstance(value, bool | str):  # a knob, by being turned
            board.set(device, **{quantity: value + 1})
            clock.step(TURN_S)
            board.set(device, **{quantity: value})
            clock.step(TURN_S)
        board.set(device, **{quantity: value})
    if isinstance(chip, SerialChip) and chip.every_s is not None:
        clock.step(chip.every_s * 1.01)


# A driver may sleep this long inside a call; longer waits are `trigger` and `read` with `settle_s` between.
SLEEP_MAX_S = 0.05
# A bus that hangs is let go after this; real time, as a hung call knows no other.
HANG_S = 0.05
DEVICE = "device"
_BUSES = {
    "i2c": {"device": "simulated"},
    "gpio": {"chip": "simulated"},
    "serial": {"port": "simulated"},
    "mqtt": {"host": "simulated"},
    "spi": {"device": "simulated"},
    "w1": {},
}

Reading = Mapping[str, Value | Flagged]


def check_live(
    rules: Rules, model: DriverConfig, simulator: Callable[[Any], Any] | None, feed: Sequence[Any]
) -> None:
    """Raises AssertionError for the first rule that does not hold."""

    def check_rules() -> None:
        for rule in _RULES:
            with _TestRun(rules, model, simulator, feed) as run:
                rule(run)

    leaves_nothing(rules, check_rules)


class _TestRun:
    """One board with one device of the driver, fresh for each rule."""

    def __init__(
        self,
        rules: Rules,
        model: DriverConfig,
        simulator: Callable[[Any], Any] | None,
        feed: Sequence[Any],
    ) -> None:
        self.rules = rules
        self.model = model
        self.feed = feed
        self.clock = SteppedClock()
        kind = rules.driver.Bus.kind
        rules.require(
            kind in _BUSES, f"sits on a bus of kind {kind!r}, which the simulated board does not have"
        )
        bus: BusConfig = TypeAdapter(BusConfig).validate_python({"kind": kind, **_BUSES[kind]})
        # The driver itself, but with the simulator that the caller asked for.
        placed = (
            type(rules.driver.__name__, (rules.driver,), {"simulator": staticmethod(simulator)})
            if (simulator is not None)
            else rules.driver
        )
        self.board = Board({BUS: bus}, {DEVICE: (placed, model)}, clock=self.clock)
        self.handle = open_handle(BUS, bus, board=self.board)
        self.handle.open()
        self.device = self.new()
        self.points = {point.name: point for point in self.device.points}
        self.source: Any = None

    def new(self) -> Driver[Any, Any]:
        return self.rules.driver(self.model, self.handle, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.rules.require(
            seconds <= SLEEP_MAX_S,
            f"sleeps {seconds:g} s inside a call: above {SLEEP_MAX_S} s set `settle_s`, and split into "
            "`trigger` and `read`",
        )
        self.clock.step(seconds)

    def __enter__(self) -> "_TestRun":
        return self

    def __exit__(self, *_: object) -> None:
        self.unlisten()
        self.device.close()
        self.handle.close()
        self.board.close()

    # -- what the runtime does ----------------------------------------

    def open(self) -> None:
        self.device.open()
        if isinstance(self.device, Listener):
            self.source = self.device.listen()

    def unlisten(self) -> None:
        if self.source is not None:
            self.source.close()
            self.source = None

    def readings(self) -> list[Reading]:
        """The present reading: asked for, or announced after the far end was made to send."""
        device = self.device
        if isinstance(device, Sensor):
            device.trigger()
            self.clock.step(device.settle_s)
            return [device.read()]
        if isinstance(device, Listener):
            self.speak()
            return [values for chunk in self.source.drain() for values in device.feed(chunk)]
        return []

    def speak(self) -> None:
        speak(self.board, DEVICE, self.feed, self.clock)

    def values_to_write(self) -> dict[str, Value]:
        """For each writable point a value that is not its safe one, where there is another."""
        assert isinstance(self.device, Actuator)
        safe = type(self.device).safe_of(self.model)
        return {name: _other(point, safe[name]) for name, point in self.points.items() if point.write}

    def world(self) -> dict[str, Any]:
        """What the device makes happen: its chip's outputs, and the levels of GPIO lines."""
        chip = self.board.chip(DEVICE)
        lines = self.board.show()["buses"][BUS].get("lines", ())
        levels = {line["line"]: line.get("duty", line["level"]) for line in lines}
        return {**({} if chip is None else chip.outputs()), **levels}

    def check_reading(self, reading: Reading) -> None:
        self.rules.check_reading(self.points, reading)


# -- rules ------------------------------------------------------------------------------------------------


def _reads(run: _TestRun) -> None:
    run.open()
    readings = run.readings()
    for reading in readings:
        run.check_reading(reading)
    if isinstance(run.device, Sensor | Listener) and not run.rules.driver.bytes_side:
        run.rules.require(
            bool(readings), "says nothing although its far end spoke; pass `feed` if the simulator does not"
        )
        believed = [v for reading in readings for v in reading.values() if not isinstance(v, Flagged)]
        run.rules.require(
            any(value is not None for value in believed), "doubts every value of a healthy chip"
        )


def _parses_in_pieces(run: _TestRun) -> None:
    if not isinstance(run.device, Listener) or run.rules.driver.Bus.kind != "serial":
        return
    run.open()
    run.speak()
    whole, pieces, hostile = run.new(), run.new(), run.new()
    assert isinstance(whole, Listener)
    assert isinstance(pieces, Listener)
    assert isinstance(hostile, Listener)
    data = b"".join(run.source.drain())
    together = [dict(values) for values in whole.feed(data)]
    apart = [dict(values) for byte in data for values in pieces.feed(bytes((byte,)))]
    run.rules.require(together == apart, "parses bytes otherwise when they come one by one")
    chance = random.Random(1)
    for _ in range(50):
        try:
            readings = list(hostile.feed(chance.randbytes(64)))
        except AgentError:
            continue  # saying so is an answer
        for reading in readings:
            run.check_reading(reading)


def _writes_and_goes_safe(run: _TestRun) -> None:
    device = run.device
    if not isinstance(device, Actuator) or not any(point.write for point in device.points):
        return
    run.open()
    at_open = run.world()
    by_line: dict[int, int] = {}
    for entry in run.board.record.entries:
        if "line" in entry and entry["by"] == "daemon":
            by_line[entry["line"]] = by_line.get(entry["line"], 0) + 1
    blinked = [str(line) for line, count in by_line.items() if count > 1]
    run.rules.require(not blinked, f"moves line {', '.join(blinked)} more than once while it opens")
    wanted = run.values_to_write()
    _check_read_back(run, device.write(wanted), wanted)
    if at_open:
        run.rules.require(run.world() != at_open, f"writes {wanted} and nothing moves")
    device.safe()
    run.rules.require(
        run.world() == at_open, f"is not safe after `open`: {at_open}, but `safe` makes {run.world()}"
    )


def _check_read_back(run: _TestRun, read_back: Reading, wanted: Mapping[str, Value]) -> None:
    for name, value in read_back.items():
        run.rules.require(name in run.points, f"reads back {name!r}, which is none of its points")
        if name in wanted and not isinstance(value, Flagged):
            run.rules.require(
                _near(value, wanted[name]), f"was told {name} = {wanted[name]!r} and reads back {value!r}"
            )


def _opens_and_closes(run: _TestRun) -> None:
    run.device.close()  # never opened
    run.open()
    run.unlisten()
    run.device.open()  # after a fault, without a close
    run.device.close()
    run.device.close()
    run.open()
    for reading in run.readings():
        run.check_reading(reading)


def _survives_unplugging(run: _TestRun) -> None:
    run.open()
    run.board.fault(BUS, "unplug")
    _expect(run, BusError, "while its bus is unplugged")
    run.unlisten()
    run.device.close()
    run.board.fault(BUS, "replug")
    run.handle.close()
    run.handle.open()
    run.open()
    for reading in run.readings():
        run.check_reading(reading)


def _survives_silence(run: _TestRun) -> None:
    if run.rules.driver.Bus.kind not in ("i2c", "w1"):
        return
    run.open()
    run.board.fault(BUS, "nack")
    _expect(run, AgentError, "while its chip does not answer")
    try:
        run.device.open()
    except AgentError:
        run.device.close()
    else:
        # The kernel's files can be there although the sensor is not, so opening may ask nothing of them
        run.rules.require(run.rules.driver.Bus.kind == "w1", "opens although its chip does not answer")
    run.board.heal()
    run.open()


def _survives_a_hang(run: _TestRun) -> None:
    """A call that hung and returns late, or fails then, leaves nothing behind that spoils the next."""
    run.open()
    run.board.fault(BUS, "stuck")
    let_go = threading.Timer(HANG_S, run.board.heal)
    let_go.start()
    try:
        if isinstance(run.device, Sensor):
            run.readings()
        elif isinstance(run.device, Actuator):
            run.device.write(run.values_to_write())
    except AgentError:
        run.unlisten()
        run.device.close()
        run.open()
    finally:
        let_go.join()
    for reading in run.readings():
        run.check_reading(reading)


def _notices_a_reset(run: _TestRun) -> None:
    if run.rules.driver.Bus.kind != "i2c":
        return
    run.open()
    before = _settled(run)
    run.board.reset(DEVICE)
    try:
        after = _settled(run)
    except AgentError:
        run.open()  # noticed: the runtime configures it again
        after = _settled(run)
    _compare(run, before, after, "after its chip lost power and came back")


def _assumes_no_state(run: _TestRun) -> None:
    chip = run.board.chip(DEVICE)
    if not isinstance(chip, RegisterChip):
        return
    run.open()
    before = _settled(run)
    run.device.close()
    run.board.reset(DEVICE)
    for register in chip.written:
        chip[register] = ~chip[register]
    run.open()
    _compare(run, before, _settled(run), "where the program before left every register otherwise")


def _refuses_unknown_actions(run: _TestRun) -> None:
    try:
        run.device.do("no_such_action", {})
    except DriverError:
        return
    run.rules.broken("does not refuse an unknown action: `do` raises DriverError")


_RULES: tuple[Callable[[_TestRun], None], ...] = (
    _reads,
    _parses_in_pieces,
    _writes_and_goes_safe,
    _opens_and_closes,
    _survives_unplugging,
    _survives_silence,
    _survives_a_hang,
    _notices_a_reset,
    _assumes_no_state,
    _refuses_unknown_actions,
)


def _expect(run: _TestRun, error: type[AgentError], when: str) -> None:
    """Using the device raises this; nothing else, and not nothing."""
    try:
        if isinstance(run.device, Actuator) and any(point.write for point in run.device.points):
            run.device.write(run.values_to_write())
        elif isinstance(run.device, Sensor):
            run.readings()
        elif run.source is not None:
            run.source.drain()  # what had arrived before
            run.source.drain()
        else:
            return
    except error:
        return
    run.rules.broken(f"raises no {error.__name__} {when}")


def _settled(run: _TestRun) -> dict[str, Any]:
    """One reading and, for an actuator, what it makes happen; only what is the same twice."""
    twice = []
    for _ in range(2):
        if isinstance(run.device, Actuator):
            run.device.write(run.values_to_write())
        seen: dict[str, Any] = {f"output {name}": value for name, value in run.world().items()}
        if isinstance(run.device, Sensor):
            seen.update(run.readings()[0])
        twice.append(seen)
    first, second = twice
    return {name: value for name, value in second.items() if _near(first.get(name), value)}


def _compare(run: _TestRun, before: Mapping[str, Any], after: Mapping[str, Any], when: str) -> None:
    if any(isinstance(value, Flagged) for value in after.values()):
        return  # it said that something is doubtful
    for name, value in before.items():
        if isinstance(value, bool) and not name.startswith("output ") and after.get(name) is not value:
            return  # a point that says so, such as `lost_power`
    for name, value in before.items():
        if name in after and not _near(value, after[name]):
            run.rules.broken(f"gives {name} {after[name]!r} instead of {value!r} {when}, without a word")


def _near(a: Any, b: Any) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    if numbers and not isinstance(a, bool) and not isinstance(b, bool):
        return math.isclose(a, b, rel_tol=0.01, abs_tol=0.01)
    return bool(a == b)


def _other(point: Point, safe: Value) -> Value:
    if point.type == "boolean":
        return not safe
    if point.type == "string":
        return "ready" if safe != "ready" else "set"
    candidates = (point.maximum, point.minimum, 1.0 if safe != 1 else 0.0)
    chosen = next(value for value in candidates if value is not None and value != safe)
    return int(chosen) if point.type == "integer" else float(chosen)
