"""Framed protocols and noise: before, between and inside frames it gives no value that was not sent, and a
good frame behind it is found again.

Random noise passes a checksum of 16 bits once in 65 536 times, so the same noise is made each time.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.driver import Flagged, WrongChip
from device_agent_drivers.framed_msgpack import FramedMsgpack, FramedMsgpackConfig, encoded
from device_agent_drivers.frames import FRAMINGS
from device_agent_drivers.nmea_gps import NmeaGps, NmeaGpsConfig
from device_agent_drivers.pms5003 import Pms5003, Pms5003Config
from device_agent_drivers.serial_frames import SerialFrames, SerialFramesConfig
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig
from device_agent_drivers.simulated.serial_lines import SEALS

# Longer than any frame: whatever false start waits for its end has it then.
REST = b"\0" * 1100


@dataclass(frozen=True)
class Protocol:
    """`frame` says a number from 0 to 999; `point` of the driver's readings is that number."""

    make: Callable[[], Any]
    frame: Callable[[int], bytes]
    point: str
    sum_bits: int


def lines(checksum: str, pattern: str) -> Callable[[], Any]:
    options = {"pattern": pattern, "checksum": checksum, "points": {"n": {}}}
    return lambda: SerialLines(SerialLinesConfig.model_validate(options), None)  # type: ignore[arg-type]


def msgpack(framing: str) -> Callable[[], Any]:
    options = {"framing": framing, "points": {"n": {}}}
    return lambda: FramedMsgpack(FramedMsgpackConfig.model_validate(options), None)  # type: ignore[arg-type]


def binary() -> SerialFrames:
    frame = {"start": "A5 5A", "length_at": 2, "length_add": 3, "checksum": "crc16-ccitt"}
    options = {"frame": frame, "points": {"n": {"at": 3, "code": "u16"}}}
    return SerialFrames(SerialFramesConfig.model_validate(options), None)  # type: ignore[arg-type]


def binary_frame(number: int) -> bytes:
    driver = binary()
    return driver.config.frame.made(driver.config.points, {"n": number})


def pms_frame(number: int) -> bytes:
    words = [number] * 6 + [60_000 - place for place in range(6)] + [0]
    frame = b"\x42\x4d\x00\x1c" + b"".join(word.to_bytes(2, "big") for word in words)
    return frame + sum(frame).to_bytes(2, "big")


def nmea_frame(number: int) -> bytes:
    place = "4700.0000,N,00800.0000,E"
    both = (
        f"GPGGA,{number:06d},{place},1,08,0.9,{number}.0,M,47.4,M,,",
        f"GPRMC,{number:06d},A,{place},0.0,0.0,200420,,,A",
    )
    return b"".join(SEALS["nmea"](body.encode()) for body in both)


def said(number: int) -> bytes:
    return f"n={number}".encode()


PROTOCOLS = {
    "cobs": Protocol(msgpack("cobs"), lambda n: b"\0" + encoded({"n": n}, FRAMINGS["cobs"]), "n", 16),
    "slip": Protocol(msgpack("slip"), lambda n: b"\xc0" + encoded({"n": n}, FRAMINGS["slip"]), "n", 16),
    "binary": Protocol(binary, binary_frame, "n", 16),
    "pms5003": Protocol(lambda: Pms5003(Pms5003Config(bus="b"), None), pms_frame, "pm10", 16),  # type: ignore[arg-type]
    "nmea-gps": Protocol(lambda: NmeaGps(NmeaGpsConfig(bus="b"), None), nmea_frame, "altitude", 8),  # type: ignore[arg-type]
    "p1": Protocol(lines("p1", "^n=(?P<n>.*)$"), lambda n: SEALS["p1"](said(n)), "n", 16),
    "ve-direct": Protocol(lines("ve-direct", "^n=(?P<n>.*)$"), lambda n: SEALS["ve-direct"](said(n)), "n", 8),
    "iec-62056-21": Protocol(
        lines("iec-62056-21", "^n=(?P<n>.*)$"), lambda n: SEALS["iec-62056-21"](said(n)), "n", 8
    ),
    "nmea": Protocol(lines("nmea", r"^\$n=(?P<n>.*)$"), lambda n: SEALS["nmea"](said(n)), "n", 8),
    "lrc": Protocol(lines("lrc", r"^:0103(?P<n>[0-9]{4})"), lambda n: SEALS["lrc"](b"0103%04d" % n), "n", 8),
}


def heard(driver: Any, data: bytes, sizes: Iterable[int], point: str) -> list[Any]:
    """The numbers that it says, fed in pieces; what tells of another model is an answer to noise, too."""
    numbers: list[Any] = []
    at = 0
    for size in sizes:
        with suppress(WrongChip):
            numbers += [values[point] for values in driver.feed(data[at : at + size]) if point in values]
        at += size
    return [number for number in numbers if not isinstance(number, Flagged)]


NUMBER = st.integers(0, 999)


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.binary(max_size=30), NUMBER), min_size=1, max_size=5), NUMBER, st.data())
def test_noise_gives_nothing_that_was_not_sent(
    name: str, parts: list[tuple[bytes, int]], last: int, data: st.DataObject
) -> None:
    protocol = PROTOCOLS[name]
    stream, sent = b"", {last}
    for noise, number in parts:
        frame = protocol.frame(number)
        if data.draw(st.booleans()):  # inside: one byte is another one, or there is one too many or too few
            at = data.draw(st.integers(0, len(frame) - 1))
            added = data.draw(st.binary(max_size=2)) if protocol.sum_bits == 16 else b""
            frame = (
                frame[:at]
                + (added or bytes((frame[at] ^ 1 << data.draw(st.integers(0, 7)),)))
                + frame[at + 1 :]
            )
        stream += noise + frame
        sent.add(number)
    # A frame that is cut off may take the next one with it, and no more.
    stream += REST + protocol.frame(last) + protocol.frame(last)
    sizes = [data.draw(st.integers(1, 200))] * (len(stream) + 1)
    numbers = heard(protocol.make(), stream, sizes, protocol.point)
    assert set(numbers) <= sent
    assert numbers
    assert numbers[-1] == last


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=60)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_nothing_that_comes_raises(name: str, chunks: list[bytes]) -> None:
    protocol = PROTOCOLS[name]
    driver = protocol.make()
    for chunk in chunks:
        heard(driver, chunk, [len(chunk)], protocol.point)
    data = REST + protocol.frame(7) * 2
    assert heard(driver, data, [len(data)], protocol.point)[-1] == 7
