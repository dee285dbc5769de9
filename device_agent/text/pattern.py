"""Regular expressions of the configuration, matched within a limit."""

import asyncio
import re
import signal
import threading
from contextlib import suppress
from types import FrameType

# Of the processor, by this process, for one match; the pattern of an owner needs some microseconds.
MATCH_LIMIT_S = 0.05
# For the event loop's answer to another thread.
ANSWER_LIMIT_S = 2.0
# `slow_on` tries runs of so many equal characters.
RUN = 300


class Pattern:
    """A regular expression of the configuration for text that others send, who may make it take for ever."""

    def __init__(self, pattern: str) -> None:
        """Raises re.error. Made on an event loop of the main thread, it is matched there for all threads: the
        engine holds the interpreter while it matches, and looks for signals on the main thread alone."""
        self._pattern = re.compile(pattern)
        self._loop = _loop_of_main_thread()

    def search(self, text: str) -> re.Match[str] | None:
        """The first match. Raises TimeoutError after `MATCH_LIMIT_S`; without an event loop only on the main
        thread."""
        if threading.current_thread() is threading.main_thread():
            return _search(self._pattern, text)
        if self._loop is None:
            return self._pattern.search(text)

        async def search() -> re.Match[str] | None:
            return _search(self._pattern, text)

        return asyncio.run_coroutine_threadsafe(search(), self._loop).result(ANSWER_LIMIT_S)

    def slow_on(self) -> str:
        """A text on which it, or a group of it, takes too long; "" if none was found."""
        whole = self._pattern.pattern
        signs = sorted({sign for sign in whole if sign.isprintable()} | set("a0 .,-:\t"))
        for part in (whole, *_groups(whole)):
            with suppress(re.error):  # a group that names another one is none alone
                pattern = Pattern(f"{part}\0")
                for sign in signs:
                    try:
                        pattern.search(sign * RUN + "\1")
                    except TimeoutError:
                        return sign * RUN
        return ""


def _loop_of_main_thread() -> asyncio.AbstractEventLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if threading.current_thread() is threading.main_thread() else None


_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()]", re.DOTALL)
_REPEATED = re.compile(r"(?:[*+?]|\{[0-9,]*\})?")


def _groups(pattern: str) -> list[str]:
    """Each group of a pattern, with its repetition."""
    found, open_at = [], []
    for token in _TOKEN.finditer(pattern):
        if token[0] == "(":
            open_at.append(token.start())
        elif token[0] == ")" and open_at:
            repeated = _REPEATED.match(pattern, token.end())
            found.append(pattern[open_at.pop() : repeated.end() if repeated else token.end()])
    return found


class _Limit:
    """Whether a match is under way: a signal that comes late ends nothing else."""

    under_way = False


def _search(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    if signal.getsignal(signal.SIGVTALRM) is not _out_of_time:
        signal.signal(signal.SIGVTALRM, _out_of_time)
    _Limit.under_way = True
    signal.setitimer(signal.ITIMER_VIRTUAL, MATCH_LIMIT_S)
    try:
        return pattern.search(text)
    finally:
        _Limit.under_way = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _out_of_time(number: int, frame: FrameType | None) -> None:
    """The engine looks for signals while it matches."""
    if _Limit.under_way:
        raise TimeoutError(f"it took more than {MATCH_LIMIT_S * 1000:g} ms of the processor")
