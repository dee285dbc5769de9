"""Any device with Modbus RTU: an energy meter, a drive, a relay board; registers by configuration.

Dialects that it was tried with: all four byte orders of numbers (ABCD, CDAB, BADC, DCBA), signs apart
from the amount, fields of bits, powers of ten in a register of their own (SunSpec), texts, other codes
than 1 and 0 for on and off with the state in another register, units that refuse long reads or blocks
across a border, relay boards that read coils only as a whole block, stray bytes around an answer,
answers that come late, gateways, unit numbers up to 255.
"""

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from typing import Annotated, Any, Literal

from device_agent.driver import (
    Actuator,
    ActuatorConfig,
    BadReading,
    Flag,
    Flagged,
    NoAnswer,
    Point,
    Sensor,
    SerialBus,
    Value,
    Values,
)
from device_agent.errors import BusTimeout
from device_agent.records import is_number
from device_agent.schema import Field, model_validator
from device_agent_drivers.configured import without_writing
from device_agent_drivers.far_end import at_once
from device_agent_drivers.modbus import (
    BAD_ADDRESS,
    BAD_VALUE,
    BIT_FUNCTIONS,
    BITS_PER_BYTE,
    REGISTERS_MAX,
    Master,
    ModbusException,
)
from device_agent_drivers.modbus_points import (
    NO_ANSWER,
    NO_EXPONENT,
    REFUSED,
    Block,
    ModbusPoint,
    Order,
    blocks_of,
)

CHECKSUM = Flagged(None, Flag.CHECKSUM)
READ_TRIES = 2
# Questions of one reading that may fail: after that the line is left to others.
FAILURES_MAX = 4
# A question and its answer hold the line for about this long at most: what makes safe waits for it.
TRANSACTION_S = 1.0
OVERHEAD_BYTES = 13  # of a question and of its answer, besides the data
# That, or one value at 110 baud, with the wait for a late answer before it.
ON_THE_LINE_S = 3.0
UNHEARD_ANSWER_S = 0.05

PointName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$", max_length=64)]


class ModbusRtuConfig(ActuatorConfig):
    driver: Literal["modbus-rtu"] = "modbus-rtu"
    unit: int = Field(  # type: ignore[assignment]  # its points have units of their own
        1, ge=1, le=255, description="The unit's number on the line; 1 to 247 by the standard."
    )
    points: Mapping[PointName, ModbusPoint] = Field(
        min_length=1, max_length=128, description="The unit's registers and bits, by name."
    )
    word_order: Order = Field(
        "big", description='Of values in several registers: "big" has the high word first.'
    )
    byte_order: Order = Field("big", description='Within a register: "big", as the standard has it.')
    max_registers: int = Field(
        REGISTERS_MAX, ge=1, le=REGISTERS_MAX, description="The most that the unit lets be read at once."
    )
    max_gap: int = Field(
        0,
        ge=0,
        le=32,
        description="Read on over so many registers that no point has, instead of asking twice.",
    )
    timeout_s: float = Field(
        0.3, ge=0.02, le=2, description="How long the unit may take to begin its answer."
    )
    gap_s: float = Field(
        0.005,
        ge=0.00175,
        le=0.05,
        description="Silence before a question: 3.5 characters, 4 ms at 9600 baud.",
    )
    echo: bool = Field(False, description="The adapter hears what it sends.")
    write_multiple: bool = Field(
        False, description="Write with functions 15 and 16 alone, neighbours in one go."
    )
    safe: Value | dict[str, Value] = Field({}, description="Safe values, where not given in `points`.")

    @model_validator(mode="after")
    def _states_are_points(self) -> "ModbusRtuConfig":
        for name, point in self.points.items():
            state = self.points.get(point.state or name)
            if point.state and (state is None or not state.is_boolean or state.state):
                raise ValueError(f"`state` of point {name} is {point.state!r}, which is no bool that is read")
        return self

    @model_validator(mode="after")
    def _moves_safely(self) -> "ModbusRtuConfig":
        for name, value in self.safe_values().items():
            if value is None:
                raise ValueError(f"point {name} can be written and needs a `safe` value")
            point = self.points[name]
            if isinstance(value, str) is not (point.type == "string") or (
                isinstance(value, bool) is not point.is_boolean
            ):
                raise ValueError(f"`safe` of point {name} is {value!r}, which is no value of its type")
        return self

    def safe_values(self) -> dict[str, Value]:
        given = self.safe if isinstance(self.safe, dict) else dict.fromkeys(self.points, self.safe)
        return {
            name: given.get(name) if point.safe is None else point.safe
            for name, point in self.points.items()
            if point.write
        }


