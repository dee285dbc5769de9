"""Binary frames by configuration: whole, damaged, between noise."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from device_agent.testing import check_driver
from device_agent_drivers.serial_frames import SerialFrames, SerialFramesConfig

SDS011 = {
    "frame": {"start": "AA C0", "length": 10, "end": "AB", "checksum": "sum8", "checksum_from": 2},
    "points": {
        "pm2_5": {"at": 2, "code": "u16", "byte_order": "little", "scale": 0.1, "unit": "ug/m3"},
        "pm10": {"at": 4, "code": "u16", "byte_order": "little", "scale": 0.1, "unit": "ug/m3"},
    },
}
TOLD = {
    "frame": {"start": "A5 5A", "length_at": 2, "length_add": 5, "checksum": "crc16-modbus"},
    "points": {
        "kind": {"at": 3, "type": "integer"},
        "level": {"at": 4, "code": "f32", "where": {"3": 1}},
        "count": {"at": 4, "code": "i16", "type": "integer", "where": {"3": 2}},
        "open": {"at": 6, "mask": 0x04, "type": "boolean", "where": {"3": 2}},
        "last": {"at": -3, "type": "integer"},
    },
}


def frames(**options) -> SerialFrames:
    return SerialFrames(SerialFramesConfig.model_validate(options), None)  # type: ignore[arg-type]


def fed(driver: SerialFrames, data: bytes) -> list[dict]:
    return [dict(values) for values in driver.feed(data)]


def told(kind: int, data: bytes) -> bytes:
    crc = 0xFFFF
    frame = b"\xa5\x5a" + bytes((1 + len(data), kind)) + data
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return frame + struct.pack("<H", crc)


def test_the_frame_of_a_data_sheet():
    """SDS011, data sheet V1.3: 0x04D4 and 0x0A3A tenths."""
    assert fed(frames(**SDS011), bytes.fromhex("AAC0D4043A0AA1601DAB")) == [
        {"pm2_5": pytest.approx(123.6), "pm10": pytest.approx(261.8)}
    ]


def test_kinds_of_frames_with_a_length_of_their_own():
    driver = frames(**TOLD)
    data = told(1, struct.pack(">f", 2.5)) + told(2, struct.pack(">hB", -3, 0x04)) + told(9, b"")
    assert fed(driver, data) == [
        {"kind": 1, "level": 2.5, "last": 0},
        {"kind": 2, "count": -3, "open": True, "last": 4},
        {"kind": 9, "last": 9},
    ]
    assert driver.notes() == {}


NOISE = st.binary(max_size=40) | st.sampled_from([b"\xa5", b"\xa5\x5a", b"\xa5\x5a\xff", b"\xa5\x5a\x00"])


@settings(derandomize=True)  # a checksum of 16 bits lets one piece of noise in 65 536 pass
@given(st.lists(st.tuples(NOISE, st.binary(min_size=4, max_size=4)), min_size=1, max_size=6), st.data())
def test_noise_gives_no_value_and_hides_no_later_frame(parts, data):
    """Noise before, between and inside; what is behind a false start may come later, and does come."""
    driver = frames(**TOLD)
    stream, sent = b"", []
    for noise, level in parts:
        frame = told(2, level)
        hurt = data.draw(st.none() | st.tuples(st.integers(0, len(frame) - 1), st.integers(1, 255)))
        if hurt is not None:
            frame = frame[: hurt[0]] + bytes((frame[hurt[0]] ^ hurt[1],)) + frame[hurt[0] + 1 :]
        stream += noise + frame
        sent.append(struct.unpack(">h", level[:2])[0])
    last = told(2, b"\x12\x34\x00")
    stream += b"\0" * 260 + last  # longer than any length that a byte tells
    at, got = 0, []
    while at < len(stream):
        size = data.draw(st.integers(1, 64))
        got += fed(driver, stream[at : at + size])
        at += size
    counts = [values["count"] for values in got if "count" in values]
    assert set(counts) <= {*sent, 0x1234}
    assert counts[-1] == 0x1234
    assert len(driver._reader._rest) < 300


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize("size", [1, 3, 100])
def test_without_checksum_or_end_only_frames_behind_each_other_are_believed(cut, size):
    """FF 07 FF 11 of which the first byte was missed holds a frame that nobody sent: FF 11 FF 07."""
    driver = frames(frame={"start": "FF", "length": 4}, points={"n": {"at": 1, "code": "u8"}})
    data = (b"\xff\x07\xff\x11" + b"\xff\x08\x00\x22" * 3)[cut:]
    got = [values["n"] for at in range(0, len(data), size) for values in fed(driver, data[at : at + size])]
    assert got
    assert set(got) == {8}


def test_noise_between_frames_without_checksum_costs_the_next_one():
    driver = frames(frame={"start": "FF 01", "length": 4}, points={"n": {"at": 2, "code": "u16"}})
    one, two = b"\xff\x01\x00\x01", b"\xff\x01\x00\x02"
    assert [v["n"] for v in fed(driver, one + two + b"\x55" + one + two + two)] == [2, 2, 2]
    driver = frames(
        frame={"start": "FF 01", "length": 5, "end": "EE"}, points={"n": {"at": 2, "code": "u16"}}
    )
    assert [v["n"] for v in fed(driver, b"\xff\x01\x00\x03\xee")] == [3], "an end is proof enough"


def test_signed_fields_of_bits():
    points = {
        "low": {"at": 2, "code": "i16", "mask": 0x0FFF},
        "high": {"at": 2, "code": "i16", "mask": 0xF000},
    }
    driver = frames(frame={"start": "FF 01", "length": 5, "end": "EE"}, points=points)
    assert fed(driver, b"\xff\x01\xdf\xfe\xee") == [{"low": -2, "high": -3}]


def test_a_point_beyond_a_frame_is_left_out():
    assert fed(frames(**{**TOLD, "points": {"far": {"at": 40}, "kind": {"at": 3}}}), told(7, b"")) == [
        {"kind": 7.0}
    ]


def test_its_contract():
    check_driver(SerialFrames, config=SDS011)
    check_driver(SerialFrames, config={**TOLD, "points": {"level": {"at": 4, "code": "f32"}}})
    check_driver(SerialFrames, config={"frame": {"start": "FF", "length": 4}, "points": {"n": {"at": 1}}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": {"start": "AA"}}, "either `length` or `length_at`"),
        ({"frame": {"start": "A", "length": 9}}, "start"),
        ({"points": {"a": {"at": 0, "write": True, "safe": 1}}}, "cannot be written"),
    ],
)
def test_mistakes_in_the_configuration_are_named(change, message):
    with pytest.raises(ValidationError, match=message):
        SerialFramesConfig.model_validate({**SDS011, **change})
