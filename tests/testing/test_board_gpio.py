"""Simulated GPIO as drivers see it, in one process and through the socket alike."""

import select

import pytest

from device_agent.errors import BusError, BusGone, BusHeld
from device_agent.testing import Board, SteppedClock
from device_agent.testing.board import attach_output
from support.board_devices import BUSES, DEVICES, LIMIT_S, arrived, levels, opened


def test_output_claims_level_with_direction_and_goes_to_its_pull(board, place):
    bus = opened("pins", place)
    relay = bus.output(27, active=False, active_low=True)
    assert relay.read() is False
    relay.write(True)
    assert relay.read() is True
    relay.write(True)
    relay.write(False)
    relay.close()
    relay.close()
    assert levels(board, 27) == [(1, "daemon"), (0, "daemon"), (1, "daemon"), (0, "reset")]
    assert all(set(entry) == {"t", "bus", "line", "level", "by"} for entry in board.record.entries)
    bus.output("GPIO27", active=True).close()
    bus.close()


def test_held_line_is_refused_with_the_holder(board, place):
    bus, other = opened("pins", place), opened("pins", place, by="guard")
    relay = bus.output(27, active=True)
    with pytest.raises(BusHeld, match="line 27 of bus pins is held by daemon"):
        other.output(27, active=False)
    with pytest.raises(BusError, match="no line 'LED'"):
        other.input("LED")
    relay.close()
    other.output(27, active=False).close()
    bus.close()
    other.close()


def test_shared_claim_stays_driven_until_the_last_holder_lets_go(board, place):
    bus = opened("pins", place)
    relay = bus.output(27, active=True)
    guard = attach_output(relay.claim, board=place, by="guard")
    relay.close()
    assert levels(board, 27) == [(1, "daemon")]
    guard.write(False)
    guard.write(True)
    assert guard.read() is True
    guard.close()
    assert levels(board, 27)[1:] == [(0, "guard"), (1, "guard"), (0, "reset")]
    with pytest.raises(BusGone, match="released"):
        attach_output(relay.claim, board=place, by="guard")
    bus.close()


def test_edges_come_with_their_time_and_logical_level(board, place):
    bus = opened("pins", place)
    door = bus.input(17, active_low=True, bias="pull-up")
    assert door.read() is False
    board.pin("pins", 17, False)
    board.pin("pins", 17, True)
    edges = arrived(door, 2)
    assert [edge.active for edge in edges] == [True, False]
    stamps = [entry["t"] for entry in board.record.entries if entry["by"] == "stimulus"]
    assert [edge.monotonic_s for edge in edges] == stamps
    door.close()
    door.close()
    bus.close()


def test_a_burst_of_edges_arrives_whole(board, place):
    bus = opened("pins", place)
    line = bus.input(17)
    for count in range(3000):
        board.pin("pins", 17, count % 2 == 0)
    edges = arrived(line, 3000)
    assert [edge.active for edge in edges] == [True, False] * 1500
    assert sum(edge.lost for edge in edges) == 0
    bus.close()
    line.close()


def test_edges_beyond_the_buffer_are_counted(board):
    bus = opened("pins", board)
    line = bus.input(17)
    for count in range(5000):
        board.pin("pins", 17, count % 2 == 0)
    edges = line.drain()
    assert len(edges) + edges[0].lost == 5000
    line.close()
    bus.close()


def test_unplugged_chip_ends_its_lines(board, place):
    bus = opened("pins", place)
    line, relay = bus.input(17), bus.output(27, active=True)
    board.fault("pins", "unplug")
    assert select.select([line.fileno()], [], [], LIMIT_S)[0]
    with pytest.raises(BusGone, match="unplugged"):
        line.drain()
    with pytest.raises(BusGone):
        relay.write(False)
    board.fault("pins", "replug")
    with pytest.raises(BusGone):
        bus.input(17)
    for part in (line, relay, bus):
        part.close()
    bus.open()
    bus.input(17).close()
    bus.close()


def test_debounce_counts_a_level_that_held():
    clock = SteppedClock()
    with Board(BUSES, DEVICES, clock=clock) as board:
        bus = opened("pins", board)
        door = bus.input(17, debounce_s=0.02)
        for level in (True, False, True):
            board.pin("pins", 17, level)
            clock.step(0.019)
        assert door.drain() == []
        assert door.read() is False
        clock.step(0.001)
        (edge,) = door.drain()
        assert (edge.active, door.read()) == (True, True)
        assert edge.monotonic_s == pytest.approx(1000 + 0.038 + 0.02)
        board.pin("pins", 17, False)
        clock.step(0.01)
        board.pin("pins", 17, True)
        clock.step(1)
        assert door.drain() == [], "a pulse shorter than the period is none"
        door.close()
        bus.close()


def test_noise_bounces_and_debounce_hides_it():
    clock = SteppedClock()
    with Board(BUSES, DEVICES, clock=clock) as board:
        bus = opened("pins", board)
        raw, quiet = bus.input(17), bus.input(18, debounce_s=0.005)
        board.fault("pins", "noise")
        board.pin("pins", 17, True)
        board.pin("pins", 18, True)
        clock.step(1)
        assert [edge.active for edge in raw.drain()] == [True, False, True, False, True]
        assert [edge.active for edge in quiet.drain()] == [True]
        for part in (raw, quiet, bus):
            part.close()


def test_contact_without_simulator_is_set_by_name(board, place):
    bus = opened("pins", place)
    door = bus.input(17, active_low=True, bias="pull-up")
    board.set("door", active=True)
    assert [edge.active for edge in arrived(door, 1)] == [True]
    assert door.read() is True
    door.close()
    bus.close()


def test_open_drain_lets_the_far_end_pull(board, place):
    bus = opened("pins", place)
    line = bus.output(5, active=True, drive="open-drain")
    assert line.read() is True
    board.pin("pins", 5, False)
    assert line.read() is False
    line.close()
    bus.close()


def test_one_contact_can_be_frozen_or_come_off(board):
    bus = opened("pins", board)
    door, other = bus.input(17), bus.input(18)
    board.fault("pins", "frozen", device="door")
    board.pin("pins", 17, True)
    board.pin("pins", 18, True)
    assert (door.read(), other.read()) == (False, True)
    board.heal()
    assert door.read() is True
    board.fault("pins", "unplug", device="door")
    assert door.read() is False, "without its contact the line follows its pull"
    with pytest.raises(ValueError, match="'stuck' befalls all of bus pins"):
        board.fault("pins", "stuck", device="door")
    for part in (door, other, bus):
        part.close()
