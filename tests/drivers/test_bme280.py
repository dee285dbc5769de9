"""BME280: the data sheet's formulas and vectors, its traps, and a chip that misbehaves."""

import pytest

from device_agent.driver import ChipReset, DriverError, Flag, Flagged, WrongChip
from device_agent_drivers.bme280 import (
    Bme280,
    Bme280Config,
    HumidityCalibration,
    decode,
    longest_measurement_s,
)
from device_agent_drivers.simulated import bme280 as simulated


def words(*values: int) -> bytes:
    return b"".join((value & 0xFFFF).to_bytes(2, "little") for value in values)


# The example of Bosch's data sheets: 519888 and 415148 are 25.08 degrees and 100653.27 Pa
EXAMPLE = words(27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000) + b"\0\x4b"
HUMID = bytes.fromhex("63010014 2d03 1e")


def data(raw_p: int, raw_t: int, raw_h: int) -> bytes:
    return (raw_p << 4).to_bytes(3, "big") + (raw_t << 4).to_bytes(3, "big") + raw_h.to_bytes(2, "big")


def test_the_sheets_example():
    values = decode(HumidityCalibration.of(EXAMPLE, HUMID), data(415148, 519888, 30000))
    assert values["temperature"] == pytest.approx(25.08, abs=0.005)
    assert values["pressure"] == pytest.approx(1006.5327, abs=0.0005)


def test_calibration_types_and_packing():
    calibration = HumidityCalibration.of(EXAMPLE, HUMID)
    assert calibration.t == (27504, 26435, -1000)
    assert calibration.p == (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
    assert calibration.h == (75, 355, 0, 0x14D, 0x032, 30)


def test_calibration_signs_of_the_humidity_part():
    """Every signed value negative, every unsigned one above half of its range: H4 and H5 share a byte."""
    h4, h5 = -1234 & 0xFFF, -567 & 0xFFF
    second = words(-300) + bytes((200, h4 >> 4, h4 & 0xF | (h5 & 0xF) << 4, h5 >> 4, -7 & 0xFF))
    calibration = HumidityCalibration.of(words(65000, -1, -2, 65001, *range(-9, -1)) + b"\0\xfe", second)
    assert calibration.h == (254, -300, 200, -1234, -567, -7)
    assert calibration.t == (65000, -1, -2)
    assert calibration.p == (65001, *range(-9, -1))


@pytest.mark.parametrize("first", [bytes(26), b"\xff" * 26])
def test_blank_calibration_is_refused(first):
    with pytest.raises(DriverError, match="calibration memory is blank"):
        HumidityCalibration.of(first, HUMID)


@pytest.mark.parametrize("temperature", [-39.5, -10.0, -0.01, 0.0, 25.0, 84.9])
@pytest.mark.parametrize(("pressure", "humidity"), [(301.0, 1.0), (1013.25, 45.0), (1099.0, 99.0)])
def test_floating_point_and_integer_formulas_agree(bench, temperature, pressure, humidity):
    it = bench(Bme280, "i2c1", address=0x76)
    it.board.set("it", temperature=temperature, pressure=pressure, humidity=humidity)
    it.driver.open()
    assert it.measure() == {
        "temperature": pytest.approx(temperature, abs=0.01),
        "pressure": pytest.approx(pressure, abs=0.02),
        "humidity": pytest.approx(humidity, abs=0.1),
    }


@pytest.mark.parametrize("wrong", [0x00, 0x55, 0x58, 0x61, 0xFF, 0x42])
def test_another_chip_is_refused_with_its_id(bench, wrong):
    it = bench(Bme280, "i2c1")
    it.board.chip("it")[0xD0] = wrong
    with pytest.raises(WrongChip, match=f"{wrong:#04x}") as caught:
        it.driver.open()
    if wrong == 0x58:
        assert 'driver "bmp280"' in str(caught.value)


def test_foreign_state_is_overwritten_at_open(bench):
    it = bench(Bme280, "i2c1", iir=4)
    chip = it.board.chip("it")
    for register in (0xF2, 0xF4, 0xF5):
        chip[register] = 0xB7
    it.driver.open()
    assert (chip[0xF2], chip[0xF4] & 0xFC, chip[0xF5]) == (1, 0b001_001_00, 0b010_00)


def test_reset_between_two_readings_is_told(bench):
    it = bench(Bme280, "i2c1")
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
    it.driver.open()
    assert it.measure()["temperature"] == pytest.approx(21.5, abs=0.01)


def test_too_early_is_not_ready_instead_of_power_on_values(bench):
    it = bench(Bme280, "i2c1")
    it.driver.open()
    it.driver.trigger()
    not_ready = Flagged(None, Flag.NOT_READY)
    assert it.driver.read() == dict.fromkeys(("temperature", "pressure", "humidity"), not_ready)


def test_every_reading_is_a_new_measurement(bench):
    it = bench(Bme280, "i2c1")
    it.driver.open()
    first = it.measure()
    it.board.set("it", temperature=30.0)
    assert it.measure()["temperature"] - first["temperature"] == pytest.approx(8.5, abs=0.02)


def test_skipped_channels_are_no_points(bench):
    it = bench(Bme280, "i2c1", oversampling_pressure=0, oversampling_humidity=0)
    it.driver.open()
    assert set(it.measure()) == {"temperature"}
    assert [point.name for point in it.driver.points] == ["temperature"]


def test_skipped_values_are_null():
    values = decode(HumidityCalibration.of(EXAMPLE, HUMID), data(0x80000, 519888, 0x8000))
    assert values["temperature"] == pytest.approx(25.08, abs=0.005)
    assert values["pressure"] == values["humidity"] == Flagged(None, Flag.NOT_READY)
    nothing = decode(HumidityCalibration.of(EXAMPLE, HUMID), data(415148, 0x80000, 30000))
    assert set(nothing.values()) == {Flagged(None, Flag.NOT_READY)}


def test_the_longest_measurement_of_the_sheet():
    assert longest_measurement_s(1, 1, 1) == pytest.approx(0.0093)
    assert longest_measurement_s(16, 16, 16) == pytest.approx(0.1128)
    assert longest_measurement_s(1, 0, 0) == pytest.approx(0.00355)


def test_a_copy_that_never_ends_is_an_error(bench):
    it = bench(Bme280, "i2c1")
    chip = it.board.chip("it")
    chip.on_read = lambda register, value: 1 if register == 0xF3 else value
    with pytest.raises(DriverError, match="still copies its calibration"):
        it.driver.open()


def test_options_are_bounded():
    for wrong in ({"address": 0x40}, {"oversampling_temperature": 0}, {"iir": 3}, {"colour": "red"}):
        with pytest.raises(ValueError):
            Bme280Config.model_validate(wrong)


def test_the_simulated_chip_is_quiet_at_power_on():
    chip = simulated.SimulatedBme280()
    assert chip.transfer(b"\xf7", 8) == simulated.NOTHING_MEASURED
