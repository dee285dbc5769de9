"""SHT3x and SHT4x: checksums, formulas, a result that can be fetched once."""

import pytest

from device_agent.driver import BadReading, ChipReset, Flag, Flagged, NoAnswer, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.checksums import crc8_nrsc_5
from device_agent_drivers.sensirion import words_of
from device_agent_drivers.sht3x import Sht3x, Sht3xConfig
from device_agent_drivers.simulated import sensirion as simulated

CHECKSUM = Flagged(None, Flag.CHECKSUM)


def test_contract():
    check_driver(Sht3x)
    check_driver(Sht3x, {"address": 0x45, "repeatability": "low"})


def test_checksums():
    """Table 20: CRC(0xBEEF) = 0x92. A floating bus reads all ones, a shorted one all zeros."""
    assert crc8_nrsc_5(b"\xbe\xef") == simulated.crc8(b"\xbe\xef") == 0x92
    assert all(
        crc8_nrsc_5(word) == simulated.crc8(word)
        for n in range(0, 65536, 257)
        if (word := n.to_bytes(2, "big"))
    )
    assert words_of(b"\xff" * 6) == [None, None]
    assert words_of(bytes(6)) == [None, None]
    assert words_of(b"\xbe\xef\x92\xbe\xef\x93") == [0xBEEF, None]


@pytest.mark.parametrize(
    ("temperature", "humidity"), [(-39.9, 0.1), (-0.01, 45.0), (0.0, 99.9), (124.9, 50.0)]
)
@pytest.mark.parametrize("repeatability", ["high", "medium", "low"])
def test_values(bench, temperature, humidity, repeatability):
    it = bench(Sht3x, "i2c1", repeatability=repeatability)
    it.board.set("it", temperature=temperature, humidity=humidity)
    it.driver.open()
    assert it.measure() == {
        "temperature": pytest.approx(temperature, abs=0.002),
        "humidity": pytest.approx(humidity, abs=0.002),
    }


def test_only_commands_that_do_not_stretch_the_clock(bench):
    it = bench(Sht3x, "i2c1")
    it.driver.open()
    it.measure()
    assert it.board.chip("it").commands[-1] == b"\x24\x00"


def test_saturated_humidity_is_clipped(bench):
    it = bench(Sht3x, "i2c1")
    it.board.set("it", humidity=104.0)
    it.driver.open()
    assert it.measure()["humidity"] == Flagged(100.0, Flag.CLIPPED)


class Damaged:
    """Flips a bit of the given byte in each fetched result, `times` times."""

    def __init__(self, chip, place: int, times: int) -> None:
        self.chip, self.place, self.left = chip, place, times
        self.give, chip._give = chip._give, self

    def __call__(self, size: int) -> bytes:
        data = bytearray(self.give(size))
        if size == 6 and self.left:
            self.left -= 1
            data[self.place] ^= 0x10
        return bytes(data)


@pytest.mark.parametrize("place", range(6))
def test_one_bad_word_is_measured_again(bench, place):
    it = bench(Sht3x, "i2c1")
    it.driver.open()
    Damaged(it.board.chip("it"), place, times=1)
    assert it.measure() == {
        "temperature": pytest.approx(21.5, abs=0.01),
        "humidity": pytest.approx(45, abs=0.01),
    }


def test_a_word_that_stays_bad_is_null_and_the_other_goes_out(bench):
    it = bench(Sht3x, "i2c1")
    it.driver.open()
    Damaged(it.board.chip("it"), 4, times=2)
    assert it.measure() == {"temperature": pytest.approx(21.5, abs=0.01), "humidity": CHECKSUM}
    Damaged(it.board.chip("it"), 0, times=2)
    assert it.measure() == {"temperature": CHECKSUM, "humidity": pytest.approx(45, abs=0.01)}


def test_nothing_but_bad_checksums_is_no_reading(bench):
    it = bench(Sht3x, "i2c1")
    it.driver.open()
    it.board.chip("it")._give = lambda size: b"\xff" * size
    with pytest.raises(BadReading):
        it.driver.read()


def test_too_early_and_twice_are_nacks(bench):
    it = bench(Sht3x, "i2c1")
    it.driver.open()
    it.driver.trigger()
    with pytest.raises(NoAnswer):
        it.driver.read()
    it.clock.step(0.0155)
    assert it.driver.read()["temperature"] == pytest.approx(21.5, abs=0.01)
    with pytest.raises(NoAnswer):
        it.driver.read()


def test_periodic_mode_of_the_program_before_is_ended(bench):
    it = bench(Sht3x, "i2c1")
    it.board.chip("it").transfer(b"\x27\x37", 0)
    it.board.chip("it").status = 0x2000  # and its heater
    it.driver.open()
    assert it.board.chip("it").status == 0
    assert it.measure()["humidity"] == pytest.approx(45, abs=0.01)


def test_a_reset_is_told(bench):
    it = bench(Sht3x, "i2c1")
    it.driver.open()
    it.board.reset("it")
    with pytest.raises(ChipReset):
        it.driver.trigger()
    it.driver.open()
    assert it.measure()["temperature"] == pytest.approx(21.5, abs=0.01)


@pytest.mark.parametrize("answer", [0x00, 0x68, 0xFF])
def test_another_chip_is_refused_with_what_it_says(bench, answer):
    it = bench(Sht3x, "i2c1")
    it.board.chip("it")._give = lambda size: bytes((answer,)) * size
    with pytest.raises(WrongChip, match=f"{answer:02x} {answer:02x} {answer:02x}"):
        it.driver.open()


def test_noise_at_the_start_is_no_wrong_chip(bench):
    it = bench(Sht3x, "i2c1")
    answers = iter((b"\x00\x01\x02", b"\x00\x01\x03", b"\x00\x01\x02"))
    it.board.chip("it")._give = lambda size: next(answers)
    with pytest.raises(BadReading, match="pull-ups"):
        it.driver.open()


def test_options_are_bounded():
    for wrong in ({"address": 0x46}, {"repeatability": "best"}):
        with pytest.raises(ValueError):
            Sht3xConfig.model_validate(wrong)


@pytest.mark.parametrize("status", [0x0000, 0x8010, 0x8050, 0x83F0, 0xA000])
def test_a_scan_knows_it_by_its_status_whatever_the_undefined_bits_are(bench, status):
    it = bench(Sht3x, "i2c1")
    it.board.chip("it").status = status
    assert Sht3x.identify(it.driver.bus, 0x44).startswith("SHT3x")
    it.board.chip("it").status = status | 0x4000
    with pytest.raises(WrongChip):
        Sht3x.identify(it.driver.bus, 0x44)
