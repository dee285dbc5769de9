"""Points in Modbus registers: their declaration, how registers become a value and back, how reads are joined.

Addresses count from 0, as on the wire: a manual's register 40001 is `kind = "holding"`, `address = 0`.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from device_agent.driver import DriverError, Flag, Flagged, Point, Value
from device_agent.records import ValueType
from device_agent.schema import BaseModel, ConfigDict, Field, model_validator
from device_agent_drivers.configured import bits_of
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

Order = Literal["big", "little"]
NO_ANSWER = Flagged(None, Flag.NO_ANSWER)
OVERFLOW = Flagged(None, Flag.OVERFLOW)
REFUSED = Flagged(None, Flag.REFUSED)
NO_EXPONENT = -0x8000  # of a SunSpec scale factor that does not apply


class ModbusPoint(BaseModel):
    """One entry of the `points` table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["coil", "discrete", "holding", "input"] = "holding"
    address: int = Field(ge=0, le=0xFFFF, description="From 0, as on the wire; of the first register.")
    type: Literal[
        "bool", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "string"
    ] = Field("uint16", description="Coils and discrete inputs are bool.")
    length: int | None = Field(None, ge=1, le=REGISTERS_MAX, description="type string: how many registers.")
    word_order: Order | None = Field(None, description="Of several registers; else the device's.")
    byte_order: Order | None = Field(None, description="Within a register; else the device's.")
    bit: int | None = Field(
        None, ge=0, le=15, description="type bool: the bit of the register, 0 the lowest."
    )
    mask: int | None = Field(
        None, ge=1, le=2**64 - 1, description="Integers: the bits of the value, shifted down."
    )
    sign_magnitude: bool = Field(
        False, description="Signed types: the highest bit is the sign, the others are the amount."
    )
    scale: float = Field(
        1.0, description="What is in the register is multiplied by this, then `offset` added."
    )
    offset: float = Field(0.0, description="In the point's unit.")
    exponent: int | None = Field(
        None,
        ge=0,
        le=0xFFFF,
        description="Address of the power of ten to multiply by, an int16 (SunSpec). "
        "Where it changes, let `max_gap` reach it: both then come in one answer.",
    )
    nothing: int | None = Field(
        None, description="The number in the register by which the device says that it has no value."
    )
    on: int | None = Field(None, ge=0, le=0xFFFF, description="type bool: the number for true; else 1.")
    off: int | None = Field(None, ge=0, le=0xFFFF, description="type bool: the number for false; else 0.")
    state: str | None = Field(
        None, description="The point where a writable bool is read back, if not in its own register."
    )
    unit: str = Field("", description="UCUM, such as V, A, kW.h.")
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
        if (self.length is None) is (self.type == "string"):
            raise ValueError("`length` is for type string, which needs it")
        if self.write and (self.kind in ("discrete", "input") or self.bit is not None):
            raise ValueError("only a coil or a whole holding register can be written")
        if self.address + self.size > 0x10000:
            raise ValueError(f"{self.size} registers from {self.address} go beyond the last, 65535")
        if self.scale == 0:
            raise ValueError("`scale` must not be 0")
        if self.mask is not None and self.mask >= 1 << 16 * self.size:
            raise ValueError(f"`mask` has more bits than {self.type}")
        for option, fits, types in self._type_rules():
            if option in self.model_fields_set and not fits:
                raise ValueError(f"`{option}` is for {types}")
        return self

    def _type_rules(self) -> Iterator[tuple[str, bool, str]]:
        """Option, whether it goes with the others, and with what it does."""
        in_register = self.type == "bool" and not self.is_bit
        yield "bit", in_register, "type bool in a register"
        yield "on", in_register and self.bit is None, "type bool in a whole register"
        yield "off", in_register and self.bit is None, "type bool in a whole register"
        yield "state", self.is_boolean and self.write, "a bool that can be written"
        masked = "int" in self.type and not self.write and not self.sign_magnitude
        yield "mask", masked, "integers that are not written"
        yield "sign_magnitude", self.type.startswith("int"), "signed types"
        for option in ("scale", "offset", "unit"):
            yield option, not self.is_boolean and self.type != "string", "numbers"
        yield (
            "exponent",
            not self.is_boolean and self.type != "string" and not self.write,
            ("numbers that are not written"),
        )

    @property
    def is_bit(self) -> bool:
        return self.kind in ("coil", "discrete")

    @property
    def is_boolean(self) -> bool:
        return self.is_bit or self.type == "bool"

    @property
    def size(self) -> int:
        """How many registers, or bits."""
        if self.is_bit:
            return 1
        return self.length or struct.calcsize(FORMATS[self.type]) // 2

    def point(self, name: str) -> Point:
        whole = "int" in self.type and self.scale == 1 and self.offset == 0 and self.exponent is None
        type_: ValueType = "integer" if whole else "number"
        if self.is_boolean or self.type == "string":
            type_ = "boolean" if self.is_boolean else "string"
        return Point(
            name,
            self.unit,
            type_,
            low=self.low,
            high=self.high,
            write=self.write,
            minimum=self.minimum,
            maximum=self.maximum,
            description=self.description,
            resolution=abs(self.scale) if self.write and "int" in self.type else None,
        )

    # -- registers and values ----------------------------------------

    def decode(self, data: bytes, order: Order, byte_order: Order = "big") -> Value | Flagged:
        """The value of its registers. A meter sends NaN for a value that it does not have."""
        data = self._ordered(data, order, byte_order)
        if self.type == "string":
            text = data.partition(b"\0")[0].strip()
            return text.decode("ascii") if text.isascii() else Flagged(None, Flag.CHECKSUM)
        raw = struct.unpack(FORMATS[self.type], data)[0]
        if self.nothing is not None and raw == self.nothing:
            return NO_ANSWER
        if self.type == "bool":
            return self._decode_bool(raw)
        if not math.isfinite(raw):
            return NO_ANSWER if math.isnan(raw) else OVERFLOW
        if self.mask is not None:
            raw = bits_of(raw, self.mask, signed=self.type.startswith("int"))
        if self.sign_magnitude and raw < 0:
            raw = -(raw + (1 << 16 * self.size - 1))
        if self.scale == 1 and self.offset == 0:
            return raw  # type: ignore[no-any-return]
        return float(f"{raw * self.scale + self.offset:.15g}")

    def _decode_bool(self, raw: int) -> Value | Flagged:
        if self.bit is not None:
            return bool(raw >> self.bit & 1)
        if self.on is None and self.off is None:
            return bool(raw)
        if raw in (self._on, self._off):
            return raw == self._on
        return NO_ANSWER  # such as the code of a movement under way

    @property
    def _on(self) -> int:
        return 1 if self.on is None else self.on

    @property
    def _off(self) -> int:
        return 0 if self.off is None else self.off

    def encode(self, value: Value, order: Order, byte_order: Order = "big") -> bytes:
        """Its registers for this value. Raises DriverError for a value that they cannot hold."""
        if self.type == "string":
            text = str(value).encode("ascii", "replace")
            if not str(value).isascii() or len(text) > 2 * self.size:
                raise DriverError(f"{value!r} does not fit {2 * self.size} ASCII characters")
            return self._ordered(text.ljust(2 * self.size, b"\0"), order, byte_order)
        raw: float = math.nan
        if isinstance(value, bool):
            raw = self._on if value else self._off
        elif isinstance(value, int | float):
            plain = self.scale == 1 and self.offset == 0
            raw = value if plain else (value - self.offset) / self.scale
        try:
            if not self.type.startswith("float"):
                raw = round(raw)
            if self.sign_magnitude and raw < 0:
                raw = -raw - (1 << 16 * self.size - 1)
            packed = struct.pack(FORMATS[self.type], raw)
        except (struct.error, ValueError, OverflowError) as error:
            raise DriverError(
                f"{value!r} does not fit {self.type} at address {self.address}: {error}"
            ) from error
        return self._ordered(packed, order, byte_order)

    def _ordered(self, data: bytes, order: Order, byte_order: Order) -> bytes:
        """High byte and high word first, and back; a string's words are never turned round."""
        words = [data[at : at + 2] for at in range(0, len(data), 2)]
        if (self.byte_order or byte_order) == "little":
            words = [word[::-1] for word in words]
        if (self.word_order or order) == "little" and self.type != "string":
            words.reverse()
        return b"".join(words)


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

    def halves(self) -> "list[Block]":
        """The same points in two requests; one where all begin at the same address."""
        addresses = sorted({point.address for point in self.points.values()})
        middle = addresses[len(addresses) // 2]
        low = [name for name, point in self.points.items() if point.address < middle]
        high = [name for name in self.points if name not in low]
        return [block for names in (low, high) if names for block in blocks_of(self.points, names)]


def blocks_of(
    points: Mapping[str, ModbusPoint],
    names: Iterable[str],
    *,
    max_registers: int = REGISTERS_MAX,
    max_bytes: int = 2 * REGISTERS_MAX,
    max_gap: int = 0,
) -> list[Block]:
    """What to read for these points, at most `max_registers` and `max_bytes` at once.

    Points join that have at most `max_gap` registers between them: in a gap there may be none to read.
    """
    blocks: list[Block] = []
    wanted = sorted((FUNCTIONS[points[name].kind], points[name].address, name) for name in names)
    for function, address, name in wanted:
        point, last = points[name], blocks[-1] if blocks else None
        most = min(BITS_MAX, 8 * max_bytes) if point.is_bit else min(max_registers, max_bytes // 2)
        end = address + point.size
        near = last and last.function == function and address <= last.address + last.count + max_gap
        if last and near and max(end - last.address, last.count) <= most:
            last.count = max(end - last.address, last.count)
            last.points[name] = point
            continue
        blocks.append(Block(function, address, point.size, {name: point}))
    return blocks
