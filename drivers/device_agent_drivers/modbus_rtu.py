"""Any device with Modbus RTU: an energy meter, a drive, a relay board; registers by configuration."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

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
)
from device_agent.errors import BusTimeout
from device_agent_drivers.modbus import Master, ModbusException
from device_agent_drivers.modbus_points import NO_ANSWER, Block, ModbusPoint, WordOrder, blocks_of

CHECKSUM = Flagged(None, Flag.CHECKSUM)
READ_TRIES = 2
UNHEARD_ANSWER_S = 0.05

PointName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$", max_length=64)]


class ModbusRtuConfig(ActuatorConfig):
    driver: Literal["modbus-rtu"] = "modbus-rtu"
    unit: int = Field(1, ge=1, le=247, description="The unit's number on the line.")
    points: Mapping[PointName, ModbusPoint] = Field(
        min_length=1, max_length=128, description="The unit's registers and bits, by name."
    )
    word_order: WordOrder = Field(
        "big", description='Of values in several registers: "big" has the high word first.'
    )
    timeout_s: float = Field(0.3, ge=0.02, le=2, description="How long the unit may take to answer.")
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
    def _moves_safely(self) -> "ModbusRtuConfig":
        for name, value in self.safe_values().items():
            if value is None:
                raise ValueError(f"point {name} can be written and needs a `safe` value")
            if isinstance(value, bool) is not self.points[name].is_boolean or isinstance(value, str):
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
        self._blocks = blocks_of(config.points, config.points)

    @classmethod
    def points_of(cls, config: ModbusRtuConfig) -> tuple[Point, ...]:
        return tuple(point.point(name) for name, point in config.points.items())

    @classmethod
    def claims(cls, config: ModbusRtuConfig) -> tuple[str, ...]:
        return (f"unit {config.unit}",)

    @classmethod
    def safe_of(cls, config: ModbusRtuConfig) -> dict[str, Value]:
        return config.safe_values()

    @staticmethod
    def simulator(config: ModbusRtuConfig) -> Any:
        from device_agent_drivers.simulated.modbus_rtu import SimulatedModbus

        return SimulatedModbus(config)

    def open(self) -> None:
        safe = type(self).safe_of(self.config)
        if safe:
            try:
                self._send(safe)
            except BusTimeout as error:
                raise NoAnswer(str(error)) from error

    # -- reading ------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Value | Flagged]:
        """Points of a block that was refused or damaged are null; after silence nothing more is requested."""
        values: dict[str, Value | Flagged] = dict.fromkeys(self.config.points, NO_ANSWER)
        failed: NoAnswer | BadReading | None = None
        got_one = False
        for block in self._blocks:
            try:
                values.update(self._block(block))
                got_one = True
            except ModbusException:
                got_one = True
            except BadReading as error:
                failed = error
                values.update(dict.fromkeys(block.points, CHECKSUM))
            except NoAnswer as error:
                failed = error
                break
        if failed is not None and not got_one:
            raise failed
        return values

    def _block(self, block: Block) -> dict[str, Value | Flagged]:
        for tries_left in range(READ_TRIES - 1, -1, -1):
            try:
                data = self._master.read(block.function, block.address, block.count)
            except (NoAnswer, BadReading):
                if not tries_left:
                    raise
                continue
            order = self.config.word_order
            return {
                name: bool(part[0]) if point.is_bit else point.decode(part, order)
                for name, point, part in block.parts(data)
            }
        raise AssertionError("unreachable")

    # -- writing ------------------------------------------------------------------------------------------

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self._send(values)
        read_back: dict[str, Value] = {}
        for block in blocks_of(self.config.points, values):
            try:
                found = self._block(block)
            except (NoAnswer, BadReading, ModbusException):
                continue  # the write itself was acknowledged
            read_back |= {name: value for name, value in found.items() if not isinstance(value, Flagged)}
        return read_back

    def safe(self) -> None:
        # Who repeats these frames without listening, as the guard does, must leave room for each answer.
        self._master.gap_s = max(self.config.gap_s, UNHEARD_ANSWER_S)
        try:
            self._send(type(self).safe_of(self.config))
        finally:
            self._master.gap_s = self.config.gap_s

    def _send(self, values: Mapping[str, Value]) -> None:
        """Raises BusTimeout if the unit did not answer, ModbusException if it refused."""
        points, order = self.config.points, self.config.word_order
        data = {
            name: b"" if points[name].is_bit else points[name].encode(v, order) for name, v in values.items()
        }
        try:
            if self.config.write_multiple:
                for block in blocks_of(points, values):
                    self._send_block(block, values, data)
                return
            for name, value in values.items():
                point = points[name]
                if point.is_bit:
                    self._master.write_coil(point.address, bool(value))
                elif point.size == 1:
                    self._master.write_register(point.address, int.from_bytes(data[name], "big"))
                else:
                    self._master.write_registers(point.address, data[name])
        except (NoAnswer, BadReading) as error:
            raise BusTimeout(f"the write may have happened, and it is not repeated: {error}") from error

    def _send_block(self, block: Block, values: Mapping[str, Value], data: Mapping[str, bytes]) -> None:
        if next(iter(block.points.values())).is_bit:
            self._master.write_coils(block.address, [bool(values[name]) for name in block.points])
        else:
            self._master.write_registers(block.address, b"".join(data[name] for name in block.points))
