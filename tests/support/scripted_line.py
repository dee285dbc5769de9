"""A serial line in memory, whose far end is a script: for drivers that ask, without a port or real time."""

from collections.abc import Callable


class ScriptedLine:
    """What each question is answered with, at once."""

    baud = 9600

    def __init__(self, *answers: bytes) -> None:
        self.sent: list[bytes] = []
        self.answers = list(answers)
        self.input = b""
        self.discarded = 0

    def discard_input(self) -> None:
        self.discarded += 1
        self.input = b""

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        self.input += self.answers.pop(0) if self.answers else b""

    def read(self, size: int, timeout_s: float) -> bytes:
        got, self.input = self.input[:size], self.input[size:]
        return got


class SlowFarEnd(ScriptedLine):
    """Each question is answered `takes_s` after the far end began on it, one after the other, on a clock of
    its own, `now_s`."""

    def __init__(self, takes_s: float, answer: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self.takes_s, self.answer = takes_s, answer
        self.now_s = self.free_s = 0.0
        self.due: list[tuple[float, bytes]] = []

    def discard_input(self) -> None:
        self.due = [(at_s, data) for at_s, data in self.due if at_s > self.now_s]

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        self.free_s = max(self.free_s, self.now_s) + self.takes_s
        self.due.append((self.free_s, self.answer(data)))

    def read(self, size: int, timeout_s: float) -> bytes:
        got, end_s = b"", self.now_s + timeout_s
        while len(got) < size and self.due and self.due[0][0] <= end_s:
            at_s, data = self.due.pop(0)
            self.now_s = max(self.now_s, at_s)
            part = data[: size - len(got)]
            got += part
            if len(part) < len(data):
                self.due.insert(0, (at_s, data[len(part) :]))
        if len(got) < size:
            self.now_s = end_s
        return got
