"""The table of points that the demo and the monitor draw."""

from device_agent.cli.live import Line
from device_agent.cli.point_table import BARS, PointLine, Trace, point_table, sparkline


def text(line: Line) -> str:
    return "".join(part for part, _ in line)


def test_a_sparkline_fills_its_height_only_beyond_noise() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([1.0], 0) == ""
    assert sparkline([0.0, 10.0], 10) == BARS[0] + BARS[-1]
    assert sparkline([5.0, 5.001], 10) == BARS[3] + BARS[4]
    assert sparkline([0.0, 0.0], 10) == BARS[4] * 2
    assert len(sparkline([float(n) for n in range(50)], 10)) == 10


def test_readings_within_a_bar_take_its_place() -> None:
    trace = Trace()
    for at_s, value in ((100.0, 1.0), (104.0, 2.0), (111.0, 3.0), (112.0, True), (113.0, None)):
        trace.take(value, at_s, 10.0)
    assert (list(trace.numbers), trace.value, trace.at_s) == ([2.0, 3.0], None, 113.0)


def test_the_table_is_as_wide_as_the_screen_and_no_wider() -> None:
    trace = Trace(21.5, 100.0)
    trace.numbers.extend(range(200))
    points = [
        PointLine("climate", "temperature", "21.5", trace, "°C"),
        PointLine("a_device_with_a_long_name", "point_with_a_long_name_too", "1" * 30, trace, "umol/(m2.s)"),
        PointLine("tank", "weight", "offline", Trace(), note="nothing was heard " * 9, faded=True),
    ]
    for columns in (60, 80, 200):
        lines = [text(line) for line in point_table("POINT", points, 103.2, columns)]
        assert max(map(len, lines)) <= columns
        assert lines[0].split() == ["POINT", "NOW", "AGE"]
        assert lines[1].split()[:4] == ["climate", "temperature", "21.5", "°C"]
        assert lines[1].endswith(" 3.2 s")
    assert "nothing was heard" in lines[3]
    assert point_table("POINT", [], 0.0, 80)
