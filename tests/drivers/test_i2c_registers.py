"""Chips described in the configuration: widths, signs, bytes, bits, limits, identity, settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from device_agent.driver import ChipReset, DriverError, NoAnswer, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.i2c_register_map import RegisterPoint
from device_agent_drivers.i2c_registers import I2cRegisters, I2cRegistersConfig

# A TMP117 as a configuration would describe it
THERMOMETER = {
    "address": 0x48,
    "id": {"register": 0x0F, "value": 0x0117, "width_bits": 16, "mask": 0x0FFF},
    "setup": [{"register": 0x01, "value": 0x0220, "width_bits": 16}],
    "points": {
        "temperature": {
            "register": 0x00, "width_bits": 16, "signed": True, "scale": 0.0078125,
            "unit": "Cel", "low": -55, "high": 150,
        },
    },
}  # fmt: skip
# A fan controller: a duty, two bits in one register, a little-endian count
FAN = {
    "address": 0x2F,
    "points": {
        "duty": {"register": 0x10, "unit": "%", "scale": 0.4, "write": True, "maximum": 100, "safe": 30},
        "on": {"register": 0x11, "mask": 0x01, "type": "boolean", "write": True, "safe": False},
        "mode": {"register": 0x11, "mask": 0x30, "type": "integer", "write": True, "safe": 2},
        "speed": {"register": 0x20, "width_bits": 16, "byte_order": "little", "unit": "/min"},
        "alarm": {"register": 0x30, "mask": 0x80, "type": "boolean"},
    },
}


@pytest.mark.parametrize("options", [THERMOMETER, FAN, {**FAN, "register_bytes": 2}])
def test_contract(options):
    check_driver(I2cRegisters, options)


@pytest.mark.parametrize(
    ("raw", "celsius"), [("0c80", 25.0), ("f380", -25.0), ("ffff", -0.0078125), ("0000", 0.0)]
)
def test_a_thermometer(bench, raw, celsius):
    it = bench(I2cRegisters, "i2c1", **THERMOMETER)
    it.driver.open()
    it.board.chip("it").put(0x00, bytes.fromhex(raw))
    assert it.measure() == {"temperature": celsius}
    assert it.board.chip("it").get(0x01, 2) == b"\x02\x20"


def test_the_simulator_shows_quantities(bench):
    it = bench(I2cRegisters, "i2c1", **FAN)
    it.driver.open()
    it.board.set("it", speed=0x1234, alarm=True)
    assert it.board.chip("it").get(0x20, 2) == b"\x34\x12"
    assert it.measure() == {"duty": 30.0, "on": False, "mode": 2, "speed": 0x1234, "alarm": True}


def test_writing_moves_no_other_bit(bench):
    it = bench(I2cRegisters, "i2c1", **FAN)
    chip = it.board.chip("it")
    chip[0x11] = 0xCE
    it.driver.open()
    assert chip[0x11] == 0xEE  # on 0, mode 2
    assert it.driver.write({"on": True, "mode": 1}) == {"on": True, "mode": 1}
    assert chip[0x11] == 0xDF
    assert it.driver.write({"duty": 100.0}) == {"duty": 100.0}
    assert chip[0x10] == 250
    it.driver.safe()
    assert (chip[0x10], chip[0x11]) == (75, 0xEE)


def test_points_in_one_register_go_in_one_write(bench):
    it = bench(I2cRegisters, "i2c1", **FAN)
    it.driver.open()
    writes = []
    take = it.handle.transfer
    it.handle.transfer = lambda address, write, size=0: (
        writes.append(bytes(write)) or take(address, write, size)
    )
    it.driver.write({"on": True, "mode": 3})
    assert [write for write in writes if len(write) > 1] == [b"\x11\x31"]
    writes.clear()
    it.driver.read()
    assert writes == [b"\x10", b"\x11", b"\x20", b"\x30"]


def test_registers_with_long_addresses(bench):
    points = {"level": {"register": 0x010F, "width_bits": 24, "signed": True}}
    it = bench(I2cRegisters, "i2c1", address=0x29, register_bytes=2, points=points)
    it.driver.open()
    it.board.chip("it").put(0x010F, b"\xff\xff\xfe")
    assert it.measure() == {"level": -2}


@pytest.mark.parametrize("wrong", [b"\x00\x00", b"\xff\xff", b"\x01\x16"])
def test_another_chip_is_refused_with_its_id(bench, wrong):
    it = bench(I2cRegisters, "i2c1", **THERMOMETER)
    it.board.chip("it").put(0x0F, wrong)
    with pytest.raises(WrongChip, match=f"holds {int.from_bytes(wrong, 'big'):#x}, not 0x117"):
        it.driver.open()


def test_other_revisions_are_taken(bench):
    it = bench(I2cRegisters, "i2c1", **THERMOMETER)
    it.board.chip("it").put(0x0F, b"\x21\x17")
    it.driver.open()


def test_a_chip_that_forgot_its_setup_is_told(bench):
    it = bench(I2cRegisters, "i2c1", **THERMOMETER)
    it.driver.open()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="0x0 instead of 0x220"):
        it.driver.read()
    it.driver.open()
    assert it.measure() == {"temperature": 0.0}


def test_a_setup_that_never_reads_as_written(bench):
    options = {
        **THERMOMETER,
        "setup": [{"register": 0x01, "value": 0x0002, "width_bits": 16, "check": False}],
    }
    it = bench(I2cRegisters, "i2c1", **options)
    it.board.chip("it").on_write = lambda register, value: 0
    it.driver.open()
    assert it.measure() == {"temperature": 0.0}


def test_silence_is_no_answer(bench):
    it = bench(I2cRegisters, "i2c1", **FAN)
    it.driver.open()
    it.board.fault("i2c1", "nack")
    with pytest.raises(NoAnswer):
        it.driver.read()


def point(**options) -> RegisterPoint:
    return RegisterPoint.model_validate({"register": 0, **options})


@pytest.mark.parametrize(
    ("options", "data", "value"),
    [
        ({}, "ff", 255),
        ({"signed": True}, "80", -128),
        ({"width_bits": 32}, "fffffffe", 0xFFFFFFFE),
        ({"width_bits": 32, "signed": True}, "fffffffe", -2),
        ({"width_bits": 24, "byte_order": "little"}, "010203", 0x030201),
        ({"width_bits": 16, "mask": 0xFFF0, "signed": True}, "8010", -2047),
        ({"width_bits": 16, "mask": 0x0FF0}, "fabf", 0xAB),
        ({"scale": 0.1, "offset": -40}, "03", -39.7),
        ({"type": "integer", "scale": 0.5}, "05", 2),
        ({"type": "boolean", "mask": 0x0C}, "04", True),
        ({"type": "boolean", "mask": 0x0C}, "f3", False),
    ],
)
def test_decoding(options, data, value):
    assert point(**options).decode(bytes.fromhex(data)) == value


@given(st.sampled_from((8, 16, 24, 32)), st.booleans(), st.sampled_from(("big", "little")), st.data())
def test_there_and_back(width_bits, signed, byte_order, data):
    low = data.draw(st.integers(0, width_bits - 1))
    high = data.draw(st.integers(low, width_bits - 1))
    mask = (1 << high + 1) - (1 << low)
    it = point(width_bits=width_bits, signed=signed, byte_order=byte_order, mask=mask)
    before = data.draw(st.binary(min_size=width_bits // 8, max_size=width_bits // 8))
    value = data.draw(st.integers(*map(int, it.limits)))
    after = it.encode(value, before)
    assert it.decode(after) == value
    assert (int.from_bytes(after, byte_order) ^ int.from_bytes(before, byte_order)) & ~mask == 0


def test_a_writable_point_goes_no_further_than_its_bits():
    config = I2cRegistersConfig.model_validate(FAN)
    points = {one.name: one for one in I2cRegisters.points_of(config)}
    assert (points["duty"].minimum, points["duty"].maximum) == (0, 100)
    assert (points["mode"].minimum, points["mode"].maximum) == (0, 3)
    assert points["speed"].minimum is None
    with pytest.raises(DriverError, match="reaches from 0 to 3"):
        config.points["mode"].encode(4, b"\0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"address": 0x78}, "address"),
        ({"points": {}}, "points"),
        ({"points": {"a": {}}}, "register"),
        ({"points": {"a": {"register": 0, "colour": 1}}}, "colour"),
        ({"points": {"a": {"register": 0, "type": "string"}}}, "holds no string"),
        ({"points": {"a": {"register": 0, "path": "b"}}}, "`path` is for points in text"),
        ({"points": {"a": {"register": 0, "mask": 0x100}}}, "wider than 8 bits"),
        ({"points": {"a": {"register": 0, "mask": 0x05}}}, "has a gap"),
        ({"points": {"a": {"register": 0, "width_bits": 12}}}, "width_bits"),
        ({"points": {"a": {"register": 0, "write": True}}}, "needs a `safe` value"),
        ({"points": {"a": {"register": 0, "write": True, "safe": 256}}}, "`safe` is 256"),
        ({"points": {"a": {"register": 0, "write": True, "safe": 0, "maximum": 300}}}, "`maximum` is 300"),
        ({"points": {"a": {"register": 0x100}}}, "register_bytes = 2"),
        ({"setup": [{"register": 0, "value": 0x100}]}, "wider than 8 bits"),
    ],
)
def test_mistakes_in_the_configuration_are_named(change, message):
    with pytest.raises(ValidationError, match=message):
        I2cRegistersConfig.model_validate({**FAN, **change})