class ModbusRtu(Sensor[ModbusRtuConfig, SerialBus], Actuator[ModbusRtuConfig, SerialBus]):
    """A read is tried twice, a write once: an unacknowledged write may have happened."""

    example = 'points.voltage = { kind = "input", address = 0, type = "float32", unit = "V" }'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self._master = Master(
            self.bus,
            config.unit,
            timeout_s=config.timeout_s,
            gap_s=config.gap_s,
            echo=config.echo,
            sleep=lambda seconds: self.sleep(seconds),
        )
        self._read_points = _read_points(config)
        self._blocks = self._blocks_of(self._read_points)
        self._refusals: dict[str, str] = {}

    def _blocks_of(self, names: Iterable[str]) -> list[Block]:
        return _blocks(self.config, self._read_points, names, self.bus.baud)

    @classmethod
    def points_of(cls, config: ModbusRtuConfig) -> tuple[Point, ...]:
        return tuple(point.point(name) for name, point in config.points.items())

    @classmethod
    def claims(cls, config: ModbusRtuConfig) -> tuple[str, ...]:
        return (f"unit {config.unit}",)

    @classmethod
    def safe_of(cls, config: ModbusRtuConfig) -> dict[str, Value]:
        return config.safe_values()

    @classmethod
    def step_limit_s(cls, config: ModbusRtuConfig) -> float:
        # `safe` is one call for all points.
        safe_s = len(config.safe_values()) * (UNHEARD_ANSWER_S + config.timeout_s)
        return ON_THE_LINE_S + config.timeout_s + safe_s

    @classmethod
    def reading_s(cls, config: ModbusRtuConfig, bus: Any) -> float:
        points = _read_points(config)
        blocks = _blocks(config, points, points, bus.baud)
        baud: int = bus.baud
        line_bytes = OVERHEAD_BYTES * len(blocks)
        for block in blocks:
            line_bytes += -(-block.count // 8) if block.function in BIT_FUNCTIONS else 2 * block.count
        return line_bytes * BITS_PER_BYTE / baud + config.gap_s * len(blocks)

    @staticmethod
    def simulator(config: ModbusRtuConfig) -> Any:
        from device_agent_drivers.simulated.modbus_rtu import SimulatedModbus

        return SimulatedModbus(config)

    @classmethod
    def to_read(cls, config: ModbusRtuConfig) -> ModbusRtuConfig:
        return without_writing(config)

    def open(self) -> None:
        safe = type(self).safe_of(self.config)
        if safe:
            try:
                at_once(self._send(safe))
            except BusTimeout as error:
                raise NoAnswer(str(error)) from error

    # -- reading ------------------------------------------------------------------------------------------

    def read(self) -> Values:
        return at_once(self.read_steps())

    def read_steps(self) -> Generator[None, None, Values]:
        """Points of a block that was refused or damaged are null; after silence, or after `FAILURES_MAX`,
        nothing more is requested.

        A block that the unit refuses for its length, or for a register that is not there, is read in halves
        from then on.
        """
        found: dict[str, Value | Flagged] = {}
        failed: list[NoAnswer | BadReading] = []
        refused: ModbusException | None = None
        got_one = False
        blocks, self._refusals = deque(self._blocks), {}
        while blocks:
            block = blocks.popleft()
            try:
                found |= yield from self._block(block, failed)
                got_one = True
            except ModbusException as refusal:
                if refusal.code in (BAD_ADDRESS, BAD_VALUE) and len(halves := block.halves()) > 1:
                    at = self._blocks.index(block)
                    self._blocks[at : at + 1] = halves
                    blocks.extendleft(reversed(halves))
                else:
                    refused = refusal
                    self._refusals[", ".join(block.points)] = str(refusal)
                    found |= dict.fromkeys(block.points, REFUSED)
            except BadReading:
                found |= dict.fromkeys(block.points, CHECKSUM)
            except NoAnswer:
                break
            if len(failed) >= FAILURES_MAX:
                break
            yield
        if not got_one and (failure := failed[-1] if failed else refused) is not None:
            raise failure
        return self._values(found)

    def notes(self) -> dict[str, int | str]:
        """Answers that came late, and what the unit refused in the last reading."""
        late = {"late_answers": self._master.late} if self._master.late else {}
        return {**late, **{f"refused {names}": why for names, why in self._refusals.items()}}

    def _values(self, found: Mapping[str, Value | Flagged]) -> dict[str, Value | Flagged]:
        """What was found, point by point: multiplied by its power of ten, and read where its state is."""
        values: dict[str, Value | Flagged] = {}
        for name, point in self.config.points.items():
            value = found.get(point.state or name, NO_ANSWER)
            if point.exponent is not None and is_number(value):
                exponent = found.get(f"{name} exponent", NO_ANSWER)
                value = float(f"{value}e{exponent:d}") if isinstance(exponent, int) else exponent
            values[name] = value
        return values

    def _block(
        self, block: Block, failed: list[NoAnswer | BadReading]
    ) -> Generator[None, None, dict[str, Value | Flagged]]:
        """What it holds; failures are added to `failed`. Raises ModbusException, or the last failure."""
        for tries_left in range(READ_TRIES - 1, -1, -1):
            try:
                data = self._master.read(block.function, block.address, block.count)
            except (NoAnswer, BadReading) as error:
                failed.append(error)
                if not tries_left or len(failed) >= FAILURES_MAX:
                    raise
                yield
                continue
            orders = self.config.word_order, self.config.byte_order
            return {
                name: bool(part[0]) if point.is_bit else point.decode(part, *orders)
                for name, point, part in block.parts(data)
            }
        raise AssertionError("unreachable")

    # -- writing ------------------------------------------------------------------------------------------

    def write(self, values: Mapping[str, Value]) -> Values:
        return at_once(self.write_steps(values))

    def write_steps(self, values: Mapping[str, Value]) -> Generator[None, None, Values]:
        yield from self._send(values)
        found: dict[str, Value | Flagged] = {}
        states = {self.config.points[name].state or name for name in values}
        for block in self._blocks_of(states):
            try:
                found |= yield from self._block(block, [])
            except ModbusException:
                found |= yield from self._as_read(states & block.points.keys())
            except (NoAnswer, BadReading):
                continue  # the write itself was acknowledged
            yield
        read_back = self._values(found)
        return {name: value for name in values if not isinstance(value := read_back[name], Flagged)}

    def _as_read(self, names: set[str]) -> Generator[None, None, dict[str, Value | Flagged]]:
        """These, in the blocks they are read in: some units give their coils only all at once."""
        found: dict[str, Value | Flagged] = {}
        for block in self._blocks:
            if names & block.points.keys():
                with contextlib.suppress(NoAnswer, BadReading, ModbusException):
                    found |= yield from self._block(block, [])
                yield
        return found

    def safe(self) -> None:
        # Who repeats these frames without listening, as the guard does, must leave room for each answer.
        self._master.gap_s = max(self.config.gap_s, UNHEARD_ANSWER_S)
        try:
            at_once(self._send(type(self).safe_of(self.config)))
        finally:
            self._master.gap_s = self.config.gap_s

    def _send(self, values: Mapping[str, Value]) -> Generator[None, None, None]:
        """Raises BusTimeout if the unit did not answer, ModbusException if it refused."""
        points, orders = self.config.points, (self.config.word_order, self.config.byte_order)
        data = {
            name: b"" if points[name].is_bit else points[name].encode(v, *orders)
            for name, v in values.items()
        }
        try:
            if self.config.write_multiple:
                for block in blocks_of(points, values, max_bytes=_data_bytes(self.bus.baud)):
                    self._send_block(block, values, data)
                    yield
                return
            for name, value in values.items():
                point = points[name]
                if point.is_bit:
                    self._master.write_coil(point.address, bool(value))
                elif point.size == 1:
                    self._master.write_register(point.address, int.from_bytes(data[name], "big"))
                else:
                    self._master.write_registers(point.address, data[name])
                yield
        except (NoAnswer, BadReading) as error:
            raise BusTimeout(f"the write may have happened, and it is not repeated: {error}") from error

    def _send_block(self, block: Block, values: Mapping[str, Value], data: Mapping[str, bytes]) -> None:
        if next(iter(block.points.values())).is_bit:
            self._master.write_coils(block.address, [bool(values[name]) for name in block.points])
        else:
            self._master.write_registers(block.address, b"".join(data[name] for name in block.points))


def _read_points(config: ModbusRtuConfig) -> dict[str, ModbusPoint]:
    """What is read, by name; powers of ten have names that no point can have."""
    points = {name: point for name, point in config.points.items() if point.state is None}
    for name, point in config.points.items():
        if point.exponent is not None:
            points[f"{name} exponent"] = ModbusPoint(
                kind=point.kind, address=point.exponent, type="int16", nothing=NO_EXPONENT
            )
    return points


def _blocks(
    config: ModbusRtuConfig, points: Mapping[str, ModbusPoint], names: Iterable[str], baud: int
) -> list[Block]:
    return blocks_of(
        points,
        names,
        max_registers=config.max_registers,
        max_bytes=_data_bytes(baud),
        max_gap=config.max_gap,
    )


def _data_bytes(baud: int) -> int:
    """How many bytes of data one transaction may carry; fewer than none at less than 150 baud."""
    return int(TRANSACTION_S * baud / BITS_PER_BYTE) - OVERHEAD_BYTES
