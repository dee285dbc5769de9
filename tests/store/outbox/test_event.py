"""Events in the outbox: the bytes that go out, their true times, and what a gap says of lost ones."""

import json

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.messages import events
from device_agent.records import Reading
from device_agent.store.outbox.event import Event, EventRange, cost_bytes, dated, encode, range_of

OFFSET_MS = EARLIEST_TRUE_MS


def reading(seq: int, at_ms: int) -> Event:
    draft = events.reading(Reading("d", at_ms, {"v": 1.0}, clock_set=at_ms >= EARLIEST_TRUE_MS), "boot")
    if at_ms < EARLIEST_TRUE_MS:
        draft = draft.undated("boot")
    return Event(seq, draft.numbered(seq), seq, at_ms, "reading", "d", 0.0)


def gap(seq: int, count: int, from_seq: int, to_seq: int, from_at: int, to_at: int) -> Event:
    draft = events.gap(
        EARLIEST_TRUE_MS,
        "overflow",
        count=count,
        from_seq=from_seq,
        to_seq=to_seq,
        from_at=from_at,
        to_at=to_at,
    )
    return Event(seq, draft.numbered(seq), seq, EARLIEST_TRUE_MS, "gap", "", 0.0)


def test_a_late_event_is_marked_and_a_live_one_is_not() -> None:
    event = reading(1, EARLIEST_TRUE_MS)
    live, late = (json.loads(item) for item in encode([(event, False), (event, True)], "boot", None))
    assert "late" not in live
    assert late == {**live, "late": True}


def test_bytes_go_out_as_they_are() -> None:
    chunk = Event(1, b"\x00login:}", None, 0, "bytes", "", 0.0)
    assert encode([(chunk, True)], "boot", None) == (b"\x00login:}",)


def test_an_event_of_before_the_clock_was_set_gets_its_time() -> None:
    event = reading(1, 5000)
    assert dated(event, "boot", None) is event
    later = dated(event, "boot", OFFSET_MS)
    assert later.at_ms == json.loads(later.data)["at"] == OFFSET_MS + 5000


def test_an_event_with_a_time_keeps_it() -> None:
    event = reading(1, EARLIEST_TRUE_MS)
    assert dated(event, "boot", OFFSET_MS) is event


def test_the_range_of_events() -> None:
    some = [reading(n, EARLIEST_TRUE_MS + n) for n in (3, 4, 5)]
    assert range_of(some, "boot", None) == EventRange(
        count=3,
        rows=3,
        bytes=cost_bytes(some),
        from_seq=3,
        to_seq=5,
        from_at=EARLIEST_TRUE_MS + 3,
        to_at=EARLIEST_TRUE_MS + 5,
    )


def test_a_lost_gap_passes_on_what_it_reported() -> None:
    lost = gap(9, 5, 1, 5, EARLIEST_TRUE_MS - 1000, EARLIEST_TRUE_MS - 500)
    found = range_of([lost, reading(10, EARLIEST_TRUE_MS + 7)], "boot", None)
    assert (found.count, found.rows) == (6, 2)
    assert (found.from_seq, found.to_seq) == (1, 10)
    assert (found.from_at, found.to_at) == (EARLIEST_TRUE_MS - 1000, EARLIEST_TRUE_MS + 7)


def test_refused_readings_get_their_times_when_the_clock_is_set() -> None:
    refused = EventRange(2, from_at=1000, to_at=3000)
    assert refused.dated(None) is refused
    assert refused.dated(OFFSET_MS) == EventRange(2, from_at=OFFSET_MS + 1000, to_at=OFFSET_MS + 3000)
    across = EventRange(2, from_at=1000, to_at=EARLIEST_TRUE_MS + 9)
    assert across.dated(OFFSET_MS).to_at == EARLIEST_TRUE_MS + 9
