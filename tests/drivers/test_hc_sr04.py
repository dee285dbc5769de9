"""HC-SR04: distances by the length of the echo, and echoes that are none."""

import pytest

from device_agent.driver import Edge, Flag, Flagged, NoAnswer
from device_agent.testing import check_driver
from device_agent_drivers.hc_sr04 import HcSr04, HcSr04Config, distance, speed_of_sound

LINES = {"trigger": 23, "echo": 24}
OUT_OF_RANGE = Flagged(None, Flag.OUT_OF_RANGE)
NOT_READY = Flagged(None, Flag.NOT_READY)


def test_contract():
    check_driver(HcSr04, LINES)


def test_the_speed_of_sound():
    assert speed_of_sound(20) == pytest.approx(343.2, abs=0.1)
    assert speed_of_sound(0) == 331.3


def test_the_sheets_rule():
    """58 us a centimetre."""
    edges = [Edge(True, 5.0), Edge(False, 5.0 + 58e-6 * 100)]
    assert distance(edges, 20.0) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("metres", [0.02, 0.1, 1.0, 3.99])
def test_distances(bench, metres):
    it = bench(HcSr04, "pins", **LINES, temperature_c=-5)
    it.board.set("it", distance=metres)
    it.driver.open()
    for _ in range(3):
        assert it.measure() == {"distance": pytest.approx(metres, abs=1e-6)}


@pytest.mark.parametrize("metres", [0.01, 4.2, 100.0])
def test_an_invalid_range_is_no_distance(bench, metres):
    it = bench(HcSr04, "pins", **LINES)
    it.board.set("it", distance=metres)
    it.driver.open()
    assert it.measure() == {"distance": OUT_OF_RANGE}


def test_a_copy_that_holds_its_echo_for_long(bench):
    it = bench(HcSr04, "pins", **LINES)
    it.board.chip("it").nothing_s = 0.2
    it.board.set("it", distance=100.0)
    it.driver.open()
    assert it.measure() == {"distance": OUT_OF_RANGE}
    assert it.measure() == {"distance": NOT_READY}
    it.board.set("it", distance=0.5)
    it.clock.step(0.2)
    assert it.measure() == {"distance": pytest.approx(0.5, abs=1e-6)}


def test_a_chip_that_is_not_there(bench):
    it = bench(HcSr04, "pins", **LINES)
    it.driver.open()
    it.board.chip("it").saw = lambda line, level: ()
    with pytest.raises(NoAnswer, match="23 and 24"):
        it.measure()


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([], NOT_READY),
        ([Edge(False, 1.0)], NOT_READY),
        ([Edge(True, 1.0, lost=2), Edge(False, 1.01)], NOT_READY),
        ([Edge(True, 1.0)], OUT_OF_RANGE),
        ([Edge(False, 0.9), Edge(True, 1.0), Edge(False, 1.0001)], OUT_OF_RANGE),
        (
            [Edge(True, 1.0), Edge(False, 1.01), Edge(True, 1.02), Edge(False, 1.03)],
            pytest.approx(1.716, abs=0.001),
        ),
    ],
)
def test_edges(edges, expected):
    assert distance(edges, 20.0) == expected


def test_lines_are_checked():
    with pytest.raises(ValueError, match="the same line"):
        HcSr04Config(trigger=3, echo=3)
    assert HcSr04.claims(HcSr04Config(**LINES)) == ("line 23", "line 24")
