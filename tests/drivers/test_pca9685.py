"""PCA9685: what counts only asleep, restart, full on and off, foreign state, one step for several."""

import pytest

from device_agent.driver import ChipReset, DriverError
from device_agent.testing import check_driver
from device_agent_drivers.pca9685 import Pca9685, Pca9685Config, decoded, encoded, pre_scale_of

SERVOS = {"channels": ["ch0", "ch1", "ch15"], "frequency_hz": 50, "safe": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        SERVOS,
        {"safe": 0},
        {"safe": {"ch3": 1, "ch4": 0.25}, "channels": ["ch4", "ch3"], "inverted": True, "open_drain": True},
        {"safe": 0, "external_clock": True, "oscillator_hz": 10e6},
    ],
)
def test_contract(options):
    check_driver(Pca9685, options)


@pytest.mark.parametrize(("hertz", "scale"), [(200, 30), (50, 121), (60, 101), (1526, 3), (24, 253)])
def test_the_prescaler_of_the_sheet(hertz, scale):
    """Section 7.3.5: 200 Hz is 30 with the clock of 25 MHz."""
    assert pre_scale_of(hertz, 25_000_000) == scale


@pytest.mark.parametrize(
    ("duty", "data"),
    [
        (0.0, "0000 0010"),
        (0.0001, "0000 0010"),
        (1.0, "0010 0000"),
        (0.99999, "0010 0000"),
        (0.5, "0000 0008"),
        (1 / 4096, "0000 0100"),
        (4095 / 4096, "0000 ff0f"),
    ],
)
def test_duty_to_registers(duty, data):
    assert encoded(duty) == bytes.fromhex(data)
    assert decoded(encoded(duty)) == pytest.approx(duty, abs=1 / 8192)


def test_foreign_registers_are_read_as_the_chip_takes_them():
    assert decoded(bytes.fromhex("0010 0010")) == 0.0  # full-off goes before full-on
    assert decoded(bytes.fromhex("000c 0004")) == 0.5  # 1024 - 3072, round the period


def test_frequency_is_set_asleep_and_the_chip_runs(bench):
    it = bench(Pca9685, "i2c1", **SERVOS)
    it.driver.open()
    chip = it.board.chip("it")
    assert (chip[0xFE], chip[0x00], chip[0x01], chip.running) == (121, 0x20, 0x04, True)
    assert it.driver.write({"ch1": 0.075}) == {"ch1": pytest.approx(0.075, abs=1 / 4096)}
    assert chip.outputs() == {"ch0": 0.0, "ch1": pytest.approx(0.075, abs=1 / 4096), "ch15": 0.0}


def test_a_channel_in_use_touches_no_other(bench):
    it = bench(Pca9685, "i2c1", **SERVOS)
    it.driver.open()
    it.driver.write({"ch0": 0.25, "ch1": 0.5, "ch15": 1})
    it.driver.write({"ch0": 0.75})
    assert it.board.chip("it").outputs() == {"ch0": 0.75, "ch1": 0.5, "ch15": 1.0}
    assert it.measure() == {"ch0": 0.75, "ch1": 0.5, "ch15": 1.0}


def test_neighbours_change_in_one_transfer(bench):
    it = bench(Pca9685, "i2c1", **SERVOS)
    it.driver.open()
    before = len(it.board.record.entries)
    it.driver.write({"ch15": 0.5, "ch0": 0.25, "ch1": 0.5})
    sent = [e["bytes"] for e in list(it.board.record.entries)[before:] if "bytes" in e]
    assert [text[0] for text in sent] == ["\x06", "\x42"]
    assert [len(text) for text in sent] == [9, 5]


def test_pwm_of_the_program_before_stops_and_does_not_come_back(bench):
    """Left running without AI, at another frequency, with a channel that this device does not use."""
    it = bench(Pca9685, "i2c1", **SERVOS)
    chip = it.board.chip("it")
    chip[0x00], chip[0x01], chip[0xFE], chip.running = 0x01, 0x1B, 3, True
    for register in range(0x06, 0x46):
        chip[register] = 0x07
    it.driver.open()
    assert chip[0xFE] == 121
    assert [chip.duty(channel) for channel in range(16)] == [0.0] * 16
    assert chip[0x00] & 0x80 == 0
    assert it.driver.write({"ch0": 0.5}) == {"ch0": 0.5}
    assert chip.outputs()["ch0"] == 0.5


def test_a_pending_restart_is_carried_out_after_the_oscillator_is_stable(bench):
    """A copy of the chip in which writing a channel does not end it."""
    it = bench(Pca9685, "i2c1", **SERVOS)
    chip = it.board.chip("it")
    plain = chip.on_write
    chip.on_write = lambda register, value: value if 0x06 <= register < 0x46 else plain(register, value)
    chip[0x00], chip.running = 0x21, True
    chip.put(0x06, encoded(0.5))
    it.driver.open()
    assert chip.running
    assert chip[0x00] == 0x20


def test_the_external_clock_of_the_program_before_is_told(bench):
    it = bench(Pca9685, "i2c1", **SERVOS)
    it.board.chip("it").external_clock = True
    with pytest.raises(DriverError, match="supply off and on"):
        it.driver.open()


def test_the_external_clock_is_set_where_wanted(bench):
    it = bench(Pca9685, "i2c1", **SERVOS, external_clock=True, oscillator_hz=5e6)
    it.driver.open()
    assert it.board.chip("it").external_clock
    assert it.board.chip("it")[0xFE] == round(5e6 / 4096 / 50) - 1
    it.driver.open()


@pytest.mark.parametrize("use", ["measure", "write"])
def test_a_reset_is_told(bench, use):
    it = bench(Pca9685, "i2c1", **SERVOS)
    it.driver.open()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="0x11"):
        it.measure() if use == "measure" else it.driver.write({"ch0": 1.0})
    it.driver.open()
    it.driver.write({"ch0": 1.0})
    assert it.board.chip("it").outputs()["ch0"] == 1.0


def test_safe_is_applied_at_open(bench):
    it = bench(Pca9685, "i2c1", channels=["ch2", "ch7"], safe={"ch2": 0.125, "ch7": 1})
    it.driver.open()
    assert it.board.chip("it").outputs() == {"ch2": 0.125, "ch7": 1.0}
    it.driver.write({"ch2": 0.5, "ch7": 0})
    it.driver.safe()
    assert it.board.chip("it").outputs() == {"ch2": 0.125, "ch7": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequency_hz": 20}, "24 to 1526"),
        ({"frequency_hz": 2000}, "24 to 1526"),
        ({"channels": ["ch16"]}, "channels"),
        ({"channels": ["ch1", "ch1"]}, "twice"),
        ({"address": 0x20}, "address"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Pca9685Config.model_validate({"safe": 0, **options})
