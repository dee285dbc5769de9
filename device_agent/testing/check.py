"""`check_driver`: the rules that every driver keeps, as a test that any package can call.

    def test_contract():
        check_driver(Tmp117, registers={0x0F: b"\\x01\\x17", 0x00: b"\\x0c\\x80"})

It drives the driver directly on a simulated board with a clock of its own: no daemon, no hardware, no wait.
"""

import gc
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from device_agent.config.unit_codes import unit_code
from device_agent.driver import (
    Action,
    Actuator,
    Driver,
    DriverConfig,
    Flagged,
    Listener,
    NoBus,
    Point,
    Sensor,
    Unit,
    Value,
)
from device_agent.records import is_number, is_whole
from device_agent.testing.chips import Chip, RegisterChip

AnyDriver = type[Driver[Any, Any]]
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
BUS = "bus"
# How long threads that are ending may take, all together, in seconds.
END_LIMIT_S = 2.0


def check_driver(
    driver: AnyDriver,
    config: DriverConfig | Mapping[str, Any] | None = None,
    *,
    registers: Mapping[int, bytes] | None = None,
    chip: Chip | Callable[[Any], Chip] | None = None,
    feed: Sequence[Any] = (),
) -> None:
    """Check one driver in one configuration. Raises AssertionError with a sentence that names the rule.

    `config`: the model or its options; None where every option has a default. The chip is made by the
    driver's own `simulator`, unless `registers` (of a `RegisterChip`) or `chip` is passed. `feed`: what the
    far end says so that a Listener has a reading, where its simulator does not speak by itself: bytes for
    a serial port, (topic, payload) pairs for MQTT.
    """
    from device_agent.testing.check_live import check_live

    rules = Rules(driver)
    rules.check_class()
    model = rules.model(config)
    rules.check_points(model)
    rules.check_actions()
    rules.check_claims(model)
    rules.check_safe_values(model)
    simulator = _simulator(rules, registers, chip)
    if driver.Bus.kind != NoBus.kind:
        check_live(rules, model, simulator, feed)
    else:
        _check_alone(rules, model)


def _check_alone(rules: "Rules", model: DriverConfig) -> None:
    """A driver without a bus runs on this machine, except for what it simulates itself."""

    def run() -> None:
        device = rules.driver(model, NoBus(simulated=True))
        device.close()  # never opened
        for _ in range(2):
            device.open()
            if isinstance(device, Sensor):
                device.trigger()
                time.sleep(device.settle_s)
                rules.check_reading({point.name: point for point in device.points}, device.read())
            device.close()
            device.close()

    leaves_nothing(rules, run)


def leaves_nothing(rules: "Rules", run: Callable[[], None]) -> None:
    """What is done in `run` leaves no thread and no file descriptor behind.

    Done again on suspicion: others in this process may begin something just then, a driver leaks each time.
    """
    if _left_by(run) and (left := _left_by(run)):
        rules.broken(left)


def _left_by(run: Callable[[], None]) -> str:
    gc.collect()
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    run()
    new = [thread for thread in threading.enumerate() if thread not in threads]
    deadline_s = time.monotonic() + END_LIMIT_S
    for thread in new:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    if left := [thread.name for thread in new if thread.is_alive()]:
        return f"leaves threads behind: {', '.join(left)}"
    more = len(os.listdir("/proc/self/fd")) > descriptors
    return "leaves a file descriptor open after `close`" if more else ""


def _simulator(
    rules: "Rules", registers: Mapping[int, bytes] | None, chip: Chip | Callable[[Any], Chip] | None
) -> Callable[[Any], Any] | None:
    if registers is not None:
        return lambda config: RegisterChip(registers)
    if isinstance(chip, Chip):
        return lambda config: chip
    if chip is not None:
        return chip
    if rules.driver.simulator is None and rules.driver.Bus.kind == "i2c":
        rules.broken("brings no `simulator`; give it one, or pass `registers` or `chip`")
    return rules.driver.simulator


