"""A screen that is drawn again and again, with plain ANSI and the terminal's own modes; no dependency."""

import contextlib
import os
import re
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from typing import Any, Self

from device_agent.cli.common import STYLES, colour

Span = tuple[str, str]
"""Text and its styles, such as "bold green"; no style is ""."""
Line = Sequence[Span]

_ASCII = str.maketrans("▁▂▃▄▅▆▇█─▶◀●○✕│·°³µ…", "_.-~=+*#->" + "<*ox|. 3u.")
# Whole frames at once, where the terminal knows how (others ignore it).
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


class Screen:
    """`with Screen() as screen:` takes the terminal and gives it back as it was."""

    def __enter__(self) -> Self:
        self._in = sys.stdin.fileno()
        self._before: list[Any] = termios.tcgetattr(self._in)
        tty.setcbreak(self._in)
        self._colour = colour(sys.stdout)
        encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
        self._utf8 = encoding.startswith("utf")
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("\x1b[0m\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def size(self) -> tuple[int, int]:
        """Columns and rows now."""
        columns, rows = shutil.get_terminal_size()
        return columns, rows

    def key(self, timeout_s: float) -> str:
        """The next key, "" after `timeout_s`, "q" when the terminal has gone."""
        try:
            if not select.select([self._in], [], [], timeout_s)[0]:
                return ""
            data = os.read(self._in, 64)
        except OSError:
            return "q"
        if not data:
            return "q"
        # Arrow and function keys come as a sequence; they mean nothing here.
        return re.sub(r"\x1b(\[[0-9;]*[~A-Za-z]|O.)?", "", data.decode("utf-8", "ignore"))[:1]

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines from the top, cut to the screen."""
        columns, rows = self.size()
        frame = [self._line(line, columns) for line in lines[:rows]]
        body = "\x1b[K\r\n".join(frame)
        self._write(f"{_BEGIN}\x1b[H{body}\x1b[K\x1b[J{_END}")

    def _line(self, line: Line, columns: int) -> str:
        parts, room = [], columns
        for text, style in line:
            text = text[:room] if self._utf8 else text[:room].translate(_ASCII)
            room -= len(text)
            codes = ";".join(STYLES[word] for word in style.split())
            parts.append(f"\x1b[{codes}m{text}\x1b[0m" if codes and self._colour else text)
        return "".join(parts)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the command as Ctrl-C does, in order."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    assert threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
