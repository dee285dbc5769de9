"""MCP3008: channels and pairs by the sheet's table, the ends of the range, the clock, and nobody there."""

import pytest

from device_agent.driver import BadReading, Flag, Flagged, NoAnswer
from device_agent.testing import check_driver
from device_agent_drivers.mcp3008 import PAIRS, SINGLES, Mcp3008, Mcp3008Config, volts


@pytest.mark.parametrize("options", [{}, {"channels": ["ch7", "ch1_ch0"], "vref_v": 5.0}])
def test_contract(options):
    check_driver(Mcp3008, options)


@pytest.mark.parametrize(("raw", "expected"), [(1, 3.3 / 1024), (512, 1.65), (1022, 3.3 * 1022 / 1024)])
def test_scale(raw, expected):
    assert volts(raw, 3.3) == pytest.approx(expected)


@pytest.mark.parametrize("raw", [0, 1023])
def test_the_ends_are_clipped(raw):
    assert volts(raw, 5.0) == Flagged(raw * 5 / 1024, Flag.CLIPPED)


def test_every_channel_gives_its_own_voltage(bench):
    it = bench(Mcp3008, "spi0", channels=[*SINGLES, *PAIRS], vref_v=4.096)
    world = {f"ch{number}": 0.4 + 0.31 * number for number in range(8)}
    it.board.set("it", **world)
    it.driver.open()
    values = it.measure()
    for name in SINGLES:
        assert values[name] == pytest.approx(world[name], abs=0.0021)
    for name in PAIRS:
        plus, minus = name.split("_")
        difference = world[plus] - world[minus]
        if difference > 0:
            assert values[name] == pytest.approx(difference, abs=0.0021)
        else:
            assert values[name] == Flagged(0.0, Flag.CLIPPED)


@pytest.mark.parametrize(
    ("channel", "code"),
    [("ch0", 0x80), ("ch5", 0xD0), ("ch7", 0xF0), ("ch0_ch1", 0x00), ("ch1_ch0", 0x10), ("ch7_ch6", 0x70)],
)
def test_the_frame_of_the_sheet(channel, code):
    """Table 5-2 and figure 6-1."""

    class Wire:
        def transfer(self, data, *, max_speed_hz=None):
            assert data == bytes((1, code, 0))
            return bytes((0xFF, 0b1111_1010, 0x55))

    driver = Mcp3008(Mcp3008Config(channels=[channel], vref_v=1.024), Wire())
    assert driver.read() == {channel: pytest.approx(0x255 / 1000)}


@pytest.mark.parametrize(("vref_v", "limit_hz"), [(3.3, 1_350_000), (2.5, 1_350_000), (5.0, 3_600_000)])
@pytest.mark.parametrize("bus_hz", [100_000, 20_000_000])
def test_the_clock_is_what_the_chip_bears(bench, vref_v, limit_hz, bus_hz):
    it = bench(Mcp3008, "spi0", vref_v=vref_v)
    it.handle._max_speed_hz = bus_hz
    it.driver.open()
    assert it.board.chip("it").fastest_hz == min(limit_hz, bus_hz)


def test_a_chip_that_is_not_there(bench):
    it = bench(Mcp3008, "spi0")
    it.board.fault("spi0", "nack")
    with pytest.raises(NoAnswer, match="all ones"):
        it.driver.open()


def test_a_torn_frame(bench):
    it = bench(Mcp3008, "spi0")
    it.board.chip("it").transfer = lambda data, speed_hz: b"\xff\xfe\x12"
    with pytest.raises(BadReading, match="ff fe 12"):
        it.driver.read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ["ch8"]}, "ch0 to ch7"),
        ({"channels": ["ch0_ch2"]}, "ch0_ch1"),
        ({"channels": ["ch0", "ch0"]}, "twice"),
        ({"vref_v": 6}, "vref_v"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Mcp3008Config.model_validate(options)