class Rules:
    """The rules that need no hardware, and the way in which all are reported."""

    def __init__(self, driver: AnyDriver) -> None:
        self.driver = driver

    def broken(self, sentence: str, cause: BaseException | None = None) -> NoReturn:
        raise AssertionError(f"{getattr(self.driver, '__name__', self.driver)} {sentence}") from cause

    def require(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.broken(sentence)

    # -- the class ----------------------------------------

    def check_class(self) -> None:
        driver = self.driver
        self.require(
            isinstance(driver, type) and issubclass(driver, Driver), "is not a class derived from Driver"
        )
        config = driver.Config
        field = config.model_fields.get("driver")
        named = field is not None and get_origin(field.annotation) is Literal
        self.require(
            named, f'has a {config.__name__} without `driver: Literal["its-name"]`, so no file can name it'
        )
        self.require(
            config.model_config.get("extra") == "forbid" and bool(config.model_config.get("frozen")),
            f"has a {config.__name__} that is not frozen or takes unknown options: derive from DriverConfig",
        )
        try:
            config.model_json_schema()
        except PydanticUserError as error:
            self.broken(f"has a {config.__name__} that has no JSON schema: {error}", error)

    def name(self) -> str:
        return str(get_args(self.driver.Config.model_fields["driver"].annotation)[0])

    def model(self, config: DriverConfig | Mapping[str, Any] | None) -> DriverConfig:
        """The configuration as a model that sits on the simulated bus."""
        if isinstance(config, DriverConfig):
            options = config.model_dump(exclude_unset=True)
        else:
            options = dict(config or {})
        bus = None if self.driver.Bus.kind == NoBus.kind else BUS
        try:
            return self.driver.Config.model_validate({**options, "driver": self.name(), "bus": bus})
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
                for fault in error.errors()
            )
            self.broken(f"does not take the configuration {options}: pass a valid `config` ({faults})", error)

    # -- points and actions ----------------------------------------

    def check_points(self, model: DriverConfig) -> None:
        points = self.driver.points_of(model)
        self.require(
            isinstance(points, tuple) and all(isinstance(point, Point) for point in points),
            "has a `points_of` that does not return a tuple of Points",
        )
        self.require(bool(points) or self.driver.bytes_side, "has no point")
        names = [point.name for point in points]
        self.require(len(set(names)) == len(names), f"has two points of one name: {', '.join(names)}")
        for point in points:
            self._check_named(point.name, point.unit, f"point {point.name!r}")
            self._check_range(point.low, point.high, f"point {point.name}: low and high")
            self._check_range(point.minimum, point.maximum, f"point {point.name}: minimum and maximum")
            self.require(
                point.type in ("number", "integer") or point.unit == Unit.NONE,
                f"has point {point.name} of type {point.type} with unit {point.unit}: only numbers have one",
            )
            self.require(
                not point.write or issubclass(self.driver, Actuator),
                f"has writable point {point.name}, and is no Actuator",
            )

    def check_actions(self) -> None:
        for action in self.driver.actions:
            self.require(isinstance(action, Action), f"has {action!r} among its actions, which is no Action")
            self._check_named(action.name, Unit.NONE, f"action {action.name!r}")
            for argument in action.arguments:
                self._check_named(
                    argument.name, argument.unit, f"argument {argument.name!r} of {action.name}"
                )
                self._check_range(argument.minimum, argument.maximum, f"argument {argument.name}: its range")

    def _check_named(self, name: str, unit: str, what: str) -> None:
        self.require(NAME.fullmatch(name) is not None, f"has {what}: names are lower-case words joined by _")
        try:
            unit_code(unit)
        except ValueError as error:
            self.require(False, f"has {what} with unit {unit!r}, which {error}; take one of `Unit`")

    def _check_range(self, low: float | None, high: float | None, what: str) -> None:
        for bound in (low, high):
            self.require(bound is None or math.isfinite(bound), f"has {what} are not finite")
        if low is not None and high is not None:
            self.require(low < high, f"has {what} are {low} and {high}, which is no range")

    def check_claims(self, model: DriverConfig) -> None:
        claims = self.driver.claims(model)
        self.require(
            isinstance(claims, tuple) and all(isinstance(claim, str) and claim for claim in claims),
            f"has a `claims` that returns {claims!r}, not a tuple of sentences such as 'line 17'",
        )
        self.require(len(set(claims)) == len(claims), f"claims the same thing twice: {claims}")
        if self.driver.Bus.kind in ("i2c", "gpio"):
            what = "its address" if self.driver.Bus.kind == "i2c" else "its lines"
            self.require(bool(claims), f"claims nothing: two devices could share {what} unnoticed")

    # -- safe values ----------------------------------------

    def check_safe_values(self, model: DriverConfig) -> None:
        if not issubclass(self.driver, Actuator):
            return
        safe = self.driver.safe_of(model)
        for point in self.driver.points_of(model):
            if point.write:
                self.require(
                    safe.get(point.name) is not None, f"has no safe value for writable point {point.name}"
                )
                self.check_value(point, safe[point.name], "its safe value", written=True)

    def check_reading(self, points: Mapping[str, Point], reading: Mapping[str, Value | Flagged]) -> None:
        """A reading has every point (of a Listener: those said), no other, and values of their types."""
        missing, strange = sorted(points.keys() - reading.keys()), sorted(reading.keys() - points.keys())
        self.require(
            not missing or (issubclass(self.driver, Listener) and bool(reading)),
            f"gives a reading without {', '.join(missing)}: every point is in each",
        )
        self.require(not strange, f"gives a reading with {', '.join(strange)}, which is none of its points")
        for name, value in reading.items():
            plain = value.value if isinstance(value, Flagged) else value
            self.check_value(points[name], plain, "the value")

    def check_value(self, point: Point, value: Value, what: str, *, written: bool = False) -> None:
        """A value fits its point's type; with `written` also its range."""
        if value is None:
            return
        if point.type == "boolean":
            fits = isinstance(value, bool)
        elif point.type == "string":
            fits = isinstance(value, str)
        elif point.type == "integer":
            fits = is_whole(value)
        else:
            fits = is_number(value) and math.isfinite(value)
        self.require(fits, f"gives point {point.name} ({point.type}) {what} {value!r}")
        if written and isinstance(value, int | float):
            low = -math.inf if point.minimum is None else point.minimum
            high = math.inf if point.maximum is None else point.maximum
            self.require(
                low <= value <= high, f"gives point {point.name} {what} {value}, outside {low} to {high}"
            )
