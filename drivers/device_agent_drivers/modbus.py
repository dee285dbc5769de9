"""Modbus RTU: frames on a serial line (Modbus over Serial Line V1.02) and the functions 1 to 6, 15 and 16.

One question at a time, answered or not within a limit. Nothing here is asked twice: that is the caller's to
decide, who knows whether asking again moves something. Not pymodbus, whose client owns the port, a thread or
loop, and retries: here the bus's thread owns it, other units and the guard share it, and a write is never
repeated.
"""

import struct
from collections.abc import Callable, Sequence

from device_agent.driver import BadReading, DriverError, NoAnswer, SerialBus

READ_COILS, READ_DISCRETE, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS = 5, 6, 15, 16
BIT_FUNCTIONS = (READ_COILS, READ_DISCRETE)
REGISTERS_MAX, BITS_MAX = 125, 2000  # of one read (application protocol V1.1b3, sections 6.1 to 6.4)

FAILED = 0x80
EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, takes its time",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target did not answer",
}
HEAD = 5  # the length of a refusal, and no answer is shorter


class ModbusException(DriverError):
    """The unit understood the question and refused it."""


class Master:
    """Asks one unit. `echo`: the adapter receives its own sending."""

    def __init__(
        self,
        bus: SerialBus,
        unit: int,
        *,
        timeout_s: float,
        gap_s: float,
        echo: bool,
        sleep: Callable[[float], None],
    ) -> None:
        self._bus = bus
        self._unit = unit
        self._timeout_s = timeout_s
        self.gap_s = gap_s
        self._echo = echo
        self._sleep = sleep

    def read(self, function: int, address: int, count: int) -> bytes:
        """Registers, two bytes each, or bits, eight to a byte.

        Raises NoAnswer, BadReading, ModbusException.
        """
        size = (count + 7) // 8 if function in BIT_FUNCTIONS else 2 * count
        answer = self._ask(struct.pack(">BHH", function, address, count), 2 + size)
        if answer[1] != size:
            raise BadReading(f"unit {self._unit} sent {answer[1]} bytes instead of {size}: a late answer?")
        return answer[2:]

    def write_coil(self, address: int, on: bool) -> None:
        self._write(struct.pack(">BHH", WRITE_COIL, address, 0xFF00 if on else 0), 5)

    def write_register(self, address: int, word: int) -> None:
        self._write(struct.pack(">BHH", WRITE_REGISTER, address, word), 5)

    def write_coils(self, address: int, bits: Sequence[bool]) -> None:
        data = sum(1 << place for place, on in enumerate(bits) if on).to_bytes((len(bits) + 7) // 8, "little")
        head = struct.pack(">BHHB", WRITE_COILS, address, len(bits), len(data))
        self._write(head + data, 5)

    def write_registers(self, address: int, data: bytes) -> None:
        """`data`: two bytes a register, the high one first."""
        head = struct.pack(">BHHB", WRITE_REGISTERS, address, len(data) // 2, len(data))
        self._write(head + data, 5)

    def _write(self, question: bytes, same: int) -> None:
        """The answer repeats the beginning of the question: all of it, or function, address and count."""
        answer = self._ask(question, same)
        if answer != question[:same]:
            raise BadReading(f"unit {self._unit} acknowledged something else: {answer.hex(' ')}")

    def _ask(self, question: bytes, size: int) -> bytes:
        """The answer's function and data, `size` bytes in all."""
        frame = framed(bytes((self._unit,)) + question)
        self._sleep(self.gap_s)
        self._bus.discard_input()
        self._bus.write(frame)
        if self._echo and self._bus.read(len(frame), self._timeout_s) != frame:
            raise BadReading(f"unit {self._unit}: the echo is not what was sent; is `echo` right?")
        answer = self._bus.read(HEAD, self._timeout_s)
        if not answer:
            raise NoAnswer(
                f"unit {self._unit} did not answer within {self._timeout_s:g} s; check its number, the baud "
                "rate and the wires A and B"
            )
        refused = len(answer) > 1 and answer[1] == question[0] | FAILED
        if not refused and len(answer) == HEAD:
            answer += self._bus.read(1 + size + 2 - HEAD, self._timeout_s)
        self._check(frame, answer, HEAD if refused else size + 3)
        if refused:
            code = answer[2]
            raise ModbusException(
                f"unit {self._unit} refuses function {question[0]} at address "
                f"{int.from_bytes(question[1:3], 'big')}: {EXCEPTIONS.get(code, 'exception')} ({code})"
            )
        return answer[1:-2]

    def _check(self, frame: bytes, answer: bytes, size: int) -> None:
        if len(answer) == size and framed(answer[:-2]) == answer and answer[:1] == frame[:1]:
            if answer[1] & ~FAILED == frame[1]:
                return
            raise BadReading(f"unit {self._unit} answered function {answer[1]} instead of {frame[1]}")
        shown = answer.hex(" ")
        if answer[:HEAD] == frame[:HEAD]:
            raise BadReading(f"unit {self._unit}: the answer is the question ({shown}); set `echo = true`?")
        raise BadReading(f"unit {self._unit}: no whole answer with a true checksum ({shown})")


def framed(body: bytes) -> bytes:
    """With its checksum, the low byte first."""
    return body + crc16(body).to_bytes(2, "little")


def crc16(data: bytes) -> int:
    """Polynomial x16 + x15 + x2 + 1, lowest bit first, from all ones (section 6.2.2)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc
