"""Points in Modbus registers: their declaration, how registers become a value and back, how reads are joined.

Addresses count from 0, as on the wire: a manual's register 40001 is `kind = "holding"`, `address = 0`.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from device_agent.driver import DriverError, Flag, Flagged, Point, Unit, Value
from device_agent_drivers.modbus import (
    BITS_MAX,
    READ_COILS,
    READ_DISCRETE,
    READ_HOLDING,
    READ_INPUT,
    REGISTERS_MAX,
)

FUNCTIONS = {"coil": READ_COILS, "discrete": READ_DISCRETE, "holding": READ_HOLDING, "input": READ_INPUT}
FORMATS = {
    "bool": ">H", "uint16": ">H", "int16": ">h", "uint32": ">I", "int32": ">i",
    "uint64": ">Q", "int64": ">q", "float32": ">f", "float64": ">d",
}  # fmt: skip

WordOrder = Literal["big", "little"]
NO_ANSWER = Flagged(None, Flag.NO_ANSWER)
OVERFLOW = Flagged(None, Flag.OVERFLOW)


class ModbusPoint(BaseModel):
    """One entry of the `points` table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["coil", "discrete", "holding", "input"] = "holding"
    address: int = Field(ge=0, le=0xFFFF, description="From 0, as on the wire; of the first register.")
    type: Literal["bool", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"] = (
        Field("uint16", description="Coils and discrete inputs are bool.")
    )
    word_order: WordOrder | None = Field(None, description="Of several registers; else the device's.")
    bit: int | None = Field(
        None, ge=0, le=15, description="type bool: the bit of the register, 0 the lowest."
    )
    scale: float = Field(
        1.0, description="What is in the register is multiplied by this, then `offset` added."
    )
    offset: float = Field(0.0, description="In the point's unit.")
    nothing: int | None = Field(
        None, description="The number in the register by which the device says that it has no value."
    )
    unit: Unit = Field(Unit.NONE, description="UCUM, such as V, A, kW.h.")
    low: float | None = None
    high: float | None = None
    write: bool = Field(False, description="Whether it can be set; coil and holding alone.")
    minimum: float | None = None
    maximum: float | None = None
    safe: Value = Field(None, description="What a writable point is set to when in doubt.")
    description: str = Field("", max_length=200)

    @model_validator(mode="after")
    def _fits_together(self) -> "ModbusPoint":
        if self.is_bit and "type" in self.model_fields_set and self.type != "bool":
            raise ValueError(f"a {self.kind} is one bit: leave out `type`, or set bool")
        if self.bit is not None and (self.is_bit or self.type != "bool"):
            raise ValueError("`bit` is for type bool in a register")
        if self.write and (self.kind in ("discrete", "input") or self.bit is not None):
            raise ValueError("only a coil or a whole holding register can be written")
        if self.address + self.size > 0x10000:
            raise ValueError(f"{self.size} registers from {self.address} go beyond the last, 65535")
        if self.scale == 0:
            raise ValueError("`scale` must not be 0")
        if self.is_boolean and (self.scale != 1 or self.offset != 0 or self.unit is not Unit.NONE):
            raise ValueError("a bool has no `scale`, `offset` or `unit`")
        return self

    @property
    def is_bit(self) -> bool:
        return self.kind in ("coil", "discrete")

    @property
    def is_boolean(self) -> bool:
        return self.is_bit or self.type == "bool"

    @property
    def size(self) -> int:
        """How many registers, or bits."""
        return 1 if self.is_bit else struct.calcsize(FORMATS[self.type]) // 2

    def point(self, name: str) -> Point:
        whole = "int" in self.type and self.scale == 1 and self.offset == 0
        kind: Literal["boolean", "integer", "number"] = "integer" if whole else "number"
        return Point(
            name,
            self.unit,
            "boolean" if self.is_boolean else kind,
            low=self.low,
            high=self.high,
            write=self.write,
            minimum=self.minimum,
            maximum=self.maximum,
            description=self.description,
        )

    # -- words and values ----------------------------------------

    def decode(self, data: bytes, order: WordOrder) -> Value | Flagged:
        """The value of its registers. A meter sends NaN for a value that it does not have."""
        raw = struct.unpack(FORMATS[self.type], _ordered(data, self.word_order or order))[0]
        if self.nothing is not None and raw == self.nothing:
            return NO_ANSWER
        if self.type == "bool":
            return bool(raw if self.bit is None else raw >> self.bit & 1)
        if not math.isfinite(raw):
            return NO_ANSWER if math.isnan(raw) else OVERFLOW
        if self.scale == 1 and self.offset == 0:
            return raw  # type: ignore[no-any-return]
        return float(f"{raw * self.scale + self.offset:.12g}")

    def encode(self, value: Value, order: WordOrder) -> bytes:
        """Its registers for this value. Raises DriverError for a value that they cannot hold."""
        number = float(value) if isinstance(value, int | float) else math.nan
        raw = (number - self.offset) / self.scale
        try:
            packed = struct.pack(FORMATS[self.type], raw if self.type.startswith("float") else round(raw))
        except (struct.error, ValueError, OverflowError) as error:
            raise DriverError(
                f"{value!r} does not fit {self.type} at address {self.address}: {error}"
            ) from error
        return _ordered(packed, self.word_order or order)


def _ordered(data: bytes, order: WordOrder) -> bytes:
    """Reverses words whose low one comes first; bytes within a word are always high first."""
    if order == "big":
        return data
    return b"".join(data[at : at + 2] for at in range(len(data) - 2, -2, -2))


@dataclass(slots=True)
class Block:
    """Adjacent registers that are read in one request."""

    function: int
    address: int
    count: int
    points: dict[str, ModbusPoint]

    def parts(self, data: bytes) -> Iterator[tuple[str, ModbusPoint, bytes]]:
        """Each point's own bytes; of a bit a single 0 or 1."""
        for name, point in self.points.items():
            at = point.address - self.address
            if point.is_bit:
                yield name, point, bytes((data[at // 8] >> at % 8 & 1,))
            else:
                yield name, point, data[2 * at : 2 * (at + point.size)]


def blocks_of(points: Mapping[str, ModbusPoint], names: Iterable[str]) -> list[Block]:
    """What to read for these points. Only adjacent registers join: in a gap there may be none to read."""
    blocks: list[Block] = []
    wanted = sorted((FUNCTIONS[points[name].kind], points[name].address, name) for name in names)
    for function, address, name in wanted:
        point, last = points[name], blocks[-1] if blocks else None
        most = BITS_MAX if point.is_bit else REGISTERS_MAX
        end = address + point.size
        touches = last and last.function == function and address <= last.address + last.count
        if last and touches and max(end - last.address, last.count) <= most:
            last.count = max(end - last.address, last.count)
            last.points[name] = point
            continue
        blocks.append(Block(function, address, point.size, {name: point}))
    return blocks
