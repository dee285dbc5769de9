"""What a card tells: its stream schemas take exactly the events that the runtime makes, and no others."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from device_agent.card import agent_card
from device_agent.config import load
from device_agent.errors import Fault
from device_agent.messages import events
from device_agent.messages.acks import Ack, AckState
from device_agent.records import DeviceState, Flag, Reading, Status

CARDS = Path(__file__).parents[2] / "cards"
AT = 1_770_000_000_000


@pytest.fixture(scope="module")
def greenhouse() -> dict[str, Any]:
    return agent_card.build(load(CARDS / "greenhouse.toml", environ={}))


@pytest.fixture(scope="module")
def workshop() -> dict[str, Any]:
    return agent_card.build(load(CARDS / "workshop.toml", environ={}))


def takes(schema: dict[str, Any], event: Any) -> bool:
    if isinstance(event, events.EventDraft):
        event = json.loads(event.numbered(1))
    return jsonschema.Draft202012Validator(schema).is_valid(event)


CLIMATE = {"temperature": 21.5, "pressure": 1001.2, "humidity": None}


def climate(**changes: Any) -> dict[str, Any]:
    reading = Reading("climate", AT, CLIMATE, {"humidity": Flag.NOT_READY}, clock_set=False)
    return {**json.loads(events.reading(reading, "b1").numbered(7)), **changes}


def test_every_event_of_the_runtime_fits(greenhouse):
    schema = greenhouse["streams"]["telemetry"]["schema"]
    assert takes(schema, climate())
    assert takes(schema, climate(late=True))
    summary = {
        "count": 3,
        "from_at": AT,
        "to_at": AT,
        "minimum": {"temperature": 1.0},
        "maximum": {"temperature": 2.0},
    }
    assert takes(schema, events.thinned("climate", "b1", AT, CLIMATE, summary))
    assert takes(schema, events.status(Status("door", AT, DeviceState.ONLINE)))
    assert takes(schema, events.status(Status("host", AT, DeviceState.FAULT, "wrong_chip")))
    gap = {"count": 2, "from_seq": None, "to_seq": None, "from_at": AT, "to_at": AT}
    assert takes(schema, events.gap(AT, "power_cut", **gap))
    assert takes(schema, events.gap(AT, "overflow", **gap, device="scale"))
    session = {"devices": ["climate"], "streams": ["telemetry"], "until": AT, "boot": "b1"}
    assert takes(schema, events.control(AT, "session", session))
    paused = events.control(AT, "pause", {"ok": True})
    assert takes(greenhouse["streams"]["control"]["outboundSchema"], paused)
    assert not takes(schema, paused), "words are answered where they come in"


@pytest.mark.parametrize(
    "change",
    [
        {"device": "valve"},
        {"seq": 0},
        {"at": "now"},
        {"boot": None},
        {"late": False},
        {"clock": "set"},
        {"more": 1},
        {"kind": "readings"},
        {"flags": {"humidity": "odd"}},
        {"flags": {"wind": "stale"}},
        {"values": {**CLIMATE, "temperature": 86}},
        {"values": {**CLIMATE, "temperature": "warm"}},
        {"values": {**CLIMATE, "wind": 1}},
        {"values": {"temperature": 20}},
    ],
    ids=str,
)
def test_no_other_reading_fits(greenhouse, change):
    assert not takes(greenhouse["streams"]["telemetry"]["schema"], climate(**change))


def test_answers_go_where_commands_come_in(greenhouse):
    answer = Ack("1", commanded={"on": True}, applied={"on": True}, verified=True)
    refusal = Ack("", AckState.REJECTED, error=Fault("invalid_value", "no JSON"))
    streams = greenhouse["streams"]
    for draft in (
        events.ack(AT, answer),
        events.ack(AT, replace(answer, repeated=True)),
        events.ack(AT, refusal),
    ):
        assert takes(streams["control"]["outboundSchema"], draft)
        assert not takes(streams["telemetry"]["schema"], draft)


SET = {"kind": "set", "id": "1", "device": "valve", "values": {"on": True}}


@pytest.mark.parametrize(
    ("command", "fits"),
    [
        (SET, True),
        ({**SET, "ttl_ms": 1000}, True),
        ({**SET, "device": "scale", "values": {"setpoint": 200}}, True),
        ({**SET, "device": "scale", "values": {"setpoint": 201}}, False),
        ({**SET, "device": "scale", "values": {"weight": 1}}, False),
        ({**SET, "device": "door", "values": {"active": True}}, False),
        ({**SET, "values": {"on": 1}}, False),
        ({**SET, "values": {}}, False),
        ({**SET, "id": 1}, False),
        ({**SET, "ttl_ms": -1}, False),
        ({**SET, "id": "x" * 201}, False),
        ({"kind": "set", "device": "valve", "values": {"on": True}}, False),
        ({"kind": "do", "id": "2", "device": "valve", "action": "pulse", "args": {"for_s": 2}}, True),
        ({"kind": "do", "id": "2", "device": "valve", "action": "pulse"}, False),
        ({"kind": "do", "id": "2", "device": "door", "action": "pulse", "args": {"for_s": 2}}, False),
        ({"kind": "pause"}, True),
        ({"kind": "pause", "id": "1"}, False),
        ({"kind": "resume"}, True),
        ({"kind": "rate", "device": "door", "every_s": 2, "on_change": True, "dead_band": 0.5}, True),
        ({"kind": "rate", "device": "climate", "every_s": 2}, False),
        ({"kind": "rate", "every_s": 0}, False),
        ({"kind": "select", "devices": ["door"]}, True),
        ({"kind": "replay", "from_seq": 1}, True),
        ({"kind": "replay"}, False),
    ],
    ids=str,
)
def test_commands(greenhouse, command, fits):
    assert takes(greenhouse["streams"]["control"]["inboundSchema"], command) is fits


def forms(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The properties of each alternative, and of theirs."""
    for one in schema.get("oneOf", ()):
        yield one["properties"]
        yield from forms(one)


