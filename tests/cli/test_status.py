"""Status for people: units, ages, plural forms, and no `on off`."""

from typing import Any

import pytest

from device_agent.cli.show import counted
from device_agent.cli.status import _stores, head_lines, status_lines

NOW_S = 1_800_000_000.0
UNITS = {"climate": {"temperature": "Cel"}, "valve": {"on": ""}}


def lines(age_s: float = 3.0, **link: Any) -> list[str]:
    reading = {"at": (NOW_S - age_s) * 1000, "values": {"temperature": 21.5}}
    undated = {"at": 90, "values": {"on": False}}
    status = {
        "agent": "greenhouse_7",
        "link": {"state": "joined", "joined": True, "up": True, "losses": 1, "trouble": "", **link},
        "broker": {"up": False, "losses": 2},
        "outbox": {"events": 1, "bytes": 900, "max_bytes": 32_000_000, "dropped": 0},
        "history": {
            "readings": 2, "bytes": 900, "max_bytes": 1000, "lost": 0, "written_bytes_per_day": 0,
        },
        "guard": {"up": True, "devices": ["valve"]},
        "sessions": [],
        "requests": 1,
        "devices": [
            {"device": "climate", "state": "online", "latest": reading},
            {"device": "valve", "state": "online", "at_safe": True, "latest": undated},
        ],
    }  # fmt: skip
    return ["".join(text for text, _ in line).rstrip() for line in status_lines(status, UNITS, NOW_S)]


def test_values_have_their_units_and_what_is_off_is_off() -> None:
    said = lines()
    assert [line.split("  ")[-1].strip() for line in said[-2:]] == ["temperature = 21.5 °C", "on = off"]
    assert said[0] == "greenhouse_7  joined, link up, 1 loss"
    assert "outbox   1 event, 900 bytes of 32 MB, 0 dropped" in said
    assert "broker   down, 2 losses" in said
    assert "tasks    0 sessions, 1 request" in said
    assert any(line.startswith("history  2 readings, ") for line in said)
    assert "guard    on watch, 1 actuator" in said


@pytest.mark.parametrize(
    ("age_s", "said"), [(600, "10 min"), (90, "90 s"), (7300, "2 h"), (300_000, "3 d"), (-60, "")]
)
def test_the_age_of_a_reading_is_there_where_it_is_known(age_s: float, said: str) -> None:
    climate, valve = lines(age_s)[-2:]
    assert climate.removeprefix("climate  online").partition("temperature")[0].strip() == said
    assert valve.removeprefix("valve    online  at safe").strip() == "on = off"


def test_what_the_file_says_and_is_not_in_force_is_told() -> None:
    link = {"state": "joined", "joined": True, "up": True, "losses": 0, "trouble": ""}
    outbox = {"events": 0, "bytes": 0, "max_bytes": 1000, "dropped": 0}
    rest = {"agent": "a", "link": link, "outbox": outbox, "sessions": [], "requests": 0}
    file = {"refused": ["agent.name is missing", "x"], "waits_for_restart": ["mqtt", "page"]}
    said = ["".join(text for text, _ in line) for line in head_lines({**rest, "configuration": file})]
    assert said[1:3] == [
        "config   the last reload was refused: agent.name is missing (and 1 more)",
        "config   waits for a restart: mqtt, page",
    ]
    file = {"refused": [], "waits_for_restart": []}
    assert head_lines({**rest, "configuration": file}) == head_lines(rest)


def test_what_cannot_be_noticed_is_told_below_the_link() -> None:
    assert lines(blind="two boards: 403")[1] == "link     two boards: 403"
    assert not any(line.startswith("link ") for line in lines(blind=""))


def test_without_a_network_there_is_no_link_to_speak_of() -> None:
    reason = "no API key (looked for …): write it to /x/api_key"
    keyless = lines(state="no API key", trouble=reason, joined=False, up=False)
    assert keyless[0] == f"greenhouse_7  not joined: {reason}"
    none = lines(state="no network", trouble='network.kind = "none"', joined=False, up=False)
    assert none[0] == 'greenhouse_7  no network (network.kind = "none")'


def test_one_and_many() -> None:
    assert [counted(n, "loss", "losses") for n in (0, 1, 2)] == ["0 losses", "1 loss", "2 losses"]
    assert counted(2, "session") == "2 sessions"


def test_what_a_day_writes_is_told_by_store() -> None:
    disk = {"written_bytes": 5_000_000, "since_s": 86_400, "written_bytes_a_day": 5_000_000, "in_memory": ""}
    outbox = {"events": 0, "bytes": 0, "max_bytes": 1000, "dropped": 0, "written_bytes_per_day": 0}
    journal, history = {"written_bytes_per_day": 1_000_000}, {"written_bytes_per_day": 4_000_000}
    spans = _stores({"disk": disk, "outbox": outbox, "journal": journal, "history": history})
    assert "".join(text for text, _ in spans[-1]) == (
        "disk     5 MB written, 5 MB a day (history 4 MB, journal 1 MB)"
    )
