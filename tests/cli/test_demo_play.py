"""What the demo's caller has seen, from the events of its session alone."""

from typing import Any

import pytest

from device_agent.cli.demo_play import View, number_text
from device_agent.cli.demo_world import CLIMATE, DOOR, ROWS, TANK, VALVE


def reading(seq: int, device: str = CLIMATE, **values: Any) -> dict[str, Any]:
    return {"kind": "reading", "seq": seq, "device": device, "at": 0, "values": values}


def test_numbers_that_have_not_come_are_missing() -> None:
    view = View()
    assert view.missing == 0
    for seq in (1, 2, 5):
        view.take(reading(seq, temperature=20.0), 1.0)
    assert (view.readings, view.missing) == (3, 2)
    view.take(reading(3, temperature=20.0), 2.0)
    view.take(reading(5, temperature=20.0), 2.0)
    assert view.missing == 1


def test_a_late_reading_does_not_replace_a_newer_value() -> None:
    view = View()
    view.take(reading(2, temperature=21.0), 100.0)
    view.take({**reading(1, temperature=5.0), "late": True}, 101.0)
    assert view.trace(CLIMATE, "temperature").value == 21.0
    assert (view.late, [note.text for note in view.notes]) == (
        1,
        ["the first of the waiting readings has arrived, marked late"],
    )
    view.take({**reading(3, temperature=6.0), "late": True}, 106.0)
    assert view.trace(CLIMATE, "temperature").value == 6.0
    assert len(view.notes) == 1


def test_unknown_events_and_points_are_passed_over() -> None:
    view = View()
    for event in ({}, {"kind": "new"}, reading(1, "other", x=1), {"kind": "reading", "values": 3}):
        view.take(event, 1.0)
    assert not view.notes


def test_an_acknowledged_command_shows_at_once() -> None:
    seen: list[str] = []
    view = View(lambda note: seen.append(note.text))
    view.sent["a"] = (10.0, True)
    view.take({"kind": "ack", "id": "a", "state": "done", "verified": True, "applied": {"on": True}}, 10.25)
    assert (view.verified, view.trace(VALVE, "on").value, view.sent) == (1, True, {})
    assert seen == ["ack: open valve: done, read back from the pin, 250 ms"]
    view.sent["b"] = (20.0, False)
    view.take({"kind": "ack", "id": "b", "state": "refused", "error": {"message": "stopped"}}, 20.1)
    assert (view.verified, seen[-1]) == (1, "ack: close valve: refused (stopped)")


def test_states_are_reported_when_they_change() -> None:
    view = View()
    for state in ("online", "offline", "online", "online"):
        view.take({"kind": "status", "device": CLIMATE, "state": state, "reason": "not_there"}, 1.0)
    assert [note.text for note in view.notes] == [
        "the caller is told: climate is offline (not there)",
        "the caller is told: climate is online again",
    ]


def test_lost_readings_are_counted() -> None:
    view = View()
    view.take({"kind": "gap", "count": 4, "reason": "overflow"}, 1.0)
    assert (view.lost, view.notes[0].style) == (4, "red")


@pytest.mark.parametrize(
    ("device", "point", "value", "text"),
    [
        (CLIMATE, "temperature", None, "-"),
        (CLIMATE, "temperature", 21.456, "21.46"),
        (TANK, "weight", 3, "3.00"),
        (DOOR, "active", True, "open"),
        (VALVE, "on", True, "OPEN"),
        (VALVE, "on", False, "closed"),
    ],
)
def test_values_of_the_table(device: str, point: str, value: Any, text: str) -> None:
    row = next(row for row in ROWS if (row.device, row.point) == (device, point))
    assert number_text(row, value) == text
