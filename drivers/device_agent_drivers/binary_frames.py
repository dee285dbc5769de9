"""Binary frames that the configuration describes: their start, length, checksum, and what stands where."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from device_agent.schema import BaseModel, ConfigDict, Field, model_validator
from device_agent_drivers.checksums import (
    crc16_ibm_3740,
    crc16_modbus,
    negated_sum8,
    sum8,
    sum16,
    xor8,
)
from device_agent_drivers.configured import PointOptions, bits_of

# By name: the function, how many bytes it gives, and their order
CHECKSUMS = {
    "sum8": (sum8, 1, "big"),
    "negated-sum8": (negated_sum8, 1, "big"),
    "xor8": (xor8, 1, "big"),
    "sum16": (sum16, 2, "big"),
    "crc16-modbus": (crc16_modbus, 2, "little"),
    "crc16-ccitt": (crc16_ibm_3740, 2, "big"),
}
Checksum = Literal["none", "sum8", "negated-sum8", "xor8", "sum16", "crc16-modbus", "crc16-ccitt"]
Code = Literal["u8", "i8", "u16", "i16", "u24", "u32", "i32", "u64", "i64", "f32"]
Order = Literal["big", "little"]
FRAME_MAX_BYTES = 1024


class FramePointOptions(PointOptions):
    """A point in a frame. `where` has places of bytes as its keys: `{ 1 = 0x86 }`."""

    at: int = Field(
        0, ge=-1024, le=1023, description="Its first byte, from 0; negative from the frame's end."
    )
    code: Code = Field("u8", description="How it is written: u unsigned, i signed, f float, and bits.")
    byte_order: Order | None = Field(None, description="Where it is another one than the frame's.")
    mask: int | None = Field(None, ge=1, description="Only these bits, moved down to the lowest.")

    @property
    def size(self) -> int:
        return int(self.code[1:]) // 8

    def number(self, frame: bytes, order: Order) -> float | None:
        """What stands there; None in a frame that is too short."""
        at = self.at if self.at >= 0 else len(frame) + self.at
        data = frame[at : at + self.size] if at >= 0 else b""
        if len(data) < self.size:
            return None
        order = self.byte_order or order
        if self.code == "f32":
            value: float = struct.unpack("<f" if order == "little" else ">f", data)[0]
            return value
        signed = self.code.startswith("i")
        number = int.from_bytes(data, order, signed=signed)
        if self.mask is not None:
            number = bits_of(number, self.mask, signed=signed)
        return bool(number) if self.type == "boolean" else number

    def put(self, frame: bytearray, order: Order, wire: float) -> None:
        """Write it into a frame; the far end's side, for simulators."""
        order = self.byte_order or order
        at = self.at if self.at >= 0 else len(frame) + self.at
        if self.code == "f32":
            struct.pack_into("<f" if order == "little" else ">f", frame, at, wire)
            return
        number = round(wire)
        if self.mask is not None:
            shift = (self.mask & -self.mask).bit_length() - 1
            before = int.from_bytes(frame[at : at + self.size], order)
            number = before & ~self.mask | number << shift & self.mask
        frame[at : at + self.size] = (number % (1 << 8 * self.size)).to_bytes(self.size, order)


