"""MPU-6050: ranges, relatives and copies, sleep after a brown-out."""

import pytest

from device_agent.driver import ChipReset, DriverError, Flag, Flagged, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.mpu6050 import IDS, Mpu6050, Mpu6050Config

G = 9.80665


def test_contract():
    check_driver(Mpu6050)
    check_driver(Mpu6050, {"address": 0x69, "accel_range_g": 16, "gyro_range_dps": 2000, "filter_hz": 5})


@pytest.mark.parametrize("accel_range_g", [2, 4, 8, 16])
@pytest.mark.parametrize("gyro_range_dps", [250, 500, 1000, 2000])
def test_ranges(bench, accel_range_g, gyro_range_dps):
    it = bench(Mpu6050, "i2c1", accel_range_g=accel_range_g, gyro_range_dps=gyro_range_dps)
    accel, gyro = accel_range_g * G * 0.9, gyro_range_dps * 0.9
    it.board.set("it", acceleration_x=-accel, acceleration_y=accel / 2, rotation_x=-gyro, rotation_z=gyro)
    it.driver.open()
    assert it.measure() == {
        "acceleration_x": pytest.approx(-accel, abs=0.01),
        "acceleration_y": pytest.approx(accel / 2, abs=0.01),
        "acceleration_z": pytest.approx(G, abs=0.01),
        "rotation_x": pytest.approx(-gyro, rel=0.002),
        "rotation_y": 0,
        "rotation_z": pytest.approx(gyro, rel=0.002),
        "temperature": pytest.approx(21.5, abs=0.01),
    }
    chip = it.board.chip("it")
    assert chip[0x1C] >> 3 == (2, 4, 8, 16).index(accel_range_g)
    assert chip[0x1B] >> 3 == (250, 500, 1000, 2000).index(gyro_range_dps)


def test_sensitivities_of_the_sheet(bench):
    """16384 counts are 1 g at +-2 g, 131 counts 1 degree a second at +-250; -521 counts are 35 degrees."""
    it = bench(Mpu6050, "i2c1")
    it.driver.open()
    words = (16384, -16384, 8192, -521, 131, -1310, 13100)
    it.board.chip("it")._data = lambda: b"".join(word.to_bytes(2, "big", signed=True) for word in words)
    assert it.measure() == {
        "acceleration_x": pytest.approx(G, abs=0.001),
        "acceleration_y": pytest.approx(-G, abs=0.001),
        "acceleration_z": pytest.approx(G / 2, abs=0.001),
        "temperature": pytest.approx(35, abs=0.01),
        "rotation_x": 1,
        "rotation_y": -10,
        "rotation_z": 100,
    }


def test_the_end_codes_are_clipped_and_within_the_point(bench):
    it = bench(Mpu6050, "i2c1")
    it.board.set("it", acceleration_z=50.0, rotation_y=-900.0)
    it.driver.open()
    values = it.measure()
    assert values["acceleration_z"] == Flagged(pytest.approx(2 * G, abs=0.01), Flag.CLIPPED)
    assert values["rotation_y"] == Flagged(pytest.approx(-250.1, abs=0.1), Flag.CLIPPED)
    points = {point.name: point for point in it.driver.points}
    for name in ("acceleration_z", "rotation_y"):
        assert points[name].low <= values[name].value <= points[name].high


def with_id(bench, chip_id):
    it = bench(Mpu6050, "i2c1")
    it.board.chip("it")._power_on[0x75] = bytes((chip_id,))
    it.board.reset("it")
    return it


@pytest.mark.parametrize("chip_id", IDS)
def test_relatives_and_copies_are_taken(bench, chip_id):
    it = with_id(bench, chip_id)
    it.driver.open()
    assert it.measure()["acceleration_z"] == pytest.approx(G, abs=0.01)


@pytest.mark.parametrize(("chip_id", "celsius"), [(0x68, 36.53), (0x70, 21.0), (0x71, 21.0), (0x98, 25.0)])
def test_the_temperature_of_each_family(bench, chip_id, celsius):
    it = with_id(bench, chip_id)
    it.driver.open()
    it.board.set("it", temperature=36.53)  # raw 0
    assert it.measure()["temperature"] == celsius


@pytest.mark.parametrize("wrong", [0x00, 0xFF, 0x58, 0xD1])
def test_another_chip_is_refused_with_its_id(bench, wrong):
    it = with_id(bench, wrong)
    with pytest.raises(WrongChip, match=f"{wrong:#04x}"):
        it.driver.open()


def test_sleep_after_a_brown_out_is_told(bench):
    it = bench(Mpu6050, "i2c1")
    it.driver.open()
    it.measure()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="asleep"):
        it.driver.read()
    it.driver.open()
    assert it.measure()["acceleration_z"] == pytest.approx(G, abs=0.01)


def test_foreign_state_is_overwritten(bench):
    it = bench(Mpu6050, "i2c1")
    chip = it.board.chip("it")
    chip.put(0x1A, b"\xff\xf8\xf8")
    chip.put(0x6B, b"\x27\x3f")
    it.driver.open()
    assert (chip.get(0x1A, 3), chip.get(0x6B, 2)) == (b"\x03\0\0", b"\x01\0")


def test_settings_that_do_not_stay_are_an_error(bench):
    it = bench(Mpu6050, "i2c1")
    it.board.chip("it").on_write = lambda register, value: 0
    with pytest.raises(DriverError, match="does not keep"):
        it.driver.open()


def test_options_are_bounded():
    for wrong in ({"address": 0x6A}, {"accel_range_g": 3}, {"gyro_range_dps": 125}, {"filter_hz": 50}):
        with pytest.raises(ValueError):
            Mpu6050Config.model_validate(wrong)
