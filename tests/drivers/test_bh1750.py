"""BH1750: half lux, a time that divides, a ceiling, and the sheet's whole range by itself."""

import pytest

from device_agent.driver import Flag, Flagged
from device_agent.testing import check_driver
from device_agent_drivers.bh1750 import HIGHEST_LX, LOOK, MODES, Bh1750, Bh1750Config, Setting, settings_of


def measured(bench, lux: float, **options):
    it = bench(Bh1750, "i2c1", **options)
    it.board.set("it", illuminance=lux)
    it.driver.open()
    return it.measure()["illuminance"]


@pytest.mark.parametrize("options", [{}, {"mode": "low"}, {"measurement_time": 100}, {"address": 0x5C}])
def test_contract(options):
    check_driver(Bh1750, options)


def test_the_notes_examples():
    """0x8390 counts are 28067 lx; with MTreg 138 a count is 0.42 lx, in mode 2 half of that."""
    assert Setting(*MODES["high"], 69).lux(0x8390) == pytest.approx(28067, abs=1)
    assert Setting(*MODES["high"], 138).lux(1) == pytest.approx(0.42, abs=0.01)
    assert Setting(*MODES["high2"], 138).lux(1) == pytest.approx(0.21, abs=0.01)
    assert Setting(*MODES["high2"], 254).lux(1) == pytest.approx(0.11, abs=0.01)
    assert HIGHEST_LX > 100_000


@pytest.mark.parametrize(
    "lux", [0.0, 0.12, 0.5, 3.3, 54.0, 999.0, 3700, 7000, 20_000, 54_000, 65_000, 100_000, 121_000]
)
def test_the_whole_range_in_one_reading(bench, lux):
    assert measured(bench, lux) == pytest.approx(lux, abs=0.06, rel=0.0005)


def test_more_than_there_is_counts_for_is_a_ceiling(bench):
    assert measured(bench, 200_000) == Flagged(round(HIGHEST_LX, 3), Flag.CLIPPED)
    assert measured(bench, 60_000, mode="high", measurement_time=69) == Flagged(54612.5, Flag.CLIPPED)


@pytest.mark.parametrize(
    ("options", "resolution_lx"),
    [
        ({"mode": "high", "measurement_time": 69}, 0.84),
        ({"mode": "high2", "measurement_time": 69}, 0.42),
        ({"mode": "low", "measurement_time": 69}, 0.84),
        ({"mode": "high2"}, 0.12),
        ({"measurement_time": 31}, 0.93),
    ],
)
def test_what_is_configured_stays(bench, options, resolution_lx):
    assert measured(bench, 1234.5, **options) == pytest.approx(1234.5, abs=resolution_lx)


def test_the_longest_time_of_the_note_is_waited(bench):
    it = bench(Bh1750, "i2c1", mode="high", measurement_time=69)
    it.driver.open()
    it.driver.trigger()
    assert it.driver.settle_s == pytest.approx(0.180)
    assert LOOK.settle_s < 0.05
    longest = [
        setting.settle_s for setting in settings_of(it.driver.config.model_copy(update={"mode": "auto"}))
    ]
    assert max(longest) == pytest.approx(0.180)


def test_too_early_shows_the_measurement_before(bench):
    it = bench(Bh1750, "i2c1", mode="high", measurement_time=69)
    it.driver.open()
    it.board.set("it", illuminance=100)
    assert it.measure()["illuminance"] == pytest.approx(100, abs=1)
    it.board.set("it", illuminance=900)
    it.driver.trigger()
    it.clock.step(0.119)
    assert it.driver.read()["illuminance"] == pytest.approx(100, abs=1)
    it.clock.step(0.061)
    assert it.driver.read()["illuminance"] == pytest.approx(900, abs=1)


def test_power_lost_between_two_readings_and_within_one(bench):
    it = bench(Bh1750, "i2c1")
    it.board.set("it", illuminance=500)
    it.driver.open()
    it.measure()
    it.board.reset("it")
    assert it.measure()["illuminance"] == pytest.approx(500, abs=1)
    it.driver.trigger()
    it.board.reset("it")
    it.clock.step(1)
    assert it.driver.read()["illuminance"] == Flagged(None, Flag.NOT_READY)


def test_darkness_is_zero(bench):
    assert measured(bench, 0.0) == 0.0


def test_a_foreign_measurement_time_does_not_matter(bench):
    it = bench(Bh1750, "i2c1", mode="high", measurement_time=69)
    it.board.chip("it").transfer(b"\x47\x7e\x11", 0)  # MTreg 254, continuous mode 2
    it.board.set("it", illuminance=1000)
    it.driver.open()
    assert it.measure()["illuminance"] == pytest.approx(1000, abs=1)


def test_light_that_rises_within_a_reading_is_clipped_and_then_followed(bench):
    it = bench(Bh1750, "i2c1")
    it.board.set("it", illuminance=1)
    it.driver.open()
    it.driver.trigger()
    it.board.set("it", illuminance=50_000)
    it.clock.step(it.driver.settle_s)
    assert it.driver.read()["illuminance"] == Flagged(pytest.approx(7417, abs=1), Flag.CLIPPED)
    assert it.measure()["illuminance"] == pytest.approx(50_000, abs=2)


def test_options_are_bounded():
    for wrong in ({"measurement_time": 30}, {"measurement_time": 255}, {"mode": "best"}, {"address": 0x24}):
        with pytest.raises(ValueError):
            Bh1750Config.model_validate(wrong)
