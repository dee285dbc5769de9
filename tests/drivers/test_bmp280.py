"""BMP280: the data sheet's example, its traps, and a chip that misbehaves."""

import pytest

from device_agent.driver import ChipReset, DriverError, Flag, Flagged, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.bmp280 import Bmp280, Bmp280Config, decode
from device_agent_drivers.bosch import Calibration, longest_measurement_s

NOT_READY = Flagged(None, Flag.NOT_READY)


def words(*values: int) -> bytes:
    return b"".join((value & 0xFFFF).to_bytes(2, "little") for value in values)


# Section 3.12: 519888 and 415148 are 25.08 degrees and 100653.27 Pa
EXAMPLE = words(27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)


def data(raw_p: int, raw_t: int) -> bytes:
    return (raw_p << 4).to_bytes(3, "big") + (raw_t << 4).to_bytes(3, "big")


def test_contract():
    check_driver(Bmp280)
    check_driver(Bmp280, {"address": 0x77, "oversampling_pressure": 0})


def test_the_sheets_example():
    values = decode(Calibration.from_memory(EXAMPLE), data(415148, 519888))
    assert values["temperature"] == pytest.approx(25.08, abs=0.005)
    assert values["pressure"] == pytest.approx(1006.5327, abs=0.0005)


def test_types_of_the_calibration():
    calibration = Calibration.from_memory(words(65000, -1, -2, 65001, *range(-9, -1)))
    assert calibration.t == (65000, -1, -2)
    assert calibration.p == (65001, *range(-9, -1))


@pytest.mark.parametrize("memory", [bytes(24), b"\xff" * 24])
def test_blank_calibration_is_refused(memory):
    with pytest.raises(DriverError, match="calibration memory is blank"):
        Calibration.from_memory(memory)


@pytest.mark.parametrize("temperature", [-39.5, -10.0, -0.01, 0.0, 25.0, 84.9])
@pytest.mark.parametrize("pressure", [301.0, 1013.25, 1099.0])
def test_floating_point_and_integer_formulas_agree(bench, temperature, pressure):
    it = bench(Bmp280, "i2c1")
    it.board.set("it", temperature=temperature, pressure=pressure)
    it.driver.open()
    assert it.measure() == {
        "temperature": pytest.approx(temperature, abs=0.01),
        "pressure": pytest.approx(pressure, abs=0.02),
    }


@pytest.mark.parametrize("chip_id", [0x56, 0x57, 0x58])
def test_samples_and_mass_production_are_taken(bench, chip_id):
    it = bench(Bmp280, "i2c1")
    it.board.chip("it")[0xD0] = chip_id
    it.driver.open()
    assert it.measure()["temperature"] == pytest.approx(21.5, abs=0.01)


@pytest.mark.parametrize("wrong", [0x00, 0x55, 0x60, 0x61, 0xFF, 0x42])
def test_another_chip_is_refused_with_its_id(bench, wrong):
    it = bench(Bmp280, "i2c1")
    it.board.chip("it")[0xD0] = wrong
    with pytest.raises(WrongChip, match=f"{wrong:#04x}") as caught:
        it.driver.open()
    if wrong == 0x60:
        assert 'driver "bme280"' in str(caught.value)


def test_foreign_state_is_overwritten_at_open(bench):
    it = bench(Bmp280, "i2c1", iir=16, oversampling_pressure=16, oversampling_temperature=2)
    chip = it.board.chip("it")
    chip[0xF4] = chip[0xF5] = 0xB7
    it.driver.open()
    assert (chip[0xF4], chip[0xF5]) == (0b010_101_00, 0b100_00)
    assert it.driver.settle_s == pytest.approx(0.0432, abs=0.0001)  # table 13


def test_reset_between_two_readings_is_told(bench):
    it = bench(Bmp280, "i2c1")
    it.driver.open()
    it.measure()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="lost its settings"):
        it.driver.trigger()
    it.driver.open()
    it.driver.trigger()
    it.board.reset("it")
    with pytest.raises(ChipReset):
        it.driver.read()


def test_too_early_is_not_ready_instead_of_power_on_values(bench):
    it = bench(Bmp280, "i2c1")
    it.driver.open()
    it.driver.trigger()
    assert it.driver.read() == {"temperature": NOT_READY, "pressure": NOT_READY}


def test_skipped_values_are_null():
    calibration = Calibration.from_memory(EXAMPLE)
    assert decode(calibration, data(0x80000, 519888))["pressure"] == NOT_READY
    assert set(decode(calibration, data(415148, 0x80000)).values()) == {NOT_READY}


def test_no_pressure_where_it_is_off(bench):
    it = bench(Bmp280, "i2c1", oversampling_pressure=0)
    it.driver.open()
    assert set(it.measure()) == {"temperature"}


def test_the_longest_measurement_of_the_sheet():
    """Table 13, maximum."""
    assert [round(longest_measurement_s(t, p) * 1000, 1) for t, p in ((1, 1), (1, 2), (1, 4), (1, 8))] == [
        6.4,
        8.7,
        13.3,
        22.5,
    ]


def test_options_are_bounded():
    for wrong in ({"address": 0x40}, {"oversampling_humidity": 1}, {"iir": 3}):
        with pytest.raises(ValueError):
            Bmp280Config.model_validate(wrong)
