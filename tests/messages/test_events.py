"""Events as bytes: members and their order, numbers, marks of an unknown time and what becomes of them."""

import json
import runpy
from typing import Any

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.messages import events
from device_agent.messages.acks import Ack
from device_agent.records import DeviceState, Flag, Reading, Status

TRUE_MS = EARLIEST_TRUE_MS + 1000
UNDATED_MS = 5000
BOOT, OFFSET_MS = "b1", EARLIEST_TRUE_MS


def decoded(draft: events.EventDraft, seq: int = 7) -> dict[str, Any]:
    return json.loads(draft.numbered(seq))


def test_a_reading_in_its_usual_form() -> None:
    reading = Reading("air", TRUE_MS, {"temperature": 21.5, "count": 3, "open": None})
    assert events.reading(reading, BOOT).numbered(12).decode() == (
        f'{{"kind":"reading","at":{TRUE_MS},"seq":12,"device":"air","boot":"b1",'
        '"values":{"temperature":21.5,"count":3,"open":null}}'
    )


def test_a_reading_marks_what_is_unusual() -> None:
    reading = Reading("Lüftung", UNDATED_MS, {"rpm": None}, {"rpm": Flag.STALE}, clock_set=False)
    event = decoded(events.reading(reading, BOOT))
    assert (event["clock"], event["flags"], event["device"]) == ("unset", {"rpm": "stale"}, "Lüftung")
    draft = events.reading(reading, BOOT)
    assert draft.undated(BOOT) == draft, "a reading is marked already"


@pytest.mark.parametrize(
    ("status", "members"),
    [
        (Status("air", TRUE_MS, DeviceState.ONLINE), {"device": "air", "state": "online"}),
        (
            Status("air", TRUE_MS, DeviceState.OFFLINE, "unplugged", "for people only"),
            {"device": "air", "state": "offline", "reason": "unplugged"},
        ),
    ],
)
def test_a_status_has_a_reason_only_where_there_is_one(status: Status, members: dict[str, str]) -> None:
    assert decoded(events.status(status)) == {"kind": "status", "at": TRUE_MS, "seq": 7, **members}


@pytest.mark.parametrize("device", ["", "air"])
def test_a_gap_names_what_will_not_come(device: str) -> None:
    draft = events.gap(
        TRUE_MS, "overflow", count=4, from_seq=3, to_seq=None, from_at=1, to_at=2, device=device
    )
    event = decoded(draft)
    assert event.pop("device", "") == device == draft.device
    assert event == {
        "kind": "gap",
        "at": TRUE_MS,
        "seq": 7,
        "from_seq": 3,
        "to_seq": None,
        "from_at": 1,
        "to_at": 2,
        "count": 4,
        "reason": "overflow",
    }


@pytest.mark.parametrize(("at_ms", "unset"), [(TRUE_MS, False), (UNDATED_MS, True)])
def test_a_thinned_reading_has_means_and_the_spread(at_ms: int, unset: bool) -> None:
    summary = {"count": 2, "from_at": 1, "to_at": 2}
    event = decoded(events.thinned("air", BOOT, at_ms, {"t": 1.5}, summary, {"t": "clipped"}))
    assert (event["values"], event["thinned"], event["flags"]) == ({"t": 1.5}, summary, {"t": "clipped"})
    assert (event.get("clock") == "unset") is unset
    assert "flags" not in decoded(events.thinned("air", BOOT, at_ms, {}, summary))


def test_progress_with_and_without_a_share() -> None:
    assert "share" not in decoded(events.progress(TRUE_MS, "reading"))
    assert decoded(events.progress(TRUE_MS, "sent", 0.5))["share"] == 0.5


def test_an_event_without_members_is_whole() -> None:
    assert events.EventDraft(b'{"kind":"x",', b"}", "x", 1).numbered(1) == b'{"kind":"x","seq":1}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        events.encode({"a": value})


def test_a_python_that_has_no_such_encoder_in_c_makes_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("json.encoder.c_make_encoder", None)
    encode = runpy.run_path(events.__file__)["encode"]
    value = {"t": 21.5, "n": 3, "on": True, "text": 'é"\n', "none": None, "of": [{"a": 1e-7}]}
    assert (
        encode(value)
        == events.encode(value)
        == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    )


# -- a time that was not known, and is now -----------------------------------------------------------------


@pytest.mark.parametrize(
    "draft",
    [
        events.ack(UNDATED_MS, Ack("a")),
        events.status(Status("air", UNDATED_MS, DeviceState.ONLINE)),
        events.gap(UNDATED_MS, "overflow", count=1, from_seq=1, to_seq=1, from_at=4000, to_at=TRUE_MS),
    ],
)
def test_what_was_undated_is_dated_as_if_it_always_was(draft: events.EventDraft) -> None:
    marked = draft.undated(BOOT).numbered(7)
    assert {"boot": BOOT, "clock": "unset"}.items() <= json.loads(marked).items()
    event = json.loads(events.dated(marked, BOOT, OFFSET_MS))
    expected = decoded(draft)
    expected["at"] += OFFSET_MS
    if "from_at" in expected:
        expected["from_at"] += OFFSET_MS  # to_at is a true instant already
    assert event == expected


def test_a_session_event_keeps_its_boot() -> None:
    draft = events.control(UNDATED_MS, "session", {"boot": BOOT})
    marked = draft.undated(BOOT).numbered(1)
    assert marked.count(b'"boot"') == 1
    assert json.loads(events.dated(marked, BOOT, OFFSET_MS))["boot"] == BOOT


def test_a_thinned_reading_is_dated_inside_as_well() -> None:
    draft = events.thinned("air", BOOT, UNDATED_MS, {}, {"count": 2, "from_at": 4000, "to_at": 5000})
    event = json.loads(events.dated(draft.numbered(1), BOOT, OFFSET_MS))
    assert event["thinned"] == {"count": 2, "from_at": 4000 + OFFSET_MS, "to_at": 5000 + OFFSET_MS}
    assert event["boot"] == BOOT, "a reading always has its boot"


@pytest.mark.parametrize(
    "data",
    [
        events.status(Status("air", TRUE_MS, DeviceState.ONLINE)).numbered(1),
        events.status(Status("air", UNDATED_MS, DeviceState.ONLINE)).undated("another boot").numbered(1),
        events.reading(Reading('"clock":"unset"', TRUE_MS, {}), BOOT).numbered(1),
        events.reading(Reading("air", TRUE_MS, {"text": ',"clock":"unset"'}), BOOT).numbered(1),
    ],
)
def test_other_events_stay_byte_for_byte(data: bytes) -> None:
    assert events.dated(data, BOOT, OFFSET_MS) is data


def test_a_reading_in_a_result() -> None:
    plain = Reading("air", TRUE_MS, {"t": 1})
    assert events.reading_members(plain) == {"device": "air", "at": TRUE_MS, "values": {"t": 1}}
    odd = Reading("air", UNDATED_MS, {"t": None}, {"t": Flag.NO_ANSWER}, clock_set=False)
    assert events.reading_members(odd) == {
        "device": "air",
        "at": UNDATED_MS,
        "values": {"t": None},
        "flags": {"t": "no_answer"},
        "clock": "unset",
    }