def names(allowed: dict[str, Any]) -> list[str]:
    return allowed["enum"] if "enum" in allowed else [allowed["const"]]


def values_of(schema: dict[str, Any], device: str) -> dict[str, Any]:
    (found,) = [
        one["values"]["properties"]
        for one in forms(schema)
        if "values" in one and "device" in one and device in names(one["device"])
    ]
    return found


def test_points_tell_units_ranges_safe_values_and_limits(greenhouse):
    streams = greenhouse["streams"]
    values = values_of(streams["telemetry"]["schema"], "climate")
    assert values["temperature"] == {
        "type": ["number", "null"],
        "minimum": -40,
        "maximum": 85,
        "unit": "Cel",
        "description": "Air temperature.",
    }
    valve = values_of(streams["control"]["inboundSchema"], "valve")["on"]
    assert (valve["type"], valve["safe"], valve["limits"]) == (
        "boolean",
        False,
        {"max_on_s": 600, "min_off_s": 60},
    )
    setpoint = values_of(streams["control"]["inboundSchema"], "scale")["setpoint"]
    assert (setpoint["minimum"], setpoint["maximum"], setpoint["unit"], setpoint["safe"]) == (0, 200, "kg", 0)


def test_who_the_agent_is(greenhouse):
    assert greenhouse["identity"]["agentName"] == "greenhouse_7"
    assert greenhouse["identity"]["provider"] == {"organization": "Example Farm"}
    assert [tag["id"] for tag in greenhouse["tags"]] == ["greenhouse", "climate", "watering"]
    assert "skills" not in greenhouse
    assert greenhouse["runtime"] == {
        "handler": "device-agent",
        "concurrency": 8,
        "expectedInstances": 1,
        "maxRunningTimeSec": 900,
    }


