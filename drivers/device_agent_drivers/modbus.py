"""Modbus RTU: frames on a serial line (Modbus over Serial Line V1.02) and the functions 1 to 6, 15 and 16.

One question at a time, answered or not within a limit. Nothing here is asked twice: that is the caller's to
decide, who knows whether asking again moves something. Not pymodbus, whose client owns the port, a thread or
loop, and retries: here the bus's thread owns it, other units and the guard share it, and a write is never
repeated.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from device_agent.driver import BadReading, DriverError, NoAnswer, SerialBus
from device_agent_drivers.checksums import crc16_modbus

READ_COILS, READ_DISCRETE, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS = 5, 6, 15, 16
BIT_FUNCTIONS = (READ_COILS, READ_DISCRETE)
REGISTERS_MAX, BITS_MAX = 125, 2000  # of one read (application protocol V1.1b3, sections 6.1 to 6.4)

FAILED = 0x80
BAD_ADDRESS, BAD_VALUE, TARGET_SILENT = 2, 3, 11
# Of a write: it may have begun, or have been done (application protocol V1.1b3, section 7).
OPEN_OUTCOME = (4, 5, TARGET_SILENT)
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
ANSWER_MAX = 256
NOISE_MAX = 64  # stray bytes around an answer: adapters send some when they switch their direction
BITS_PER_BYTE = 11  # with parity or a second stop bit
# Bytes of one answer follow each other; a USB adapter hands them over in groups some milliseconds apart.
BETWEEN_S = 0.1
# How long an answer may still come: of a unit that has answered in time before, and of any other.
LATE_S, LATE_FIRST_S = 1.0, 5.0
# A unit that is switched off owes nothing for all that it was asked.
OWED_MAX = 3


class ModbusException(DriverError):
    """The unit understood the question and refused it, with the exception `code`."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Master:
    """Asks one unit. `echo`: the adapter receives its own sending.

    Answers have no numbers: a late one looks like the answer to the next question. After a question that was
    not answered in time, another one waits until the line has been silent for so long that no answer can come
    any more. What comes meanwhile is dropped, and counted in `late`.
    """

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
        self.late = 0
        self._question = b""
        self._in_time = False
        self._owed: deque[tuple[float, bytes]] = deque(maxlen=OWED_MAX)
        """The questions that were not answered in time, and when they were asked; the oldest first."""
        self._quiet_s, self._since_s = 0.0, 0.0

    def read(self, function: int, address: int, count: int) -> bytes:
        """Registers, two bytes each, or bits, eight to a byte.

        Raises NoAnswer, BadReading, ModbusException.
        """
        size = (count + 7) // 8 if function in BIT_FUNCTIONS else 2 * count
        question = struct.pack(">BHH", function, address, count)
        if question != self._question:
            self._wait_for_silence()
        return self._ask(question, bytes((function, size)), size)[2:]

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
        before = [owed for _, owed in self._owed if owed[:3] == question[:3]]
        try:
            self._ask(question, question[:same], 0)
        except ModbusException as refusal:
            if refusal.code not in OPEN_OUTCOME:
                raise
            raise NoAnswer(f"{refusal}: whether it was written is not known") from refusal
        if before and before[-1] != question and any(owed[:same] == question[:same] for owed in before):
            raise NoAnswer(f"the answer of unit {self._unit} may be to what was written there before")

    def _ask(self, question: bytes, head: bytes, size: int) -> bytes:
        """The answer without unit and checksum: it begins with `head`, and `size` bytes follow."""
        frame = framed(bytes((self._unit,)) + question)
        self._sleep(self.gap_s)
        self._forget_old()
        if self._owed and self._bus.read(ANSWER_MAX, 0.0):
            self._came_late()
        self._bus.discard_input()
        self._question, asked_s = question, time.monotonic()
        self._bus.write(frame)
        starts = {frame[:1] + head: len(head) + size + 3, bytes((self._unit, question[0] | FAILED)): HEAD}
        heard, answer = self._receive(frame, starts)
        if answer is None or (heard.startswith(frame) and answer != frame):
            self._owed.append((asked_s, question))
            raise self._unanswered(frame, heard)
        if self._owed:
            # It may be the answer to an earlier try; that to this one then takes as long.
            took_s = time.monotonic() - self._owed[0][0]
            self._expect(max(took_s, (len(self._owed) + 1) * self._timeout_s))
        else:
            self._in_time = True
        if answer[1] & FAILED:
            code = answer[2]
            if code == TARGET_SILENT and size:
                raise NoAnswer(f"unit {self._unit}: the gateway says that it did not answer")
            raise ModbusException(
                f"unit {self._unit} refuses function {question[0]} at address "
                f"{int.from_bytes(question[1:3], 'big')}: {EXCEPTIONS.get(code, 'exception')} ({code})",
                code,
            )
        return answer[1:-2]

    def _receive(self, frame: bytes, starts: Mapping[bytes, int]) -> tuple[bytes, bytes | None]:
        """What came, without the echo, and the answer in it: one of `starts`, of that length in all.

        `timeout_s` is for the unit to begin: the time that bytes take on the line is not counted.
        """
        echo = len(frame) if self._echo else 0
        wanted = max(starts.values())
        missing, limit_s = HEAD + echo, self._timeout_s + len(frame) * BITS_PER_BYTE / self._bus.baud
        got = b""
        while len(got) < echo + ANSWER_MAX + NOISE_MAX and (part := self._bus.read(missing, limit_s)):
            got += part
            heard = got.partition(frame)[2] if echo else got
            if (answer := _frame_in(heard, starts)) is not None:
                return heard, answer
            missing, limit_s = max(1, wanted + echo - len(got)), BETWEEN_S
        if echo and got and frame not in got:
            raise BadReading(f"unit {self._unit}: the echo is not what was sent; is `echo` right?")
        return got[echo:], None

    # -- late answers ----------------------------------------

    def _unanswered(self, frame: bytes, heard: bytes) -> NoAnswer | BadReading:
        """What to raise."""
        unit = f"unit {self._unit}"
        if not heard:
            self._expect(self._late_s)
            late = f"; {self.late} answers came late: raise `timeout_s`" if self.late else ""
            return NoAnswer(
                f"{unit} did not answer within {self._timeout_s:g} s; check its number, the baud rate and "
                f"the wires A and B{late}"
            )
        self._expect(max(self._timeout_s, LATE_S))
        shown = heard[:ANSWER_MAX].hex(" ")
        if heard[:HEAD] == frame[:HEAD]:
            return BadReading(f"{unit}: the answer is the question ({shown}); set `echo = true`?")
        if len(heard) < HEAD or framed(heard[:-2]) != heard:
            return BadReading(f"{unit}: no whole answer with a true checksum ({shown})")
        if heard[:2] == frame[:2]:
            return BadReading(f"{unit} sent {len(heard)} bytes, as to another question: a late answer?")
        return BadReading(
            f"{unit} was asked for function {frame[1]}, and unit {heard[0]} answered {heard[1]} ({shown})"
        )

    def _expect(self, quiet_s: float) -> None:
        self._quiet_s, self._since_s = quiet_s, time.monotonic()

    def _wait_for_silence(self) -> None:
        """Raises NoAnswer while that would hold up the line for long."""
        self._forget_old()
        left_s = self._quiet_s - (time.monotonic() - self._since_s)
        if self._owed and left_s > LATE_S:
            raise NoAnswer(
                f"unit {self._unit} did not answer; it is asked again in {left_s:.1f} s, so that a late "
                "answer is not taken for another"
            )
        while self._owed:
            if not self._bus.read(1, max(0.0, left_s)):
                self._owed.clear()
                break
            self._bus.read(ANSWER_MAX, BETWEEN_S)
            self._came_late()
            left_s = self._quiet_s

    def _forget_old(self) -> None:
        """Even a unit that works off all that it was asked has answered after so long.

        One that was away owes nothing: else each write that it takes would begin the wait anew.
        """
        while self._owed and time.monotonic() - self._owed[0][0] > OWED_MAX * self._late_s:
            self._owed.popleft()

    @property
    def _late_s(self) -> float:
        return LATE_S if self._in_time else LATE_FIRST_S

    def _came_late(self) -> None:
        self.late += 1
        self._owed.popleft()


def _frame_in(heard: bytes, starts: Mapping[bytes, int]) -> bytes | None:
    """The first whole frame with one of these starts, of that length, and with a true checksum."""
    found = []
    for start, size in starts.items():
        at = heard.find(start)
        while 0 <= at <= len(heard) - size:
            frame = heard[at : at + size]
            if framed(frame[:-2]) == frame:
                found.append((at, frame))
                break
            at = heard.find(start, at + 1)
    return min(found)[1] if found else None


def framed(body: bytes) -> bytes:
    """With its checksum, the low byte first."""
    return body + crc16_modbus(body).to_bytes(2, "little")
