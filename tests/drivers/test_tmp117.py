"""TMP117: the data sheet's table of values, its power-on value, its settings."""

import pytest

from device_agent.driver import ChipReset, DriverError, Flag, Flagged, WrongChip
from device_agent.testing import RegisterChip, check_driver
from device_agent_drivers.tmp117 import Tmp117, Tmp117Config


def test_contract():
    check_driver(Tmp117)
    check_driver(Tmp117, {"address": 0x4B})


def test_contract_on_a_bare_register_map():
    check_driver(Tmp117, registers={0x0F: b"\x01\x17", 0x00: b"\x0c\x80", 0x01: b"\x02\x20"})


@pytest.mark.parametrize(
    ("raw", "celsius"),
    [
        (0xF380, -25),
        (0xFFF0, -0.125),
        (0xFFFF, -0.0078125),
        (0x0000, 0),
        (0x0001, 0.0078125),
        (0x0010, 0.125),
        (0x0080, 1),
        (0x0C80, 25),
        (0x3200, 100),
    ],
)
def test_the_sheets_table(bench, raw, celsius):
    """Table 7-1."""
    it = bench(Tmp117, "i2c1")
    it.driver.open()
    it.measure()
    it.board.chip("it")[0x00] = raw
    assert it.driver.read() == {"temperature": celsius}


@pytest.mark.parametrize("temperature", [-55.0, -10.5, 0.0, 25.25, 85.0, 150.0])
def test_values(bench, temperature):
    it = bench(Tmp117, "i2c1")
    it.board.set("it", temperature=temperature)
    it.driver.open()
    assert it.measure() == {"temperature": temperature}


@pytest.mark.parametrize("found", [0x0117, 0x1117, 0x2117])
def test_revisions_are_taken(bench, found):
    it = bench(Tmp117, "i2c1")
    it.board.chip("it")._power_on[0x0F] = found.to_bytes(2, "big")
    it.board.reset("it")
    it.driver.open()


@pytest.mark.parametrize("wrong", [0x0000, 0xFFFF, 0x1116, 0x0075])
def test_another_chip_is_refused_with_its_id(bench, wrong):
    it = bench(Tmp117, "i2c1")
    it.board.chip("it")[0x0F] = wrong
    with pytest.raises(WrongChip, match=f"{wrong:#06x}"):
        it.driver.open()


def test_before_the_first_conversion_there_is_no_value(bench):
    it = bench(Tmp117, "i2c1")
    it.driver.open()
    assert it.driver.settle_s == pytest.approx(0.14)
    assert it.driver.read() == {"temperature": Flagged(None, Flag.POWER_ON_VALUE)}
    it.clock.step(0.14)
    assert it.driver.read() == {"temperature": 21.5}
    assert it.driver.settle_s == 0


def test_a_reset_shows_as_power_on_value_and_passes(bench):
    it = bench(Tmp117, "i2c1")
    it.driver.open()
    it.measure()
    it.board.reset("it")
    assert it.driver.read() == {"temperature": Flagged(None, Flag.POWER_ON_VALUE)}
    it.clock.step(0.14)
    assert it.driver.read() == {"temperature": 21.5}


def test_lost_settings_are_told(bench):
    it = bench(Tmp117, "i2c1")
    it.driver.open()
    it.board.chip("it")[0x01] = 0x0420
    with pytest.raises(ChipReset, match="0x0420"):
        it.driver.read()
    it.driver.open()
    assert it.measure() == {"temperature": 21.5}


def test_foreign_offset_and_mode_are_overwritten(bench):
    it = bench(Tmp117, "i2c1")
    it.board.chip("it").put(0x07, b"\x05\x00")
    it.board.chip("it").put(0x01, b"\x07\xf0")
    it.driver.open()
    assert it.measure() == {"temperature": 21.5}


def test_a_memory_that_stays_busy_is_an_error(bench):
    it = bench(Tmp117, "i2c1")
    chip: RegisterChip = it.board.chip("it")
    chip.on_read = lambda register, value: value | 0x1000 if register == 0x01 else value
    with pytest.raises(DriverError, match="still busy"):
        it.driver.open()


def test_options_are_bounded():
    with pytest.raises(ValueError):
        Tmp117Config.model_validate({"address": 0x4C})