def test_the_request_schema_lists_what_exists(greenhouse):
    (entry,) = greenhouse["io"]["inputs"]
    properties = entry["schema"]["properties"]
    assert entry["id"] == "request"
    assert properties["op"]["enum"] == ["read", "set", "do", "describe", "history", "stop"]
    assert properties["devices"]["items"]["enum"] == ["climate", "door", "valve", "scale", "host"]
    assert properties["device"]["enum"] == ["valve", "scale"]
    assert properties["values"]["properties"]["setpoint"] == {"type": "number", "minimum": 0, "maximum": 200}
    assert properties["values"]["description"] == "set: points to values.", "the stream tells the rest"
    assert [(output["id"], output["guaranteed"]) for output in greenhouse["io"]["outputs"]] == [
        ("result", True),
        ("history", False),
    ]


def test_an_agent_for_sessions_alone_asks_for_nothing(workshop):
    (entry,) = workshop["io"]["inputs"]
    assert entry["required"] is False
    assert "op" not in entry["schema"]["properties"]
    assert entry["schema"]["properties"]["streams"]["items"]["enum"] == ["air", "control", "console"]
    assert workshop["io"]["outputs"] == []


def test_a_stream_of_bytes_has_a_type_and_no_schema(workshop):
    console = workshop["streams"]["console"]
    assert console == {
        "direction": "bidirectional",
        "format": "bytes",
        "affinity": "dedicated",
        "description": "The bytes of console as they are, out and in.",
        "contentType": "application/octet-stream",
    }


def test_devices_that_lock_each_other_say_so(workshop):
    green = values_of(workshop["streams"]["control"]["inboundSchema"], "green_light")
    assert green["on"]["limits"] == {"interlock": ["stack_light"]}


def test_a_shared_stream_takes_no_session_words(tmp_path):
    text = (CARDS / "workshop.toml").read_text()
    path = tmp_path / "agent.toml"
    path.write_text(
        text.replace('direction = "bidirectional"', 'direction = "inbound"\naffinity = "shared"', 1)
    )
    streams = agent_card.build(load(path, environ={}))["streams"]
    assert not takes(streams["control"]["schema"], {"kind": "pause"})
    assert takes(streams["control"]["schema"], {**SET, "device": "extraction"})
    # Commands of an inbound-only stream are answered on an outbound one.
    assert takes(streams["air"]["schema"], events.ack(AT, Ack("1")))


@pytest.mark.parametrize("word", ["pause", "resume", "rate", "select", "replay", "set", "do"])
def test_the_runtime_reads_every_form_that_the_card_offers(greenhouse, word):
    """The two are written apart: the card for callers, `words` for what comes in."""
    from device_agent.messages.commands import parse

    sample = {
        "pause": {},
        "resume": {},
        "rate": {"device": "door", "every_s": 1, "on_change": True, "dead_band": 0.5},
        "select": {"devices": ["door"]},
        "replay": {"from_seq": 1},
        "set": {"id": "1", "device": "valve", "values": {"on": True}, "ttl_ms": 5000, "dry_run": True},
        "do": {
            "id": "1",
            "device": "valve",
            "action": "pulse",
            "args": {"for_s": 1},
            "ttl_ms": 5000,
            "dry_run": True,
        },
    }[word]
    schema = greenhouse["streams"]["control"]["inboundSchema"]
    assert takes(schema, {"kind": word, **sample})
    assert parse({"kind": word, **sample}).kind == word
    (offered,) = [
        set(one["properties"]) | ({"id", "ttl_ms", "dry_run"} if "$ref" in one else set())
        for one in schema["oneOf"]
        if word in names(one["properties"]["kind"]) and one["properties"].get("device") != {"const": "scale"}
    ]
    assert offered == {"kind", *sample}


def test_devices_without_any_caller_are_not_in_the_card(tmp_path: Path) -> None:
    """A card is read by everybody: a device that no caller may read or drive is not in it."""
    rules = (
        "[access.devices.console]\nread = []\ndrive = []\n[access.devices.red_light]\nread = []\ndrive = []\n"
    )
    text = (CARDS / "workshop.toml").read_text().partition("[access.devices.console]")[0] + rules
    path = tmp_path / "agent.toml"
    path.write_text(text)
    built = agent_card.build(load(path, environ={}))
    assert "console" not in built["streams"]
    assert "red_light" not in json.dumps(built)
    assert "green_light" in json.dumps(built)


