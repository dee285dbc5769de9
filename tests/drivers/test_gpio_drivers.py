"""GPIO input and output: levels, counts, rates, safe values."""

import pytest
from pydantic import ValidationError

from device_agent.driver import DriverError, Edge, Step
from device_agent_drivers.gpio_input import GpioInput, GpioInputConfig
from device_agent_drivers.gpio_output import GpioOutput, GpioOutputConfig


def counting(**options) -> GpioInput:
    return GpioInput(GpioInputConfig(line=17, count=True, **options), None)  # type: ignore[arg-type]


def fed(driver: GpioInput, *edges: Edge) -> list[dict]:
    return [dict(values) for edge in edges for values in driver.feed(edge)]


def test_an_edge_is_a_reading(bench):
    it = bench(GpioInput, "pins", line=17)
    assert it.driver.present(0.0) is None
    it.driver.open()
    source = it.driver.listen()
    assert it.driver.present(0.0) == {"active": False}
    it.board.pin("pins", 17, True)
    it.board.pin("pins", 17, False)
    readings = [values for edge in source.drain() for values in it.driver.feed(edge)]
    assert readings == [{"active": True}, {"active": False}]


def test_the_contact_on_the_board(bench):
    it = bench(GpioInput, "pins", line=17, active_low=True, bias="pull-up")
    it.driver.open()
    source = it.driver.listen()
    assert it.driver.present(0.0) == {"active": False}
    it.board.set("it", active=True)
    assert [edge.active for edge in source.drain()] == [True]
    it.board.pin("pins", 17, True)  # the other way to move it
    assert [edge.active for edge in source.drain()] == [False]


def test_active_low_and_debounce_reach_the_bus(bench):
    it = bench(GpioInput, "pins", line=17, active_low=True, debounce_s=0.02, bias="pull-up")
    it.board.pin("pins", 17, True)
    it.driver.open()
    source = it.driver.listen()
    for level in (False, True, False):
        it.board.pin("pins", 17, level)
        it.clock.step(0.005)
    assert list(source.drain()) == []
    it.clock.step(0.02)
    assert [edge.active for edge in source.drain()] == [True]


def test_points_follow_count():
    assert [point.name for point in GpioInput.points_of(GpioInputConfig(line=1))] == ["active"]
    assert [point.name for point in counting().points] == ["active", "count", "rate"]
    assert GpioInput.claims(GpioInputConfig(line="GPIO17")) == ("line GPIO17",)


def test_rises_are_counted():
    driver = counting()
    readings = fed(driver, Edge(True, 1.0), Edge(False, 1.1), Edge(True, 2.0), Edge(False, 2.1))
    assert [values["count"] for values in readings] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("lost", "active", "count"), [(1, False, 1), (2, False, 1), (2, True, 2), (3, False, 2), (200, True, 101)]
)
def test_lost_edges_are_still_counted(lost, active, count):
    """Edges alternate, so how many of the lost ones were rises is known."""
    driver = counting()
    fed(driver, Edge(active, 5.0, lost=lost))
    assert driver.present(5.0)["count"] == count
    assert driver.lost_edges == lost


def test_rate_is_the_mean_over_the_window():
    driver = counting(rate_window_s=10)
    for tick in range(101):
        fed(driver, Edge(True, tick * 0.1), Edge(False, tick * 0.1 + 0.05))
    assert driver.present(10.0)["rate"] == pytest.approx(10.0)


def test_rate_decays_and_ends():
    driver = counting(rate_window_s=60)
    fed(driver, *(Edge(True, float(tick)) for tick in range(5)))
    assert driver.present(4.5)["rate"] == pytest.approx(1.0)
    assert driver.present(14.0)["rate"] == pytest.approx(0.1)
    assert driver.present(70.0)["rate"] == 0.0


def test_rate_does_not_bridge_a_hole():
    driver = counting()
    fed(driver, Edge(True, 1.0), Edge(True, 2.0), Edge(True, 9.0, lost=11))
    assert driver.present(9.0)["rate"] == 0.0


def test_count_survives_a_reopened_line(bench):
    it = bench(GpioInput, "pins", line=17, count=True)
    for _ in range(2):
        it.driver.open()
        source = it.driver.listen()
        it.board.pin("pins", 17, True)
        it.board.pin("pins", 17, False)
        fed(it.driver, *source.drain())
    assert it.driver.present(it.clock.monotonic_s())["count"] == 2


def test_listening_to_a_closed_line_is_an_error(bench):
    it = bench(GpioInput, "pins", line=17)
    with pytest.raises(DriverError, match="not open"):
        it.driver.listen()


# --- output ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("safe", "active_low", "level"), [
    (False, False, False), (False, True, True), (True, False, True), (True, True, False),
])  # fmt: skip
def test_claimed_at_its_safe_level(bench, safe, active_low, level):
    it = bench(GpioOutput, "pins", line=27, safe=safe, active_low=active_low)
    it.driver.open()
    lines = {line["line"]: line for line in it.board.show()["buses"]["pins"]["lines"]}
    assert (lines[27]["direction"], lines[27]["level"]) == ("output", level)


def test_write_reads_back_and_safe_returns(bench):
    it = bench(GpioOutput, "pins", line=27, safe=False, active_low=True)
    it.driver.open()
    assert it.measure() == {"on": False}
    assert it.driver.write({"on": True}) == {"on": True}
    assert it.measure() == {"on": True}
    it.driver.safe()
    assert it.driver.write({"on": False}) == {"on": False}


def test_opening_again_goes_to_safe(bench):
    it = bench(GpioOutput, "pins", line=27, safe={"on": False})
    it.driver.open()
    it.driver.write({"on": True})
    it.driver.open()
    assert it.driver.write({}.fromkeys(["on"], False)) == {"on": False}
    assert it.driver.fileno() >= 0


def test_pulse_is_a_plan_that_ends_safe(bench):
    it = bench(GpioOutput, "pins", line=27, safe=True)
    assert tuple(it.driver.do("pulse", {"for_s": 2})) == (Step({"on": False}, for_s=2.0), Step({"on": True}))
    with pytest.raises(DriverError, match="no action 'dance'"):
        it.driver.do("dance", {})
    with pytest.raises(DriverError, match="not open"):
        it.driver.write({"on": True})


@pytest.mark.parametrize("safe", [0, 1, "off", None, {"off": True}, {"on": 1}])
def test_safe_must_be_logical(safe):
    with pytest.raises(ValidationError, match="true or false"):
        GpioOutputConfig(line=27, safe=safe)


@pytest.mark.parametrize("line", [-1, True, "", 1.5])
def test_a_line_is_a_number_or_a_name(line):
    with pytest.raises(ValidationError):
        GpioInputConfig(line=line)
