"""The rule `thin`: means, extremes and counts are right, however often the same readings are thinned."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.messages import events
from device_agent.records import Flag, Reading
from device_agent.store.outbox.event import DiskState, Event
from device_agent.store.outbox.thinning import WIDER, ThinningProgress, thin


def event(number: int, values: dict[str, Any], device: str = "d", **options: Any) -> Event:
    at_ms = options.pop("at_ms", EARLIEST_TRUE_MS + number * 1000)
    boot = options.pop("boot", "boot")
    draft = events.reading(Reading(device, at_ms, values, **options), boot)
    return Event(number, draft.numbered(number), number, at_ms, draft.kind, device, 0.0, DiskState.STORED)


def members(thinned: Event) -> dict[str, Any]:
    body = json.loads(thinned.data)
    assert body["seq"] == thinned.seq
    assert body["at"] == thinned.at_ms
    return dict(body)


def test_one_event_for_each_window() -> None:
    new = thin([event(n, {"v": float(n)}) for n in range(1, 9)], 4)
    assert [e.id for e in new] == [7, 8], "the last places: what will not come is adjacent"
    first = members(new[0])
    assert first["values"] == {"v": 2.5}
    assert first["thinned"] == {
        "count": 4,
        "from_at": EARLIEST_TRUE_MS + 1000,
        "to_at": EARLIEST_TRUE_MS + 4000,
        "minimum": {"v": 1.0},
        "maximum": {"v": 4.0},
    }
    assert new[0].disk_state is DiskState.NOT_STORED, "it is to be written in their place"


def test_a_single_reading_stays_as_it_is() -> None:
    only = event(1, {"v": 1.0})
    assert thin([only], 4) == [only]


def test_a_boolean_and_a_text_keep_their_last_value() -> None:
    (one,) = thin([event(1, {"on": True, "t": "a"}), event(2, {"on": False, "t": "b"})], 4)
    assert members(one)["values"] == {"on": False, "t": "b"}
    assert members(one)["thinned"]["minimum"] == {}


def test_between_two_events_that_stay_the_numbers_that_will_not_come_are_adjacent() -> None:
    status = Event(6, b'{"kind":"status","seq":6}', 6, EARLIEST_TRUE_MS, "status", "d", 0.0)
    old = [event(n, {"v": float(n)}, device="ab"[n % 2]) for n in range(1, 13)]
    old[5] = status
    new = thin(old, 3)
    assert [e.seq for e in new] == [5, 6, 10, 11, 12]
    assert [e.id for e in new] == [5, 6, 10, 11, 12]
    assert new[1] is status
    for one in (new[0], *new[2:]):
        members(one)


def test_a_missing_value_counts_for_nothing() -> None:
    old = [event(n, {"v": value}) for n, value in enumerate([1.0, None, 3.0], 1)]
    (one,) = thin(old, 4)
    assert members(one)["values"] == {"v": 2.0}
    assert members(one)["thinned"]["count"] == 3


def test_devices_are_thinned_apart_and_ids_stay_in_order() -> None:
    old = [event(n, {"v": float(n)}, device="ab"[n % 2]) for n in range(1, 9)]
    new = thin(old, 2)
    assert [e.id for e in new] == sorted(e.id for e in new)
    assert {e.device for e in new} == {"a", "b"}
    assert len(new) == 4


@pytest.mark.parametrize(
    "other",
    [
        event(2, {"v": 2.0}, boot="later"),
        event(2, {"v": 2.0}, at_ms=5000),
        event(2, {"v": 2.0}, flags={"v": Flag.STALE}),
    ],
    ids=["another boot", "no true time", "another flag"],
)
def test_readings_that_differ_in_kind_are_not_mixed(other: Event) -> None:
    assert len(thin([event(1, {"v": 1.0}), other], 4)) == 2


def test_gaps_and_damaged_readings_stay() -> None:
    gap = Event(2, b'{"kind":"gap"}', 2, EARLIEST_TRUE_MS, "gap", "", 0.0)
    damaged = Event(3, b"{", 3, EARLIEST_TRUE_MS, "reading", "d", 0.0)
    chunk = Event(4, b"login:", None, EARLIEST_TRUE_MS, "bytes", "", 0.0)
    new = thin([event(1, {"v": 1.0}), gap, damaged, chunk, event(5, {"v": 3.0})], 4)
    assert new[:3] == [gap, damaged, chunk]
    assert members(new[3])["values"] == {"v": 2.0}


@given(st.lists(st.floats(-1e6, 1e6).map(lambda v: round(v, 3)), min_size=2, max_size=64))
def test_thinned_again_and_again_it_is_the_same_mean(values: list[float]) -> None:
    old = [event(n, {"v": value}) for n, value in enumerate(values, 1)]
    for power in range(1, 5):
        old = thin(old, WIDER**power)
    (one,) = old
    body = members(one)
    assert body["values"]["v"] == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert body["thinned"]["count"] == len(values)
    assert body["thinned"]["minimum"]["v"] == min(values)
    assert body["thinned"]["maximum"]["v"] == max(values)
    assert body["thinned"]["from_at"] == EARLIEST_TRUE_MS + 1000


def test_a_window_is_never_exceeded() -> None:
    once = thin([event(n, {"v": 1.0}) for n in range(1, 7)], 4)
    assert [members(e)["thinned"]["count"] for e in thin(once, 5)] == [4, 2]


def test_progress_widens_and_restarts() -> None:
    progress = ThinningProgress()
    progress.done_to_id = 9
    progress.widen()
    assert (progress.window, progress.done_to_id) == (WIDER * WIDER, 0)
    progress.restart()
    assert progress == ThinningProgress()
