"""Values, units and events as text for people."""

import json
from pathlib import Path

import pytest

from device_agent.cli import show
from device_agent.text.printable import printable


def test_text_from_the_network_cannot_write_on_the_terminal() -> None:
    evil = "\x1b[2J\x9b31m\r\nok\u202egnirts\u200b\x00"
    assert printable(evil) == " [2J 31m  ok gnirts  "
    event = {"kind": "reading", "device": evil, "at": 0, "values": {evil: evil}, "flags": {evil: evil}}
    line = show.sentence(event, {})
    assert line.isprintable()
    assert show.dumps({"a": evil}).isascii()
    for odd in (None, 7, [], {}, {"kind": "ack"}, {"kind": "reading", "values": 3}, {"kind": evil}):
        assert show.sentence(odd, {}).isprintable()


def test_units_and_values_as_people_write_them() -> None:
    shown = [show.with_unit(*pair) for pair in ((21.5, "Cel"), (True, ""), (None, "V"), (3, "1"))]
    assert shown == ["21.5 °C", "on", "-", "3"]
    card = json.loads((Path(__file__).parents[2] / "cards" / "greenhouse.card.json").read_text())
    assert show.units_of_card(card)["climate"]["humidity"] == "%"
    assert show.units_of_card({"streams": [1], "x": {}}) == {}


def test_a_long_text_is_cut_to_the_limit() -> None:
    assert printable("x" * 40, 40) == "x" * 40
    assert printable("x" * 41, 40) == "x" * 39 + "…"


@pytest.mark.parametrize("at", [None, True, "1", -1, 2**47, float("nan")])
def test_a_time_that_is_none_is_shown_as_such(at: object) -> None:
    assert show.clock_time(at) == "--:--:--"


def test_what_became_of_a_command() -> None:
    units = {"heater": {"power": "%"}}
    done = {"state": "done", "device": "heater", "applied": {"power": 40}, "verified": True}
    assert show.ack_text(done, units) == "done: power = 40 % (read back)"
    assert show.ack_text({**done, "repeated": True}, units).endswith(
        "(this id was done before; nothing moved)"
    )
    preview = {"state": "done", "dry_run": True, "hand_over": True}
    assert show.ack_text(preview) == "would be done, after a hand-over by way of safe"
    refused = {"state": "refused", "error": {"code": "not_allowed", "message": "another caller drives"}}
    assert show.ack_text(refused) == "refused: not_allowed: another caller drives"
    assert show.ack_text({}) == "unknown: internal: no reason given"


def test_an_event_as_a_line() -> None:
    def told(event: object) -> str:
        return show.sentence(event, {}).split("  ", 1)[1]

    assert told({"kind": "status", "at": 0, "device": "climate", "state": "offline", "reason": "absent"}) == (
        "climate      is offline (absent)"
    )
    assert "an unknown number of readings are missing" in told({"kind": "gap", "at": 0, "count": None})
    assert told({"kind": "gap", "at": 0, "count": 3, "reason": "overflow"}) == (
        "gap          3 readings are missing (overflow)"
    )
    assert told({"kind": "control", "at": 0, "about": "session", "devices": ["a", "b"]}) == (
        "session: carries a, b"
    )
    assert told({"kind": "control", "at": 0, "about": "rate", "ok": True}) == "rate: done"
    late = {
        "kind": "reading",
        "at": 0,
        "device": "a",
        "values": {"x": 1},
        "flags": {"x": "stale"},
        "late": True,
    }
    assert told(late) == "a            x 1 (stale)  (late)"
