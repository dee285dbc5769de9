"""Far ends of serial lines on pseudo-terminals, all in one thread: what they say and how they answer."""

import array
import fcntl
import os
import select
import termios
import threading
import time
import tty
from collections.abc import Mapping, Sequence
from typing import Any

BOOT_S = 0.1


class FarEnd:
    """`answers` maps what comes to what is said then: one text, or one after the other. `boot` is said again
    and again until something comes or `say` is called, `unit` is a Modbus unit."""

    def __init__(
        self,
        answers: Mapping[bytes, Sequence[bytes]],
        *,
        boot: bytes = b"",
        unit: "ModbusUnit | None" = None,
    ) -> None:
        self.master, self.slave = os.openpty()  # the slave stays open, so that the port may be opened again
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self.slave)
        self.heard = b""
        self._answers = {question: list(said) for question, said in answers.items()}
        self._boot = boot
        self._unit = unit
        self._waiting = b""
        self._next_boot_s = 0.0
        self._due: list[bytes] = []
        self._unsent = b""

    def say(self, data: bytes) -> None:
        """In small pieces."""
        self._boot = b""
        self._due += [data[at : at + 7] for at in range(0, len(data), 7)]

    @property
    def all_taken(self) -> bool:
        """Whether nothing of what was said waits for the near end."""
        waiting = array.array("i", [0])
        fcntl.ioctl(self.slave, termios.FIONREAD, waiting)
        return not (self._due or self._unsent or waiting[0])

    def hear(self) -> None:
        try:
            data = os.read(self.master, 4096)
        except BlockingIOError:
            return
        self.heard += data
        self._waiting += data
        if self._unit is not None:
            answer, self._waiting = self._unit.answers(self._waiting)
            self._due.append(answer)
        while (found := self._question()) is not None:
            question, said = found
            self._waiting = self._waiting.partition(question)[2]
            self._due.append(said.pop(0) if len(said) > 1 else said[0])

    def _question(self) -> tuple[bytes, list[bytes]] | None:
        there = [(self._waiting.find(q), q) for q in self._answers if q in self._waiting]
        return (first := min(there)[1], self._answers[first]) if there else None

    def speak(self) -> None:
        """What is due, as far as the near end takes it."""
        if self._boot and not self.heard and time.monotonic() > self._next_boot_s:
            self._next_boot_s = time.monotonic() + BOOT_S
            self._unsent += self._boot
        while self._unsent or self._due:
            self._unsent = self._unsent or self._due.pop(0)
            try:
                self._unsent = self._unsent[os.write(self.master, self._unsent) :]
            except BlockingIOError:
                return

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


class FarEnds:
    """Their thread. `with` it."""

    def __init__(self, ends: Sequence[FarEnd]) -> None:
        self._ends = {end.master: end for end in ends}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "FarEnds":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for end in self._ends.values():
            end.close()

    def _work(self) -> None:
        poll = select.poll()
        for fd in self._ends:
            poll.register(fd, select.POLLIN)
        while not self._ended.is_set():
            for fd, _ in poll.poll(20):
                self._ends[fd].hear()
            for end in self._ends.values():
                end.speak()


class ModbusUnit:
    """Registers and coils, by kind and address. It refuses what is not there, and more than `most` at once;
    with `whole_coils`, coils are read all at once or not at all."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._number = table.get("number", 1)
        self._most = table.get("most", 125)
        self._whole_coils = table.get("whole_coils", 0)
        self._words = {
            kind: {int(at): int(value) for at, value in table.get(kind, {}).items()}
            for kind in ("holding", "input", "coil", "discrete")
        }

    def answers(self, heard: bytes) -> tuple[bytes, bytes]:
        """What it says to whole questions, and what of them is not whole yet."""
        said = b""
        while len(heard) >= 8:
            size = 9 + heard[6] if heard[1] in (15, 16) else 8
            if len(heard) < size:
                break
            question, heard = heard[: size - 2], heard[size:]
            if question[0] == self._number:
                body = question[:1] + self._answer(question[1:])
                said += body + crc(body)
        return said, heard

    def _answer(self, question: bytes) -> bytes:
        function, address, count = (
            question[0],
            *(int.from_bytes(question[at : at + 2], "big") for at in (1, 3)),
        )
        kind = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 15: "coil"}.get(
            function, "holding"
        )
        words = self._words[kind]
        if function in (5, 6):
            words[address] = count if function == 6 else int(count == 0xFF00)
            return question
        there = all(at in words for at in range(address, address + count))
        partly = function == 1 and self._whole_coils not in (0, count)
        if not there or partly or (function in (3, 4) and count > self._most):
            return bytes((function | 0x80, 2))
        if function in (15, 16):
            for place in range(count):
                data = question[6:]
                word = data[2 * place : 2 * place + 2]
                bit = data[place // 8 : place // 8 + 1]
                words[address + place] = (
                    int.from_bytes(word, "big") if function == 16 else bit[0] >> place % 8 & 1
                )
            return question[:5]
        values = [words[at] for at in range(address, address + count)]
        if function in (3, 4):
            packed = b"".join(value.to_bytes(2, "big") for value in values)
        else:
            packed = sum(bit << place for place, bit in enumerate(values)).to_bytes(-(-count // 8), "little")
        return bytes((function, len(packed))) + packed


def crc(data: bytes) -> bytes:
    """Of Modbus, bit by bit: another way than the driver's."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")
