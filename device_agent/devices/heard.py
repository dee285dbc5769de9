"""Bytes of which nothing is understood: how many, and what they look like."""

import re
import time
from collections.abc import Callable

SAMPLE_BYTES = 512
# Fewer tell nothing.
SAMPLE_MIN = 16
# Meters send every 10 s; nothing may be understood for so long before that is said.
PATIENCE_S = 12.0
# A speed that is a whole multiple of the far end's makes each of its bits several of ours.
FACTORS = (8, 6, 4, 3, 2)
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]")


class Heard:
    """Of one listening device, since something was understood last (or since it was opened)."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self.understood = 0
        self.forget()

    def forget(self) -> None:
        self._since_s = self._monotonic_s()
        self._bytes = 0
        self._sample = b""

    def lasted_s(self) -> float:
        """How long nothing was understood."""
        return self._monotonic_s() - self._since_s

    def take(self, chunk: bytes, readings: int) -> None:
        if readings:
            self.understood += readings
            self.forget()
            return
        self._bytes += len(chunk)
        self._sample = (self._sample + chunk)[-SAMPLE_BYTES:]

    def trouble(self, baud: int, frame: str) -> str:
        """Such as "150 bytes/s, nothing understood: looks like 7E1"; "" while there is nothing to say.

        `baud` and `frame` ("8N1") are how the line is read.
        """
        lasted_s = self.lasted_s()
        if len(self._sample) < SAMPLE_MIN or lasted_s < PATIENCE_S:
            return ""
        what = looks_like(self._sample, baud, frame)
        return f"{self._bytes / lasted_s:.0f} bytes/s, nothing understood{what and ': '}{what}"


def looks_like(sample: bytes, baud: int, frame: str) -> str:
    """What a sample of bytes tells of speed, parity or content; "" for nothing."""
    said = bytes(byte for byte in sample if byte)
    zeros = len(sample) - len(said)
    if not said:
        return "only zeros: a far higher or lower speed, or a line that is broken, inverted or swapped"
    odd = {byte.bit_count() % 2 for byte in said}
    if len(odd) == 1 and frame.startswith("8N"):
        parity = "EO"[odd.pop() if not zeros else 1 - said[0].bit_count() % 2]
        text = bytes(byte & 0x7F for byte in said) if not zeros else said
        if _is_text(text) and (zeros or any(byte > 0x7F for byte in said)):
            return f"looks like {8 if zeros else 7}{parity}1"
    elif len(odd) == 1 and zeros and _is_text(said):
        return "looks like 8N1"  # what has the wrong parity is read as 0
    if _is_text(sample):
        if b"\n" not in sample and b"\r" not in sample:
            return f"looks like text without line ends, such as {_shown(sample[-40:])}"
        lines = sample.splitlines()
        return f"looks like text, such as {_shown(lines[len(lines) // 2][:60])}"
    for factor in FACTORS:
        if len(set(sample)) > 1 and sum(map(_stretched(factor).__contains__, sample)) >= 0.95 * len(sample):
            return f"looks like {baud // factor} baud"
    return f"looks like another speed, parity or protocol, such as {sample[:8].hex(' ')}"


def _is_text(data: bytes) -> bool:
    return len(_TEXT.findall(data)) >= 0.9 * len(data)


def _shown(text: bytes) -> str:
    return repr(text.decode("ascii", "replace"))


def _stretched(factor: int) -> frozenset[int]:
    """The bytes that are read where each bit lasts `factor` bits: a start bit, data, and at their end a
    stop bit or, where that is 0, an error, which is read as 0."""
    found = {0}
    cells = -(-10 // factor)
    for bits in range(1 << (cells - 1)):
        levels = [bits << 1 >> (place // factor) & 1 for place in range(10)]
        if levels[9]:
            found.add(sum(level << place for place, level in enumerate(levels[1:9])))
    return frozenset(found)
