"""Events in the outbox: the bytes that go out, and their true times."""

import json

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.messages import events
from device_agent.records import Reading
from device_agent.store.outbox.event import Event, dated, encode

OFFSET_MS = EARLIEST_TRUE_MS


def reading(seq: int, at_ms: int) -> Event:
    draft = events.reading(Reading("d", at_ms, {"v": 1.0}, clock_set=at_ms >= EARLIEST_TRUE_MS), "boot")
    if at_ms < EARLIEST_TRUE_MS:
        draft = draft.undated("boot")
    return Event(seq, draft.numbered(seq), seq, at_ms, "reading", "d", 0.0)


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
