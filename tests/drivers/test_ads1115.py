"""ADS1115: scale, channels, waiting, and a chip that misbehaves."""

import pytest

from device_agent.driver import BadReading, ChipReset, DriverError, Flag, Flagged
from device_agent.testing import check_driver
from device_agent_drivers.ads1115 import Ads1115, Ads1115Config, conversion_s, volts

ALL = ["a0", "a1", "a2", "a3", "a0_a1", "a0_a3", "a1_a3", "a2_a3"]
ENDS = (-0x8000, 0x7FFF)


@pytest.mark.parametrize(
    "options", [{}, {"channels": ALL, "rate_sps": 860}, {"channels": ["a0"], "rate_sps": 8}]
)
def test_contract(options):
    check_driver(Ads1115, options)


@pytest.mark.parametrize(
    ("raw", "range_v", "expected"),
    [
        (0, 4.096, 0.0),
        (1, 4.096, 0.000125),  # table 3: 125 uV a bit
        (0x4000, 2.048, 1.024),
        (-1, 0.256, -7.8125e-6),
        (-0x4000, 6.144, -3.072),
        (0x7FFE, 1.024, 1.024 * 32766 / 32768),
    ],
)
def test_scale_is_two_to_the_fifteenth(raw, range_v, expected):
    assert volts(raw, range_v) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("raw", ENDS)
def test_the_end_codes_are_clipped(raw):
    assert volts(raw, 2.048) == Flagged(raw * 2.048 / 32768, Flag.CLIPPED)


@pytest.mark.parametrize("rate_sps", [8, 16, 128, 860])
def test_every_channel_gives_its_own_voltage(bench, rate_sps):
    """A slow part: whoever reads at the nominal rate gets the channel before."""
    channels = ALL[:4] if rate_sps < 16 else ALL
    it = bench(Ads1115, "i2c1", channels=channels, range_v=4.096, rate_sps=rate_sps)
    it.board.set("it", a0=3.0, a1=0.7, a2=1.9, a3=0.1)
    it.driver.open()
    expected = {"a0": 3.0, "a1": 0.7, "a2": 1.9, "a3": 0.1,
                "a0_a1": 2.3, "a0_a3": 2.9, "a1_a3": 0.6, "a2_a3": 1.8}  # fmt: skip
    for _ in range(2):
        assert it.measure() == {name: pytest.approx(expected[name], abs=0.0002) for name in channels}


def test_a_pair_may_be_negative_and_an_input_slightly_so(bench):
    it = bench(Ads1115, "i2c1", channels=["a0", "a0_a1"], range_v=0.256)
    it.board.set("it", a0=-0.001, a1=0.1)
    it.driver.open()
    values = it.measure()
    assert values == {"a0": pytest.approx(-0.001, abs=1e-5), "a0_a1": pytest.approx(-0.101, abs=1e-5)}


def test_beyond_the_range_is_clipped(bench):
    it = bench(Ads1115, "i2c1", channels=["a0"], range_v=1.024)
    it.board.set("it", a0=2.0)
    it.driver.open()
    value = it.measure()["a0"]
    assert value.flag is Flag.CLIPPED
    assert value.value == pytest.approx(1.024, abs=0.0001)


def test_too_early_is_not_ready_instead_of_the_last_value(bench):
    it = bench(Ads1115, "i2c1", channels=["a0"], rate_sps=8)
    it.driver.open()
    it.driver.trigger()
    assert it.driver.read() == {"a0": Flagged(None, Flag.NOT_READY)}


@pytest.mark.parametrize("options", [{}, {"channels": ["a0_a1"], "range_v": 2.048}])
def test_a_reset_between_trigger_and_read_is_told(bench, options):
    """With the second options the chip's power-on setting differs from ours in nothing that matters."""
    it = bench(Ads1115, "i2c1", **options)
    it.driver.open()
    it.driver.trigger()
    it.clock.step(it.driver.settle_s)
    it.board.reset("it")
    with pytest.raises(ChipReset, match="0x8583"):
        it.driver.read()


@pytest.mark.parametrize("found", [0x0000, 0xFFFF, 0x5449])
def test_something_else_at_the_address(bench, found):
    it = bench(Ads1115, "i2c1")
    it.board.chip("it").on_read = lambda register, value: found
    with pytest.raises(DriverError, match=f"{found:#06x}"):
        it.driver.open()


def test_state_of_the_program_before(bench):
    """Continuous mode at another channel, as another library leaves it."""
    it = bench(Ads1115, "i2c1", channels=["a1"])
    it.board.chip("it")[1] = 0x4283
    it.board.set("it", a1=1.25)
    it.driver.open()
    assert it.measure()["a1"] == pytest.approx(1.25, abs=0.0002)


def test_a_conversion_that_somebody_else_began_is_not_taken_for_ours(bench):
    it = bench(Ads1115, "i2c1", channels=["a0"], rate_sps=860)
    it.board.set("it", a0=1.0, a1=3.0)
    it.driver.open()
    it.handle.write_u16(0x48, 1, 0xD303)  # a1 at 8 samples a second
    assert it.measure()["a0"] == pytest.approx(1.0, abs=0.0002)
    it.board.chip("it").on_read = lambda register, value: value & 0x7FFF
    with pytest.raises(BadReading, match="does not end"):
        it.driver.trigger()


def test_the_slowest_chip_is_waited_for():
    assert conversion_s(8) == pytest.approx(0.1375, abs=0.0001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range_v": 5.0}, "one of 6.144"),
        ({"rate_sps": 100}, "rate_sps"),
        ({"channels": ["a4"]}, "channels"),
        ({"channels": []}, "channels"),
        ({"channels": ["a0", "a0"]}, "twice"),
        ({"channels": ALL, "rate_sps": 8}, "hold the bus"),
        ({"address": 0x50}, "address"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Ads1115Config.model_validate(options)


def test_points_follow_the_channels():
    config = Ads1115Config(channels=["a1_a3"], range_v=0.512)
    (point,) = Ads1115.points_of(config)
    assert (point.name, point.unit, point.low, point.high) == ("a1_a3", "V", -0.512, 0.512)


def test_a_pair_can_be_set_on_the_board(bench):
    it = bench(Ads1115, "i2c1", channels=["a0_a1"])
    it.board.set("it", a0_a1=0.75)
    it.driver.open()
    assert it.measure()["a0_a1"] == pytest.approx(0.75, abs=0.0002)
    assert it.board.chip("it").quantities()["a0"] == pytest.approx(1.0)
