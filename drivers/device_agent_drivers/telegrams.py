"""Text telegrams that carry a checksum: found in what arrives, and believed only when it is right."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from device_agent_drivers.checksums import crc16_arc, sum8, xor8


@dataclass(frozen=True, slots=True)
class Telegram:
    """How one is found, and proved: `text` of the match is what it says."""

    find: Callable[[bytes, int], re.Match[bytes] | None]
    """In these bytes, from this place on."""
    is_true: Callable[[re.Match[bytes]], bool]
    most: int = 16_384
    """Bytes of one; a Dutch meter with four gas and heat meters behind it has about 2 KiB."""
    between: re.Pattern[bytes] | None = None
    """What may stand anywhere between, and within, telegrams and belongs to none."""


_BLOCK = re.compile(rb"(?s)(?P<text>\r\n(?:[\t -~]{0,80}\r\n){0,40}?Checksum\t.)")


def _ve_direct_block(data: bytes, at: int) -> re.Match[bytes] | None:
    # The pattern alone is slow on lines that end in no checksum.
    return _BLOCK.search(data, at) if b"\r\nChecksum\t" in data[at:] else None


def _hex_sum_is_zero(found: re.Match[bytes]) -> bool:
    return sum8(bytes.fromhex(found["hex"].decode())) == 0


TELEGRAMS = {
    # NMEA 0183: exclusive or of what stands between $ (or !) and *
    "nmea": Telegram(
        re.compile(rb"(?P<text>[$!](?P<summed>[^$!*\r\n]{0,250}))\*(?P<sum>[0-9A-Fa-f]{2})").search,
        lambda found: xor8(found["summed"]) == int(found["sum"], 16),
        most=256,
    ),
    # VE.Direct text protocol: at most 22 lines; the sum of all bytes of a block, its last one included, is 0
    "ve-direct": Telegram(
        _ve_direct_block,
        lambda found: sum8(found["text"]) == 0,
        between=re.compile(rb":[0-9A-F]*\n"),
    ),
    # DSMR P1: CRC-16/ARC of everything from / to !. The identification begins as IEC 62056-21 has it.
    "p1": Telegram(
        re.compile(
            rb"(?P<text>/[A-Za-z]{3}[0-9](?:(?!/[A-Za-z]{3}[0-9])[^!])*!)(?P<sum>[0-9A-Fa-f]{4})"
        ).search,
        lambda found: crc16_arc(found["text"]) == int(found["sum"], 16),
    ),
    # IEC 62056-21: exclusive or of everything after STX, ETX included
    "iec-62056-21": Telegram(
        re.compile(rb"(?s)\x02(?P<text>[^\x02\x03]*)\x03(?P<sum>.)").search,
        lambda found: xor8(found["text"] + b"\x03") == found["sum"][0],
    ),
    # Modbus ASCII and its kind: the sum of the bytes that are written in hexadecimal digits is 0
    "lrc": Telegram(
        re.compile(rb"(?P<text>:(?P<hex>(?:[0-9A-Fa-f]{2}){2,300}))\r?\n").search,
        _hex_sum_is_zero,
    ),
}


class TelegramReader:
    """Takes chunks, gives the text of each telegram whose checksum is right."""

    def __init__(self, telegram: Telegram) -> None:
        self._telegram = telegram
        self._in_the_middle = True
        self._rest = b""
        self.bad = 0

    def clear(self) -> None:
        self._in_the_middle = True
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        rest = self._rest + chunk
        if self._telegram.between is not None:
            rest = self._telegram.between.sub(b"", rest)
        end = 0
        while (found := self._telegram.find(rest, end)) is not None:
            end = found.end()
            if self._telegram.is_true(found):
                yield found["text"]
            else:
                self.bad += not self._in_the_middle  # of the first one the start may be missing
            self._in_the_middle = False
        self._rest = rest[end:][-self._telegram.most :]
