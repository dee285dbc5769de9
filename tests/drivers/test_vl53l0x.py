"""VL53L0X: the API's initialization, range status, and waits that end."""

import pytest

from device_agent.driver import ChipReset, DriverError, Flag, Flagged, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.vl53l0x import Vl53l0x, Vl53l0xConfig
from device_agent_drivers.vl53l0x_tuning import TUNING, encoded_timeout, final_range_timeout, reference_spads

NOT_READY = Flagged(None, Flag.NOT_READY)
OUT_OF_RANGE = Flagged(None, Flag.OUT_OF_RANGE)


def test_contract():
    check_driver(Vl53l0x)
    check_driver(Vl53l0x, {"timing_budget_ms": 200, "io_2v8": False, "address": 0x30})


@pytest.mark.parametrize("distance", [0.03, 0.5, 1.234, 2.0])
def test_distances(bench, distance):
    it = bench(Vl53l0x, "i2c1")
    it.board.set("it", distance=distance)
    it.driver.open()
    assert it.measure() == {"distance": distance}


def test_every_range_is_a_new_one(bench):
    it = bench(Vl53l0x, "i2c1")
    it.driver.open()
    assert it.measure() == {"distance": 0.5}
    it.board.set("it", distance=0.75)
    assert it.measure() == {"distance": 0.75}


def test_nothing_in_sight_is_no_distance(bench):
    it = bench(Vl53l0x, "i2c1")
    it.board.set("it", distance=3.0)
    it.driver.open()
    assert it.measure() == {"distance": OUT_OF_RANGE}


@pytest.mark.parametrize("status", range(16))
def test_a_number_is_a_distance_only_where_its_status_says_so(bench, status):
    it = bench(Vl53l0x, "i2c1")
    it.driver.open()
    it.board.chip("it").range_status = status
    wanted = {11: 0.5} | dict.fromkeys((4, 6, 8, 9, 10), OUT_OF_RANGE)
    assert it.measure() == {"distance": wanted.get(status, NOT_READY)}


@pytest.mark.parametrize("millimetres", [8190, 8191])
def test_8190_is_no_distance_even_with_a_good_status(bench, millimetres):
    it = bench(Vl53l0x, "i2c1")
    it.driver.open()
    it.driver.trigger()
    it.clock.step(it.driver.settle_s)
    it.driver._ready()
    it.board.chip("it").put(0x14, bytes((11 << 3,)) + bytes(9) + millimetres.to_bytes(2, "big"))
    assert it.driver.read() == {"distance": OUT_OF_RANGE}


def test_too_early_is_not_ready(bench):
    it = bench(Vl53l0x, "i2c1", timing_budget_ms=200)
    it.driver.open()
    it.driver.trigger()
    assert it.driver.read() == {"distance": NOT_READY}
    it.clock.step(it.driver.settle_s)
    assert it.driver.read() == {"distance": 0.5}


def test_a_reset_is_told(bench):
    it = bench(Vl53l0x, "i2c1")
    it.driver.open()
    it.measure()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="0xff instead of 0xe8"):
        it.driver.trigger()
    it.driver.open()
    it.driver.trigger()
    it.board.reset("it")
    with pytest.raises(ChipReset):
        it.driver.read()
    it.driver.open()
    assert it.measure() == {"distance": 0.5}


def test_a_page_left_open_is_closed(bench):
    it = bench(Vl53l0x, "i2c1")
    it.board.chip("it")[0xFF] = 0x07
    it.driver.open()
    assert it.measure() == {"distance": 0.5}


@pytest.mark.parametrize("wrong", [0x00, 0xFF, 0xB4, 0xEA])
def test_another_chip_is_refused_with_its_id(bench, wrong):
    it = bench(Vl53l0x, "i2c1")
    it.board.chip("it")[0xC0] = wrong
    with pytest.raises(WrongChip, match=f"{wrong:#04x}"):
        it.driver.open()


@pytest.mark.parametrize(
    ("registers", "message"),
    [
        ({0xC0: 0xEE}, "hold still in reset"),
        ({0x783: 0x00}, "read its SPAD memory"),
        ({0x13: 0x00}, "end its voltage calibration"),
    ],
)
def test_every_wait_ends(bench, registers, message):
    it = bench(Vl53l0x, "i2c1")
    chip = it.board.chip("it")
    before = chip.on_read
    chip.on_read = lambda register, value: registers.get(register, before(register, value))
    began_s = it.clock.monotonic_s()
    with pytest.raises(DriverError, match=message):
        it.driver.open()
    assert it.clock.monotonic_s() - began_s < 1


def test_a_chip_that_does_not_come_back_from_its_reset(bench):
    it = bench(Vl53l0x, "i2c1")
    chip = it.board.chip("it")
    chip.reset = lambda: setattr(chip, "_boot_s", 1e12)
    chip.on_read = lambda register, value: 0 if register == 0xC0 and 0xBF in chip.written else value
    with pytest.raises(DriverError, match="start after its reset"):
        it.driver.open()


def test_spads_of_the_wrong_kind_stay_off():
    assert reference_spads(b"\xff" * 6, 5, aperture=False) == bytes.fromhex("1f0000000000")
    assert reference_spads(b"\xff" * 6, 5, aperture=True) == bytes.fromhex("00f001000000")
    assert reference_spads(bytes.fromhex("ff0ff0ff7f3e"), 5, aperture=True) == bytes.fromhex("0000f0010000")
    assert reference_spads(bytes(6), 1, aperture=True) is None


def test_a_blank_spad_memory_is_refused(bench):
    it = bench(Vl53l0x, "i2c1")
    it.board.chip("it")._power_on[0xB0] = bytes(6)
    with pytest.raises(DriverError, match="reference SPADs"):
        it.driver.open()


def test_timing_as_the_api_computes_it():
    assert encoded_timeout(1) == 0
    assert encoded_timeout(256) == 0x00FF
    assert encoded_timeout(257) == 0x0180
    assert final_range_timeout(33_000) == 0x028E
    assert final_range_timeout(20_000) < final_range_timeout(33_000) < final_range_timeout(200_000) <= 0xFFFF
    assert len(TUNING) == 80


def test_the_budget_reaches_the_chip(bench):
    it = bench(Vl53l0x, "i2c1")
    it.driver.open()
    chip = it.board.chip("it")
    assert chip.get(0x71, 2) == b"\x02\x8e"
    assert (chip[0x01], chip[0x0A], chip[0x84], chip.get(0x44, 2)) == (0xE8, 0x04, 0x01, b"\x00\x20")


def test_options_are_bounded():
    for wrong in ({"address": 0x07}, {"timing_budget_ms": 19}):
        with pytest.raises(ValueError):
            Vl53l0xConfig.model_validate(wrong)
