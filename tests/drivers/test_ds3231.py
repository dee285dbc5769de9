"""DS3231: BCD, 12-hour mode, century, the stop flag, a temperature in two's complement."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.driver import DriverError, Flag, Flagged, WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.ds3231 import EARLIEST_S, LATEST_S, Ds3231, epoch_of, registers_of

POWER_ON_VALUE = Flagged(None, Flag.POWER_ON_VALUE)
OUT_OF_RANGE = Flagged(None, Flag.OUT_OF_RANGE)


def epoch(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())


def test_contract():
    check_driver(Ds3231)


@pytest.mark.parametrize(
    ("registers", "moment"),
    [
        ("59 58 23 05 29 02 24", (2024, 2, 29, 23, 58, 59)),
        ("00 00 00 01 01 01 00", (2000, 1, 1, 0, 0, 0)),
        ("00 30 52 01 01 01 26", (2026, 1, 1, 0, 30, 0)),  # 12 AM
        ("00 30 72 01 01 01 26", (2026, 1, 1, 12, 30, 0)),  # 12 PM
        ("00 30 49 01 01 01 26", (2026, 1, 1, 9, 30, 0)),  # 9 AM
        ("00 30 71 01 01 01 26", (2026, 1, 1, 23, 30, 0)),  # 11 PM
        ("15 30 20 01 31 92 99", (2199, 12, 31, 20, 30, 15)),  # century bit
    ],
)
def test_times(registers, moment):
    assert epoch_of(bytes.fromhex(registers)) == epoch(*moment)


@pytest.mark.parametrize(
    "registers",
    [
        "60 00 00 01 01 01 26",
        "0a 00 00 01 01 01 26",
        "00 00 24 01 01 01 26",
        "00 00 53 01 01 01 26",
        "00 00 40 01 01 01 26",
        "00 00 00 01 30 02 26",
        "00 00 00 01 00 01 26",
        "00 00 00 01 01 13 26",
        "00 00 00 01 01 00 26",
        "00 00 00 01 01 01 f6",
    ],
)
def test_noise_is_no_time(registers):
    assert epoch_of(bytes.fromhex(registers)) is None


@given(st.integers(EARLIEST_S, LATEST_S), st.booleans())
def test_there_and_back(seconds, twelve_hour):
    assert epoch_of(registers_of(seconds, twelve_hour=twelve_hour)) == seconds


@given(st.binary(min_size=7, max_size=7))
def test_any_bytes_are_a_time_or_none(registers):
    found = epoch_of(registers)
    assert found is None or EARLIEST_S <= found <= LATEST_S


def test_reading(bench):
    it = bench(Ds3231, "i2c1")
    it.board.set("it", time=epoch(2026, 7, 1, 12, 0, 0), temperature=25.25)
    it.driver.open()
    assert it.measure() == {"time": epoch(2026, 7, 1, 12), "temperature": 25.25, "lost_power": False}
    it.clock.step(3600)
    assert it.measure()["time"] == epoch(2026, 7, 1, 13)


@pytest.mark.parametrize(
    ("registers", "celsius"),
    [("1940", 25.25), ("0000", 0.0), ("ffc0", -0.25), ("e6c0", -25.25), ("d800", -40.0), ("0080", 0.5)],
)
def test_temperature_is_twos_complement_over_two_bytes(bench, registers, celsius):
    it = bench(Ds3231, "i2c1")
    it.board.set("it", temperature=celsius)
    it.driver.open()
    assert it.measure()["temperature"] == celsius
    assert it.board.chip("it").get(0x11, 2).hex() == registers


def test_a_stopped_oscillator_leaves_no_time_until_it_is_set(bench):
    it = bench(Ds3231, "i2c1")
    it.driver.open()
    it.board.set("it", battery=False)
    it.board.reset("it")
    it.driver.open()
    values = it.measure()
    assert (values["time"], values["lost_power"]) == (POWER_ON_VALUE, True)
    assert it.board.chip("it")[0x0F] & 0x80  # nothing but setting the time clears it
    it.driver.do("set_time", {"time": epoch(2026, 3, 4, 5, 6, 7)})
    values = it.measure()
    assert (values["time"], values["lost_power"]) == (epoch(2026, 3, 4, 5, 6, 7), False)


def test_a_battery_keeps_the_time(bench):
    it = bench(Ds3231, "i2c1")
    it.driver.open()
    it.driver.do("set_time", {"time": epoch(2026, 1, 1)})
    it.board.reset("it")
    it.clock.step(10)
    assert it.measure()["time"] == epoch(2026, 1, 1, 0, 0, 10)


@pytest.mark.parametrize(
    "moment", [(2026, 1, 1, 0, 0, 0), (2026, 1, 1, 12, 0, 0), (2031, 12, 31, 23, 59, 59)]
)
def test_setting_keeps_the_12_hour_mode_and_the_alarms(bench, moment):
    it = bench(Ds3231, "i2c1")
    chip = it.board.chip("it")
    chip[0x02] = 0x40
    chip[0x0F] = 0x8B
    it.driver.open()
    it.driver.do("set_time", {"time": epoch(*moment)})
    assert chip[0x02] & 0x40
    assert chip[0x0F] == 0x0B
    assert it.measure()["time"] == epoch(*moment)


def test_a_century_is_set_and_read(bench):
    it = bench(Ds3231, "i2c1")
    it.driver.open()
    it.driver.do("set_time", {"time": epoch(2099, 12, 31, 23, 59, 59)})
    it.clock.step(1)
    assert it.measure()["time"] == epoch(2100, 1, 1)
    assert it.board.chip("it")[0x05] == 0x81


def test_a_clock_that_does_not_take_the_time_is_an_error(bench):
    it = bench(Ds3231, "i2c1")
    it.driver.open()
    it.board.chip("it").on_write = lambda register, value: 0x80 if register == 0x0F else value
    with pytest.raises(DriverError, match="check its crystal"):
        it.driver.do("set_time", {"time": epoch(2026, 1, 1)})


def test_impossible_registers_are_no_time(bench):
    it = bench(Ds3231, "i2c1")
    it.driver.open()
    it.measure()
    chip = it.board.chip("it")
    chip.running = False
    chip.put(0, bytes.fromhex("00 00 00 01 31 02 26"))
    values = it.measure()
    assert (values["time"], values["lost_power"]) == (OUT_OF_RANGE, False)
    assert values["temperature"] == 21.5


def test_before_the_first_conversion_there_is_no_temperature(bench):
    it = bench(Ds3231, "i2c1")
    it.driver.open()
    it.board.set("it", temperature=0.0)
    assert it.measure()["temperature"] == 0.0
    it.board.chip("it")[0x0F] |= 0x04
    assert it.measure()["temperature"] == Flagged(None, Flag.NOT_READY)


def test_an_oscillator_that_would_stop_on_battery_is_started(bench):
    it = bench(Ds3231, "i2c1")
    it.board.chip("it")[0x0E] = 0x9D
    it.driver.open()
    assert it.board.chip("it")[0x0E] == 0x1D


@pytest.mark.parametrize("answer", [0x00, 0xFF])
def test_another_chip_is_refused_with_what_it_says(bench, answer):
    it = bench(Ds3231, "i2c1")
    it.board.chip("it").on_read = lambda register, value: answer
    with pytest.raises(WrongChip, match=f"is {answer:#04x}"):
        it.driver.open()


@pytest.mark.parametrize("wrong", [0, EARLIEST_S - 1, LATEST_S + 1, True, "noon", None])
def test_what_is_no_time_is_refused(bench, wrong):
    it = bench(Ds3231, "i2c1")
    it.driver.open()
    with pytest.raises(DriverError, match=r"set_time needs|holds the years"):
        it.driver.do("set_time", {"time": wrong})