METERS = """
[agent]
name = "x"
[state]
directory = "/x"
[buses.i]
kind = "i2c"
device = "/dev/i2c-1"
[buses.p]
kind = "gpio"
chip = "pinctrl-bcm2711"
[devices.tank]
driver = "ads1115"
bus = "i"
channels = ["a0", "a1"]
calibration.a0 = [[0.5, 0], [4.5, 12]]
unit.a0 = "bar"
description.a1 = "Battery."
[devices.flow]
driver = "gpio-input"
bus = "p"
line = 4
count = true
scale = { count = 0.0025, rate = 0.15 }
unit = { count = "l", rate = "l/min" }
description.count = "Water since the start."
[streams.out]
direction = "outbound"
devices = ["tank", "flow"]
"""


def test_a_calibrated_point_is_told_as_what_it_is(tmp_path):
    """A pressure sensor at a converter, a flow meter at a counting line: no V, no number of pulses."""
    path = tmp_path / "agent.toml"
    path.write_text(METERS)
    text = json.dumps(agent_card.build(load(path, environ={})))
    schema = json.loads(text)["streams"]["out"]["schema"]
    points = {
        (device, name): point
        for device in ("tank", "flow")
        for name, point in values_of(schema, device).items()
    }
    assert points["tank", "a0"]["unit"] == "bar"
    assert "description" not in points["tank", "a0"], "the driver's words are of volts"
    assert (points["tank", "a1"]["unit"], points["tank", "a1"]["description"]) == ("V", "Battery.")
    count = points["flow", "count"]
    assert (count["unit"], count["type"]) == ("l", ["number", "null"])
    assert count["description"] == "Water since the start."
    assert points["flow", "rate"]["unit"] == "l/min"
    assert "Voltage of A0" not in text


SENSORS = (
    METERS.partition("[devices.tank]")[0]
    + """
[devices.air]
driver = "bme280"
bus = "i"
address = 0x76
[devices.soil]
driver = "bme280"
bus = "i"
address = 0x77
[devices.room]
driver = "sht4x"
bus = "i"
[devices.red]
driver = "gpio-output"
bus = "p"
line = 5
safe = false
[devices.green]
driver = "gpio-output"
bus = "p"
line = 6
safe = false
[access]
drive = "anyone"
"""
)


@pytest.mark.parametrize(
    ("devices", "further", "most"),
    [
        (["red"], "room", 500),
        (["red"], "air", 640),
        (["red", "air"], "soil", 100),
        (["red", "air"], "green", 100),
    ],
    ids=str,
)
def test_what_many_devices_share_is_told_once(
    tmp_path: Path, devices: list[str], further: str, most: int
) -> None:
    """Whoever reads a card pays for each character; one more of a kind costs hardly more than its name."""

    def size(wanted: list[str]) -> int:
        path = tmp_path / "agent.toml"
        stream = f'[streams.both]\ndirection = "bidirectional"\ndevices = {json.dumps(wanted)}\n'
        kept = [
            one
            for one in SENSORS.split("\n[")
            if not one.startswith("devices.") or one[8:].partition("]")[0] in wanted
        ]
        path.write_text("\n[".join(kept) + stream)
        return compact(path)

    assert size([*devices, further]) - size(devices) <= most


def compact(config: Path) -> int:
    return len(
        json.dumps(agent_card.build(load(config, environ={})), separators=(",", ":"), ensure_ascii=False)
    )


def test_five_devices_have_a_card_of_this_size() -> None:
    """32.7 kB it was with every member in every event."""
    assert compact(CARDS / "greenhouse.toml") < 15_800
    assert compact(CARDS / "relay_board.toml") < 11_000


def test_a_text_is_told_once(greenhouse: dict[str, Any]) -> None:
    """By the first member of its name that has it; what binds is in each schema."""
    first = values_of(greenhouse["streams"]["telemetry"]["schema"], "scale")["weight"]
    again = values_of(greenhouse["streams"]["control"]["outboundSchema"], "scale")["weight"]
    assert first == {**again, "description": "Water in the tank."}
