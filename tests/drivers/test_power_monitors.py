"""INA219 and INA226: calibrations that fit, the sheets' examples, signs, overflow, bad chips."""

import pytest

from device_agent.driver import ChipReset, Flag, Flagged, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.ina219 import Ina219, Ina219Config
from device_agent_drivers.ina226 import Ina226, Ina226Config

SHUNT = {"shunt_ohms": 0.1, "max_current_a": 2.0}
SMALL = {"shunt_ohms": 0.01, "max_current_a": 5.0}
BOTH = pytest.mark.parametrize(("driver", "options"), [(Ina219, SHUNT), (Ina226, SMALL)])


@BOTH
def test_contract(driver, options):
    check_driver(driver, options)
    check_driver(driver, {**options, "averages": 64})


def test_the_calibration_of_the_ina219_sheet():
    """Section 8.5.1: 15 A through 2 mOhm at a bit of 1 mA is 20480; the finest bit is smaller."""
    driver = Ina219(Ina219Config(shunt_ohms=0.002, max_current_a=15), None)
    assert driver.calibration.register == pytest.approx(0.04096 / (15 / 32768 * 0.002), abs=2)
    assert driver.calibration.register * driver.calibration.current_lsb_a * 0.002 == pytest.approx(0.04096)
    assert driver.calibration.power_lsb_w == 20 * driver.calibration.current_lsb_a


def test_the_calibration_of_the_ina226_sheet():
    """Section 7.5: 15 A through 2 mOhm."""
    driver = Ina226(Ina226Config(shunt_ohms=0.002, max_current_a=15), None)
    assert driver.calibration.register == int(0.00512 / (15 / 32768 * 0.002))
    assert driver.calibration.power_lsb_w == 25 * driver.calibration.current_lsb_a


@pytest.mark.parametrize("ohms", [0.0001, 0.0005, 0.002, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("amps", [0.01, 0.32, 1.0, 8.0, 50.0, 800.0])
@pytest.mark.parametrize(("driver", "most", "full_v"), [(Ina219, 0xFFFE, 0.32), (Ina226, 0x7FFF, 0.08192)])
def test_every_calibration_fits_and_covers_the_current(driver, most, full_v, ohms, amps):
    if round(ohms * amps, 9) > full_v:
        with pytest.raises(ValueError, match="smaller shunt"):
            driver.Config(shunt_ohms=ohms, max_current_a=amps)
        return
    calibration = driver(driver.Config(shunt_ohms=ohms, max_current_a=amps), None).calibration
    assert 0 < calibration.register <= most
    assert calibration.register & ~most == 0
    assert calibration.current_lsb_a * 32768 >= amps * 0.999999


@BOTH
@pytest.mark.parametrize("amps", [0.0, 0.5, 1.9, -0.004, -1.5])
@pytest.mark.parametrize("volts", [0.0, 3.3, 12.0, 25.9])
def test_current_and_power_with_their_sign(bench, driver, options, amps, volts):
    it = bench(driver, "i2c1", **options)
    it.board.set("it", bus_voltage=volts, current=amps)
    it.driver.open()
    assert it.measure() == {
        "bus_voltage": pytest.approx(volts, abs=0.003),
        "shunt_voltage": pytest.approx(amps * options["shunt_ohms"] * 1000, abs=0.006),
        "current": pytest.approx(amps, abs=0.001),
        "power": pytest.approx(amps * volts, abs=0.02),
    }


@BOTH
def test_overflow_leaves_the_voltages_good(bench, driver, options):
    it = bench(driver, "i2c1", **options)
    it.board.set("it", bus_voltage=12.0, current=options["max_current_a"] * 1.25)
    it.driver.open()
    values = it.measure()
    assert values["current"] == values["power"] == Flagged(None, Flag.OVERFLOW)
    shunt_mv = options["max_current_a"] * 1.25 * options["shunt_ohms"] * 1000
    assert values["shunt_voltage"] == pytest.approx(shunt_mv, abs=0.02)
    assert values["bus_voltage"] == pytest.approx(12.0, abs=0.003)


def test_the_ends_of_the_ina219s_converters_are_clipped(bench):
    """A current beyond the gain's range: whatever is computed from it is only a bound."""
    it = bench(Ina219, "i2c1", shunt_ohms=0.1, max_current_a=0.4, bus_range_v=16)
    it.board.set("it", bus_voltage=20.0, current=-2.0)
    it.driver.open()
    values = it.measure()
    assert values["bus_voltage"] == Flagged(pytest.approx(16.0), Flag.CLIPPED)
    assert values["shunt_voltage"] == Flagged(pytest.approx(-40.0), Flag.CLIPPED)
    assert values["current"] == Flagged(pytest.approx(-0.4, abs=0.001), Flag.CLIPPED)
    assert values["power"].flag is Flag.CLIPPED


@BOTH
def test_a_reset_is_told_before_the_current_reads_nothing(bench, driver, options):
    it = bench(driver, "i2c1", **options)
    it.driver.open()
    it.measure()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="lost its settings"):
        it.driver.trigger()
    it.driver.open()
    it.driver.trigger()
    it.clock.step(it.driver.settle_s)
    it.board.reset("it")
    with pytest.raises(ChipReset):
        it.driver.read()


@BOTH
def test_a_measurement_that_never_ends_is_not_ready(bench, driver, options):
    it = bench(driver, "i2c1", **options)
    it.driver.open()
    it.board.chip("it").begin = lambda lasts_s: None
    it.driver.trigger()
    it.board.chip("it")._done_s = None
    assert set(it.driver.read().values()) == {Flagged(None, Flag.NOT_READY)}


@pytest.mark.parametrize("found", [0x0000, 0xFFFF, 0x4127, 0x1234])
def test_another_chip_than_an_ina219(bench, found):
    it = bench(Ina219, "i2c1", **SHUNT)
    it.board.chip("it").on_read = lambda register, value: found
    with pytest.raises(WrongChip, match=f"{found:#06x}") as caught:
        it.driver.open()
    assert ('driver "ina226"' in str(caught.value)) is (found == 0x4127)


@pytest.mark.parametrize(("maker", "die"), [(0, 0), (0xFFFF, 0xFFFF), (0x5449, 0x2270), (0x1234, 0x2260)])
def test_another_chip_than_an_ina226(bench, maker, die):
    it = bench(Ina226, "i2c1", **SMALL)
    chip = it.board.chip("it")
    chip[0xFE], chip[0xFF] = maker, die
    with pytest.raises(WrongChip, match=f"{die:#06x}"):
        it.driver.open()


def test_another_revision_of_the_ina226_is_good(bench):
    it = bench(Ina226, "i2c1", **SMALL)
    it.board.chip("it")[0xFF] = 0x2261
    it.driver.open()
    assert it.measure()["bus_voltage"] == pytest.approx(12.0, abs=0.003)


def test_the_ina219s_gain_follows_the_current():
    settings = {
        amps: Ina219(Ina219Config(shunt_ohms=0.1, max_current_a=amps), None).setting >> 11 & 3
        for amps in (0.1, 0.4, 0.41, 0.8, 1.6, 3.2)
    }
    assert settings == {0.1: 0, 0.4: 0, 0.41: 1, 0.8: 1, 1.6: 2, 3.2: 3}
