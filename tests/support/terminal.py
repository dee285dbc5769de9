"""A command on a pseudo-terminal."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

LIMIT_S = 90.0
# More than a test's daemon has ports.
PASSED_OVER = 100


def open_terminal() -> tuple[int, int]:
    """Both ends of a pseudo-terminal whose number was not in use a moment ago.

    The lowest free number may be the port of another test's daemon or guard that has not ended yet, and that
    opens it again.
    """
    low = [end for _ in range(PASSED_OVER) for end in os.openpty()]
    try:
        return os.openpty()
    finally:
        for end in low:
            os.close(end)


class Terminal:
    """A process on a pseudo-terminal; `text` is all that it wrote."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], columns: int = 100, rows: int = 32
    ) -> None:
        self.master, slave = open_terminal()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ)
        self.slave = slave
        self.text = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self, pattern: str) -> re.Match[str]:
        """Until the newest output matches; the match. What was before is not looked at again."""
        deadline_s = time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < deadline_s, f"{pattern} not in {self.text[-2000:]}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
            assert self.process.poll() is None or select.select([self.master], [], [], 0)[0], self.text[
                -2000:
            ]
        self.text = self.text[found.end() :]
        return found

    def press(self, key: str) -> None:
        self.text = ""
        os.write(self.master, key.encode())

    def end(self) -> int:
        """Reads what comes until the process has ended."""
        deadline_s = time.monotonic() + LIMIT_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)
