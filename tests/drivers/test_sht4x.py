"""SHT4x: its own formula, its commands; the rest is in test_sht3x.py."""

import pytest

from device_agent.driver import BadReading, Flag, Flagged, NoAnswer, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.sht4x import Sht4x, Sht4xConfig

COMMANDS = {"high": b"\xfd", "medium": b"\xf6", "low": b"\xe0"}


def test_contract():
    check_driver(Sht4x)
    check_driver(Sht4x, {"address": 0x46, "repeatability": "medium"})


@pytest.mark.parametrize(
    ("temperature", "humidity"), [(-39.9, 0.1), (-0.01, 45.0), (0.0, 99.9), (124.9, 50.0)]
)
@pytest.mark.parametrize("repeatability", COMMANDS)
def test_values(bench, temperature, humidity, repeatability):
    it = bench(Sht4x, "i2c1", repeatability=repeatability)
    it.board.set("it", temperature=temperature, humidity=humidity)
    it.driver.open()
    assert it.measure() == {
        "temperature": pytest.approx(temperature, abs=0.002),
        "humidity": pytest.approx(humidity, abs=0.002),
    }
    assert it.board.chip("it").commands[-1] == COMMANDS[repeatability]


@pytest.mark.parametrize(
    ("raw", "percent"), [(0x0000, 0.0), (0x0C00, 0.0), (0x8000, 56.5), (0xD930, 100.0), (0xFFFF, 100.0)]
)
def test_humidity_is_cropped(raw, percent):
    assert Sht4x.percent(raw) == pytest.approx(percent, abs=0.02)


def test_the_ends_of_the_converter_are_clipped(bench):
    it = bench(Sht4x, "i2c1")
    it.board.set("it", humidity=140.0, temperature=200.0)
    it.driver.open()
    assert it.measure() == {
        "temperature": Flagged(130.0, Flag.CLIPPED),
        "humidity": Flagged(100.0, Flag.CLIPPED),
    }


def test_too_early_and_twice_are_nacks(bench):
    it = bench(Sht4x, "i2c1")
    it.driver.open()
    it.driver.trigger()
    with pytest.raises(NoAnswer):
        it.driver.read()
    it.clock.step(0.0083)
    assert it.driver.read()["temperature"] == pytest.approx(21.5, abs=0.01)
    with pytest.raises(NoAnswer):
        it.driver.read()


def test_wrong_checksums_twice_are_no_reading(bench):
    it = bench(Sht4x, "i2c1")
    it.driver.open()
    it.board.chip("it")._give = lambda size: bytes(size)
    it.driver.trigger()
    with pytest.raises(BadReading, match="both checksums"):
        it.driver.read()


@pytest.mark.parametrize("answer", [0x00, 0xFF])
def test_another_chip_is_refused_with_what_it_says(bench, answer):
    it = bench(Sht4x, "i2c1")
    it.board.chip("it")._give = lambda size: bytes((answer,)) * size
    with pytest.raises(WrongChip, match=f"{answer:02x} {answer:02x}"):
        it.driver.open()


def test_options_are_bounded():
    with pytest.raises(ValueError):
        Sht4xConfig.model_validate({"address": 0x47})
