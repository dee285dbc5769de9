"""Registers as a configuration describes them: where, how wide, which bits, what they mean."""

from dataclasses import replace
from typing import Literal

from device_agent.driver import DriverError, Point, Value
from device_agent.schema import BaseModel, ConfigDict, Field, model_validator
from device_agent_drivers.configured import PointOptions, bits_of

WidthBits = Literal[8, 16, 24, 32]
ByteOrder = Literal["big", "little"]
# What a line of text has and a register has not
TEXT_OPTIONS = frozenset(("decimal", "true", "false", "path", "where", "time"))


class RegisterPoint(PointOptions):
    """A point in a register: its value is the register's, masked, times `scale`, plus `offset`."""

    # `register` is a method of every model's class, but the configuration key has that name
    model_config = ConfigDict(populate_by_name=True)

    register_: int = Field(alias="register", ge=0, le=0xFFFF, description="Address of its first byte.")
    width_bits: WidthBits = Field(8, description="Size of the register: 8, 16, 24 or 32.")
    signed: bool = Field(False, description="Two's complement, of the masked bits where there is a mask.")
    byte_order: ByteOrder = Field("big", description="Which byte comes first on the wire.")
    mask: int | None = Field(None, gt=0, le=0xFFFFFFFF, description="The point's bits, next to each other.")

    @model_validator(mode="after")
    def _is_a_register(self) -> "RegisterPoint":
        if strange := sorted(TEXT_OPTIONS & self.model_fields_set):
            raise ValueError(f"`{strange[0]}` is for points in text, not in a register: remove it")
        if self.type == "string":
            raise ValueError("a register holds no string: `type` is number, integer or boolean")
        if self.mask is not None:
            if self.mask >> self.width_bits:
                raise ValueError(f"`mask` {self.mask:#x} is wider than {self.width_bits} bits")
            if (self._field + 1) & self._field:
                raise ValueError(f"`mask` {self.mask:#x} has a gap: write one point for each group of bits")
        if self.write:
            for name in ("minimum", "maximum", "safe"):
                value = getattr(self, name)
                if value is not None and not self._fits(self._raw(value)):
                    low, high = self.limits
                    raise ValueError(
                        f"`{name}` is {value!r}, but the register reaches from {low:g} to {high:g}"
                    )
        return self

    @property
    def size_bytes(self) -> int:
        return self.width_bits // 8

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and largest value that the bits can hold, in the point's unit."""
        ends = (self._value(self._lowest), self._value(self._lowest + self._field))
        return min(ends), max(ends)

    def point(self, name: str) -> Point:
        """A writable number goes no further than its bits."""
        if not self.write or self.type == "boolean":
            return super().point(name)
        low, high = self.limits
        return replace(
            super().point(name),
            minimum=low if self.minimum is None else self.minimum,
            maximum=high if self.maximum is None else self.maximum,
            resolution=abs(self.scale),
        )

    def decode(self, data: bytes) -> Value:
        """From the register's bytes."""
        mask = self._field << self._shift
        raw = bits_of(int.from_bytes(data, self.byte_order), mask, signed=self.signed)
        if self.type == "boolean":
            return raw != 0
        value = self._value(raw)
        return round(value) if self.type == "integer" else value

    def encode(self, value: Value, before: bytes) -> bytes:
        """The register's bytes with this value in them; bits outside the mask stay. Raises DriverError."""
        raw = self._raw(value)
        if not self._fits(raw):
            low, high = self.limits
            raise DriverError(
                f"{value!r} does not fit into the register: it reaches from {low:g} to {high:g}"
            )
        kept = int.from_bytes(before, self.byte_order) & ~(self._field << self._shift)
        return (kept | (raw & self._field) << self._shift).to_bytes(self.size_bytes, self.byte_order)

    @property
    def _shift(self) -> int:
        return 0 if self.mask is None else (self.mask & -self.mask).bit_length() - 1

    @property
    def _field(self) -> int:
        """The point's bits, moved down to bit 0."""
        return (1 << self.width_bits) - 1 if self.mask is None else self.mask >> self._shift

    @property
    def _lowest(self) -> int:
        return -(self._field + 1 >> 1) if self.signed else 0

    def _fits(self, raw: int) -> bool:
        return 0 <= raw - self._lowest <= self._field

    def _value(self, raw: int) -> float:
        if self.scale == 1 and self.offset == 0:
            return raw
        return float(f"{raw * self.scale + self.offset:.12g}")

    def _raw(self, value: Value) -> int:
        if isinstance(value, bool):
            return int(value)
        if not isinstance(value, int | float):
            raise DriverError(f"a register holds numbers, not {value!r}")
        return round((value - self.offset) / self.scale)


class RegisterValue(BaseModel):
    """A register and what it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    register_: int = Field(alias="register", ge=0, le=0xFFFF, description="Address of its first byte.")
    value: int = Field(ge=0, le=0xFFFFFFFF)
    width_bits: WidthBits = 8
    byte_order: ByteOrder = "big"
    mask: int = Field(0xFFFFFFFF, gt=0, le=0xFFFFFFFF, description="The bits that are compared.")

    @model_validator(mode="after")
    def _fits(self) -> "RegisterValue":
        if self.value >> self.width_bits:
            raise ValueError(f"`value` {self.value:#x} is wider than {self.width_bits} bits")
        return self

    @property
    def data(self) -> bytes:
        return self.value.to_bytes(self.width_bits // 8, self.byte_order)

    def holds(self, data: bytes) -> bool:
        return not (int.from_bytes(data, self.byte_order) ^ self.value) & self.mask


class Setup(RegisterValue):
    """A register that is written when the chip is opened, before any point."""

    check: bool = Field(True, description="It reads as written: otherwise the chip was reset.")
