"""Rotary encoder: direction, whole steps, bounces, lost edges, and two lines as one source."""

import select
import socket
from contextlib import ExitStack
from itertools import pairwise

import pytest

from device_agent.bus.gpio import SeparateLines
from device_agent.driver import DriverError, Edge
from device_agent.errors import BusHeld
from device_agent.testing import check_driver
from device_agent_drivers.rotary_encoder import STILL_S, RotaryEncoder, RotaryEncoderConfig

LINES = {"line_a": 5, "line_b": 6}
A, B = True, False
CLOCKWISE = [(A, True), (B, True), (A, False), (B, False)]
BACK = [(B, True), (A, True), (B, False), (A, False)]


def fed(driver: RotaryEncoder, turns: list[tuple[bool, bool]], lost: int = 0) -> list[int]:
    return [
        values["position"]
        for at, (is_a, active) in enumerate(turns)
        for values in driver.feed(Edge(active, at * 0.001, lost if at == 0 else 0, 0 if is_a else 1))
    ]


def encoder(**options) -> RotaryEncoder:
    return RotaryEncoder(RotaryEncoderConfig(**LINES, **options), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{}, {"active_low": False, "bias": "none"}, {"quarters_per_step": 1, "reverse": True}]
)
def test_contract(options):
    check_driver(RotaryEncoder, {**LINES, **options})


def test_direction_and_whole_steps():
    driver = encoder()
    assert fed(driver, CLOCKWISE * 3) == [1, 2, 3]
    assert fed(driver, BACK * 4) == [2, 1, 0, -1]
    assert fed(encoder(reverse=True), CLOCKWISE) == [-1]
    assert fed(encoder(quarters_per_step=1), CLOCKWISE) == [1, 2, 3, 4]
    assert fed(encoder(quarters_per_step=2), CLOCKWISE) == [1, 2]


def test_bounces_and_a_knob_that_goes_back():
    driver = encoder()
    bouncing = [(A, True), (A, False)] * 20 + CLOCKWISE[:2] + [(B, False), (B, True)] * 20 + CLOCKWISE[2:]
    assert fed(driver, bouncing) == [1]
    assert fed(driver, [*CLOCKWISE[:3], (A, True), (B, False), (A, False)]) == []
    assert fed(driver, CLOCKWISE) == [2]


def test_on_the_edge_of_a_step_nothing_flickers():
    driver = encoder(quarters_per_step=1)
    assert fed(driver, CLOCKWISE[:1]) == [1]
    driver = encoder()
    assert fed(driver, CLOCKWISE) == [1]
    assert fed(driver, [(B, True), (B, False)] * 10) == []


def test_lost_edges_do_not_shift_the_detents():
    driver = encoder()
    assert fed(driver, [(B, True), (A, False), (B, False)], lost=1) == []  # a's rise was lost
    assert driver.lost_edges == 1
    assert fed(driver, CLOCKWISE * 2) == [1, 2]


QUARTERS = [(A, True), (B, True), (A, False), (B, False)]
"""From both inactive, clockwise; after so many of them the contacts are as at another rest."""


@pytest.mark.parametrize("rest", range(4))
@pytest.mark.parametrize("opened", range(4))
def test_no_click_is_lost_wherever_the_contacts_rest(bench, rest, opened):
    """With detents of any of the four states, also when it was opened between two of them."""
    it = bench(RotaryEncoder, "pins", **LINES)
    level = [False, False]
    for is_a, active in QUARTERS[:opened]:
        level[0 if is_a else 1] = active
    for line, active in zip((5, 6), level, strict=True):
        it.board.pin("pins", line, not active)
    it.driver.open()
    it.driver.close()
    at_s, state = 0.0, opened
    positions: list[int] = []

    def turn_to(quarter: int) -> None:
        nonlocal at_s, state
        while state != quarter:
            forward = quarter > state
            is_a, active = QUARTERS[(state if forward else state - 1) % 4]
            at_s += 0.005
            edge = Edge(active if forward else not active, at_s, 0, 0 if is_a else 1)
            positions.extend(values["position"] for values in it.driver.feed(edge))
            state += 1 if forward else -1
        at_s += 2 * STILL_S

    for click in (1, 2, 3):  # where its detents are is known after these
        turn_to(rest + 4 * click)
    start = it.driver.present(0.0)["position"]
    for click, moved in ((4, 1), (3, 0), (2, -1), (3, 0), (4, 1), (5, 2)):
        turn_to(rest + 4 * click)
        assert it.driver.present(0.0)["position"] == start + moved
    assert all(abs(after - before) == 1 for before, after in pairwise(positions))


class Racing:
    """A line whose edge comes while the other one is drained."""

    def __init__(self, *batches: list[Edge]) -> None:
        self._batches = list(batches)
        self._end, self._other = socket.socketpair()

    def fileno(self) -> int:
        return self._end.fileno()

    def drain(self) -> list[Edge]:
        return self._batches.pop(0) if self._batches else []

    def close(self) -> None:
        self._end.close()
        self._other.close()


def test_edges_of_two_queues_come_in_the_order_of_their_time():
    a = Racing([], [Edge(True, 1.0), Edge(False, 3.0)])
    b = Racing([Edge(True, 2.0)], [], [Edge(False, 4.0)])
    with ExitStack() as claimed:
        for line in (a, b):
            claimed.callback(line.close)
        both = SeparateLines([a, b], claimed.pop_all())  # type: ignore[list-item]
    edges = [*both.drain(), *both.drain()]
    both.close()
    assert [(edge.place, edge.monotonic_s) for edge in edges] == [(0, 1.0), (1, 2.0), (0, 3.0), (1, 4.0)]


def test_the_knob_on_the_board(bench):
    it = bench(RotaryEncoder, "pins", **LINES)
    it.driver.open()
    source = it.driver.listen()
    assert it.driver.present(0.0) == {"position": 0}
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    assert not poll.poll(0)
    it.board.set("it", position=3)
    it.board.set("it", position=1)
    it.clock.step(1)
    assert poll.poll(0)
    turns = source.drain()
    assert [turn.monotonic_s for turn in turns] == sorted(turn.monotonic_s for turn in turns)
    assert [values["position"] for turn in turns for values in it.driver.feed(turn)] == [1, 2, 3, 2, 1]
    assert not poll.poll(0)
    source.close()
    source.close()
    assert not source.drain()


def test_the_position_survives_reopened_lines(bench):
    it = bench(RotaryEncoder, "pins", **LINES)
    for expected in (1, 2):
        it.driver.open()
        source = it.driver.listen()
        it.board.set("it", position=expected)
        it.clock.step(1)
        assert [v["position"] for turn in source.drain() for v in it.driver.feed(turn)] == [expected]
        source.close()


def test_a_line_that_is_held_frees_the_other(bench):
    it = bench(RotaryEncoder, "pins", **LINES)
    held = it.handle.input(6)
    with pytest.raises(BusHeld):
        it.driver.open()
    held.close()
    it.driver.open()
    it.driver.close()
    with pytest.raises(DriverError, match="not open"):
        it.driver.listen()


def test_two_lines_are_two():
    with pytest.raises(ValueError, match="the same line"):
        RotaryEncoderConfig(line_a=5, line_b=5)