class FrameFormat(BaseModel):
    """What a frame looks like. The checksum is the last before `end`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: str = Field(pattern="^ *([0-9A-Fa-f]{2} *)+$", max_length=64, description='Such as "AA C0".')
    end: str = Field("", pattern="^ *([0-9A-Fa-f]{2} *)*$", max_length=16, description="Its last bytes.")
    length: int | None = Field(None, ge=2, le=FRAME_MAX_BYTES, description="Of the whole frame, bytes.")
    length_at: int | None = Field(None, ge=0, le=63, description="Instead: the byte that tells the length.")
    length_size: Literal[1, 2] = Field(1, description="Bytes that tell the length.")
    length_add: int = Field(0, ge=-16, le=64, description="The whole frame has so many bytes more than told.")
    longest: int = Field(
        FRAME_MAX_BYTES, ge=4, le=FRAME_MAX_BYTES, description="With `length_at`: more is no frame's length."
    )
    byte_order: Order = Field("big", description="Of values and of the length.")
    checksum: Checksum = Field(
        "none",
        description="Without one, noise may look like a frame; without `end` too, only frames that follow "
        "each other are believed.",
    )
    checksum_from: int = Field(0, ge=0, le=63, description="The first byte that it covers.")

    @model_validator(mode="after")
    def _has_a_length(self) -> "FrameFormat":
        if (self.length is None) is (self.length_at is None):
            raise ValueError("give either `length` or `length_at`")
        return self

    @property
    def head(self) -> bytes:
        return bytes.fromhex(self.start)

    def size(self, data: bytes) -> int | None:
        """Of the frame that begins here; None while that is not known, 0 if none can begin here."""
        least = len(self.head) + len(bytes.fromhex(self.end)) + self._sum_size
        if self.length_at is None:
            return self.length
        told = data[self.length_at : self.length_at + self.length_size]
        if len(told) < self.length_size:
            return None
        size = int.from_bytes(told, self.byte_order) + self.length_add
        return size if max(least, self.length_at + self.length_size) <= size <= self.longest else 0

    def is_true(self, frame: bytes) -> bool:
        return frame.endswith(bytes.fromhex(self.end)) and self._sealed(frame) == frame

    @property
    def proves_itself(self) -> bool:
        return self.checksum != "none" or bool(self.end)

    @property
    def _sum_size(self) -> int:
        return 0 if self.checksum == "none" else CHECKSUMS[self.checksum][1]

    def _sealed(self, frame: bytes) -> bytes:
        """With the checksum that it should have."""
        if self.checksum == "none":
            return frame
        function, size, order = CHECKSUMS[self.checksum]
        at = len(frame) - len(bytes.fromhex(self.end)) - size
        checksum = function(frame[self.checksum_from : at]).to_bytes(
            size, "big" if order == "big" else "little"
        )
        return frame[:at] + checksum + frame[at + size :]

    def made(self, points: Mapping[str, FramePointOptions], wire: Mapping[str, Any]) -> bytes:
        """A frame of these values, as a far end sends it."""
        size = self.length or 0
        if self.length_at is not None:
            reach = max((p.at + p.size for p in points.values() if p.at >= 0), default=0)
            size = (
                max(reach, self.length_at + self.length_size) + self._sum_size + len(bytes.fromhex(self.end))
            )
        frame = bytearray(size)
        frame[: len(self.head)] = self.head
        frame[size - len(bytes.fromhex(self.end)) :] = bytes.fromhex(self.end)
        if self.length_at is not None:
            told = (size - self.length_add).to_bytes(self.length_size, self.byte_order)
            frame[self.length_at : self.length_at + self.length_size] = told
        for name, value in wire.items():
            for place, wanted in points[name].where.items():
                frame[int(place)] = int(wanted or 0)
            points[name].put(frame, self.byte_order, value)
        return self._sealed(bytes(frame))


class FrameReader:
    """Takes chunks, gives the values of each frame that is whole and true.

    What is no frame loses its first byte alone: the start of a true one may lie within it.
    """

    def __init__(self, layout: FrameFormat, points: Mapping[str, FramePointOptions]) -> None:
        self._layout = layout
        self._points = points
        self._head = layout.head
        self.bad = 0
        self.begin(in_the_middle=True)

    def begin(self, *, in_the_middle: bool) -> None:
        """Forget what came. `in_the_middle`: the start of the first frame may have been missed."""
        self._rest = b""
        self._in_the_middle = in_the_middle
        self._in_step = not in_the_middle
        """Whether what comes next stands right behind a frame."""

    def notes(self) -> dict[str, int | str]:
        return {"bad_frames": self.bad} if self.bad else {}

    def feed(self, chunk: bytes) -> Iterator[Mapping[str, Any]]:
        yield from filter(None, map(self._values, self.frames(chunk)))

    def frames(self, chunk: bytes) -> Iterator[bytes]:
        self._rest += chunk
        while (frame := self._frame()) is not None:
            yield frame

    def _values(self, frame: bytes) -> dict[str, Any]:
        found = {
            name: point.number(frame, self._layout.byte_order)
            for name, point in self._points.items()
            if all(frame[int(at) : int(at) + 1] == bytes((int(v or 0),)) for at, v in point.where.items())
        }
        return {name: value for name, value in found.items() if value is not None}

    def _frame(self) -> bytes | None:
        """The next true frame, None until there is one."""
        at = 0
        while True:
            at = self._rest.find(self._head, at)
            if at < 0:
                kept = self._rest[-(len(self._head) - 1) :] if len(self._head) > 1 else b""
                self._in_step &= kept == self._rest
                self._rest = kept
                return None
            self._in_step &= at == 0
            size = self._layout.size(self._rest[at:])
            if size is None or len(self._rest) - at < size:
                self._rest = self._rest[at:]
                return None
            frame = self._rest[at : at + size]
            if size and self._layout.is_true(frame):
                self._rest = self._rest[at + size :]
                believed, self._in_step = self._in_step or self._layout.proves_itself, True
                self._in_the_middle = False
                if believed:
                    return frame
                at = 0
            else:
                self.bad += not self._in_the_middle  # of the first one the start may be missing
                self._in_the_middle = False
                at += 1
