"""Frames on a serial line that carry any bytes: COBS or SLIP, with a CRC-16 before the ending."""

from collections.abc import Callable
from dataclasses import dataclass

from device_agent_drivers.checksums import crc16_ibm_3740

CRC_BYTES = 2
# RFC 1055
SLIP_END, SLIP_ESCAPE = b"\xc0", b"\xdb"
SLIP_CODES = {SLIP_ESCAPE: b"\xdb\xdd", SLIP_END: b"\xdb\xdc"}


@dataclass(frozen=True, slots=True)
class Framing:
    """`end` stands after each frame and nowhere in it."""

    end: bytes
    stuff: Callable[[bytes], bytes]
    unstuff: Callable[[bytes], bytes]
    """Raises ValueError for what no far end can have sent."""

    def framed(self, payload: bytes) -> bytes:
        """One frame with its checksum and ending."""
        return self.stuff(payload + crc16_ibm_3740(payload).to_bytes(CRC_BYTES, "big")) + self.end

    def payload(self, frame: bytes) -> bytes:
        """What is in a frame without its ending. Raises ValueError for a wrong checksum, or no frame."""
        data = self.unstuff(frame)
        payload, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
        if len(data) <= CRC_BYTES or crc16_ibm_3740(payload).to_bytes(CRC_BYTES, "big") != crc:
            raise ValueError("wrong checksum")
        return payload


def cobs(data: bytes) -> bytes:
    """COBS (Cheshire and Baker, 1999): a length before each run that holds no 0, at most 254 bytes long."""
    out = bytearray()
    for run in data.split(b"\0"):
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
        out += bytes((len(run) + 1,)) + run
    return bytes(out)


def uncobs(frame: bytes) -> bytes:
    """Raises ValueError where a length points beyond the end."""
    out = bytearray()
    at = 0
    while at < len(frame):
        size = frame[at]
        run = frame[at + 1 : at + size]
        if size == 0 or len(run) != size - 1:
            raise ValueError("no COBS frame")
        at += size
        out += run
        if size < 255 and at < len(frame):
            out.append(0)
    return bytes(out)


def slip(data: bytes) -> bytes:
    """SLIP (RFC 1055): end and escape bytes inside the frame are sent as two bytes."""
    for plain, code in SLIP_CODES.items():
        data = data.replace(plain, code)
    return data


def unslip(frame: bytes) -> bytes:
    """Raises ValueError for an escape that means nothing."""
    first, *rest = frame.split(SLIP_ESCAPE)
    out = bytearray(first)
    codes = {code[1]: plain for plain, code in SLIP_CODES.items()}
    for part in rest:
        if not part or part[0] not in codes:
            raise ValueError("no SLIP frame")
        out += codes[part[0]] + part[1:]
    return bytes(out)


FRAMINGS = {"cobs": Framing(b"\0", cobs, uncobs), "slip": Framing(SLIP_END, slip, unslip)}
