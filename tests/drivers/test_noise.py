"""Framed protocols and noise: before, between and inside frames it gives no value that was not sent, and a
good frame behind it is found again.

Random noise passes a checksum of 16 bits once in 65 536 times, so the same noise is made each time.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.driver import BadReading, Flagged, MqttMessage, NoAnswer, WrongChip
from device_agent_drivers import ds18b20, sensirion
from device_agent_drivers.checksums import crc8_maxim_dow
from device_agent_drivers.framed_msgpack import FramedMsgpack, FramedMsgpackConfig, encoded
from device_agent_drivers.frames import FRAMINGS
from device_agent_drivers.modbus import framed
from device_agent_drivers.modbus_rtu import ModbusRtu, ModbusRtuConfig
from device_agent_drivers.mqtt_topic import MqttTopic, MqttTopicConfig
from device_agent_drivers.nmea_gps import NmeaGps, NmeaGpsConfig
from device_agent_drivers.pms5003 import Pms5003, Pms5003Config
from device_agent_drivers.serial_ask import SerialAsk, SerialAskConfig
from device_agent_drivers.serial_frames import SerialFrames, SerialFramesConfig
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig
from device_agent_drivers.simulated.serial_lines import SEALS
from support.scripted_line import SlowFarEnd

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


def frames(layout: dict[str, Any], **point: Any) -> Callable[[], SerialFrames]:
    options = {"frame": layout, "points": {"n": {"code": "u16", **point}}}
    return lambda: SerialFrames(SerialFramesConfig.model_validate(options), None)  # type: ignore[arg-type]


def made(make: Callable[[], SerialFrames]) -> Callable[[int], bytes]:
    config = make().config
    return lambda number: config.frame.made(config.points, {"n": number})


BINARY = frames({"start": "A5 5A", "length_at": 2, "length_add": 3, "checksum": "crc16-ccitt"}, at=3)
SDS011 = frames(
    {"start": "AA C0", "length": 10, "end": "AB", "checksum": "sum8", "checksum_from": 2},
    at=2,
    byte_order="little",
)
TFMINI = frames({"start": "59 59", "length": 9, "byte_order": "little", "checksum": "sum8"}, at=2)


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
    "binary": Protocol(BINARY, made(BINARY), "n", 16),
    "sds011": Protocol(SDS011, made(SDS011), "n", 8),
    "tfmini": Protocol(TFMINI, made(TFMINI), "n", 8),
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


def hurt(frame: bytes, sum_bits: int, data: st.DataObject) -> bytes:
    """Perhaps one byte is another one or, where the checksum tells that, there is one too many or too few."""
    if not data.draw(st.booleans()):
        return frame
    at = data.draw(st.integers(0, len(frame) - 1))
    added = data.draw(st.binary(max_size=2)) if sum_bits == 16 else b""
    return frame[:at] + (added or bytes((frame[at] ^ 1 << data.draw(st.integers(0, 7)),))) + frame[at + 1 :]


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.binary(max_size=30), NUMBER), min_size=1, max_size=5), NUMBER, st.data())
def test_noise_gives_nothing_that_was_not_sent(
    name: str, parts: list[tuple[bytes, int]], last: int, data: st.DataObject
) -> None:
    protocol = PROTOCOLS[name]
    stream, sent = b"", {last}
    for noise, number in parts:
        stream += noise + hurt(protocol.frame(number), protocol.sum_bits, data)
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


# --- answers to questions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """`answer` to a question says a number from 0 to 999, and 1000 more for another question."""

    make: Callable[[Any], Any]
    answer: Callable[[bytes, int], bytes]
    sum_bits: int


def modbus(line: Any) -> ModbusRtu:
    points = {"n": {"address": 0}, "m": {"address": 7}, "l": {"kind": "input", "address": 0}}
    return ModbusRtu(ModbusRtuConfig.model_validate({"points": points}), line, lambda seconds: None)


def modbus_answer(question: bytes, number: int) -> bytes:
    return framed(question[:2] + b"\x02" + number.to_bytes(2, "big"))


def asking(**options: Any) -> Callable[[Any], SerialAsk]:
    table = {"ask": "N?\n", "points": {"n": {}}, "answer_s": 0.1, **options}
    return lambda line: SerialAsk(SerialAskConfig.model_validate(table), line)


def mhz19_answer(question: bytes, number: int) -> bytes:
    body = b"\x86" + number.to_bytes(2, "big") + b"\x00\x01\x02\x03"
    return b"\xff" + body + bytes((-sum(body) & 0xFF,))


MHZ19 = {
    "ask": [{"send_hex": "FF 01 86 00 00 00 00 00 79"}],
    "frame": {"start": "FF", "length": 9, "checksum": "negated-sum8", "checksum_from": 1},
    "points": {"n": {"at": 2, "code": "u16", "where": {"1": 0x86}}},
}
ASKED = {
    "modbus-rtu": Asked(modbus, modbus_answer, 16),
    "mh-z19": Asked(asking(**MHZ19), mhz19_answer, 8),
    "modbus-ascii": Asked(
        asking(ask=":0103\r\n", checksum="lrc", pattern=r"^:0103(?P<n>[0-9]{4})"),
        lambda question, n: SEALS["lrc"](b"0103%04d" % n),
        8,
    ),
    "iec-62056-21": Asked(
        asking(ask="/?!\r\n", checksum="iec-62056-21", pattern="^n=(?P<n>.*)$"),
        lambda question, n: SEALS["iec-62056-21"](said(n)),
        8,
    ),
    "p1": Asked(asking(checksum="p1", pattern="^n=(?P<n>.*)$"), lambda question, n: SEALS["p1"](said(n)), 16),
}


@pytest.mark.parametrize("name", ASKED)
@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 4), NUMBER, st.data())
def test_noise_around_an_answer_gives_nothing_that_was_not_sent(
    name: str, rounds: int, last: int, data: st.DataObject
) -> None:
    asked = ASKED[name]
    sent: set[tuple[bytes, int]] = set()
    questions: dict[bytes, int] = {}

    def number(question: bytes, any_number: int) -> int:
        """Each question has thousands of its own, so that another one's answer is seen."""
        return questions.setdefault(question, len(questions)) * 1000 + any_number

    def noisy(question: bytes) -> bytes:
        before, after = data.draw(st.binary(max_size=20)), data.draw(st.binary(max_size=20))
        n = number(question, data.draw(NUMBER))
        sent.add((question, n))
        return before + hurt(asked.answer(question, n), asked.sum_bits, data) + after

    line = SlowFarEnd(0.001, noisy)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("serial_ask", "far_end"):
            patch.setattr(f"device_agent_drivers.{module}.monotonic", lambda: line.now_s)
        patch.setattr("device_agent_drivers.modbus.time", SimpleNamespace(monotonic=lambda: line.now_s))
        driver = asked.make(line)
        line.set_baud = lambda baud: None  # type: ignore[attr-defined]
        for _ in range(rounds):
            sent.clear()
            with suppress(NoAnswer, BadReading):
                values = [value for value in driver.read().values() if not isinstance(value, Flagged)]
                # In the order of the points, which is that of the questions.
                assert {(value // 1000, value) for value in values} <= {(n // 1000, n) for _, n in sent}
                assert len({value // 1000 for value in values}) == len(values)
        line.answer = lambda question: asked.answer(question, number(question, last))
        line.now_s += 60
        found = list(driver.read().values())
        assert found == [thousand * 1000 + last for thousand in range(len(found))]


# --- without a stream ------------------------------------------------------------------------------------


@settings(derandomize=True)
@given(st.lists(st.tuples(st.binary(max_size=40), NUMBER)), st.sampled_from(["json", "pattern"]))
def test_noise_on_a_topic_gives_nothing_that_was_not_sent(parts: list[tuple[bytes, int]], kind: str) -> None:
    point = {"path": "n"} if kind == "json" else {"pattern": "^n=(?P<value>[0-9]+)$"}
    points = {"n": {"topic": "a/+", **point}}
    driver = MqttTopic(MqttTopicConfig.model_validate({"points": points}), None)  # type: ignore[arg-type]
    sent, numbers = [], []
    for noise, number in parts:
        payload = b'{"n": %d}' % number if kind == "json" else said(number)
        for data in (noise, payload):
            for values in driver.feed(MqttMessage("a/b", data, retained=False)):
                numbers += [value for value in values.values() if not isinstance(value, Flagged)]
        sent.append(number)
    assert numbers == sent


def test_no_damaged_byte_of_a_scratchpad_is_a_temperature() -> None:
    good = bytes.fromhex("91 01 4b 46 7f ff 0c 10 25".replace(" ", ""))
    body = good[:8]
    good = body + bytes((crc8_maxim_dow(body),))
    for at in range(9):
        for flips in range(1, 256):
            damaged = good[:at] + bytes((good[at] ^ flips,)) + good[at + 1 :]
            with pytest.raises((NoAnswer, BadReading)):
                ds18b20.scratchpad(f"{damaged.hex(' ')} : crc=00 YES\n", "28-000000000000")


def test_no_damaged_byte_of_a_word_is_a_humidity() -> None:
    good = b"\xbe\xef\x92"
    assert sensirion.words_of(good) == [0xBEEF]
    for at in range(3):
        for flips in range(1, 256):
            assert sensirion.words_of(good[:at] + bytes((good[at] ^ flips,)) + good[at + 1 :]) == [None]
