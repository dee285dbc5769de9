"""Devices on a local broker: topics, JSON, retained values, commands."""

import pytest
from pydantic import ValidationError

from device_agent.driver import DriverError, Flag, Flagged, MqttMessage
from device_agent.testing import check_driver
from device_agent_drivers.mqtt_topic import MqttTopic, MqttTopicConfig

PLUG = {
    "points": {
        "power": {"unit": "W", "topic": "plug/state", "path": "energy.power"},
        "on": {
            "type": "boolean",
            "topic": "plug/state",
            "path": "state",
            "write": True,
            "write_topic": "plug/set",
            "template": '{{"state": "{value}"}}',
            "true": "ON",
            "false": "OFF",
            "safe": False,
        },
        "temperature": {"unit": "Cel", "topic": "plug/temperature"},
    }
}


def readings(it, source) -> list[dict]:
    return [dict(values) for message in source.drain() for values in it.driver.feed(message)]


def plug() -> MqttTopic:
    return MqttTopic(MqttTopicConfig.model_validate(PLUG), None)  # type: ignore[arg-type]


def test_messages_become_readings(bench):
    it = bench(MqttTopic, "broker", **PLUG)
    it.driver.open()
    assert it.board.published("broker")[-1] == ("plug/set", b'{"state": "OFF"}')
    source = it.driver.listen()
    source.drain()
    it.board.say("broker", "plug/state", b'{"state": "ON", "energy": {"power": 12.5}}')
    it.board.say("broker", "plug/temperature", b"31.5")
    it.board.say("broker", "plug/other", b"1")
    assert readings(it, source) == [
        {"power": 12.5, "on": True},
        {"temperature": 31.5},
    ]
    assert it.driver.present(0.0) == {"power": 12.5, "on": True, "temperature": 31.5}


def test_the_simulator_obeys(bench):
    it = bench(MqttTopic, "broker", **PLUG)
    it.driver.open()
    source = it.driver.listen()
    source.drain()
    it.driver.write({"on": True})
    assert it.board.chip("it").outputs() == {"on": True}
    it.board.set("it", power=7.0)
    assert readings(it, source)
    assert it.driver.present(0.0) == {"power": 7.0, "on": True, "temperature": 0.0}


@pytest.mark.parametrize(
    ("retained", "value"), [("stale", Flagged(3.0, Flag.STALE)), ("live", 3.0), ("ignore", None)]
)
def test_what_the_broker_had_kept(retained, value):
    config = MqttTopicConfig.model_validate({"points": {"level": {"topic": "tank"}}, "retained": retained})
    driver = MqttTopic(config, None)  # type: ignore[arg-type]
    got = [values["level"] for values in driver.feed(MqttMessage("tank", b"3", retained=True))]
    assert got == ([] if value is None else [value])
    assert (driver.present(0.0) or {}).get("level") == value, "and stays so until the device says it"


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"{", b"[1]", b'{"other": 1}'])
def test_garbage_is_counted(payload):
    driver = plug()
    assert driver.feed(MqttMessage("plug/state", payload)) == []
    assert driver.messages_garbage == 1


def test_a_value_that_is_none_is_null():
    driver = plug()
    assert driver.feed(MqttMessage("plug/temperature", b"unavailable"))[0]["temperature"] == Flagged(
        None, Flag.NO_ANSWER
    )


def test_what_it_owns_and_where_it_is_safe():
    driver = plug()
    assert MqttTopic.claims(driver.config) == ("topic plug/set",)
    assert MqttTopic.safe_of(driver.config) == {"on": False}
    with pytest.raises(DriverError, match="no write_topic"):
        driver.write({"power": 1})


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"topic": "a/#/b"}, "no topic filter"),
        ({"topic": "a/b+"}, "no topic filter"),
        ({"topic": "a", "write": True, "safe": 1, "write_topic": "b/+"}, "without"),
        ({"topic": "a", "pattern": "T=[0-9]+"}, "no group for the value"),
        ({"topic": "a", "pattern": "("}, "no regular expression"),
        ({"topic": "a", "pattern": "(?P<value>.)", "path": "b"}, "no JSON"),
        ({"topic": "a", "where": {"id": 1}}, "`path`"),
        ({}, "needs a `topic`"),
        ({"topic": "a", "write": True, "safe": 1}, "needs a `write_topic`"),
        ({"topic": "a", "write": True, "write_topic": "b"}, "needs a `safe` value"),
        ({"topic": "a", "template": "{on}"}, "must have"),
        ({"topic": "a", "template": "on"}, "names no point"),
    ],
)
def test_mistakes_in_the_configuration_are_named(point, message):
    with pytest.raises(ValidationError, match=message):
        MqttTopicConfig.model_validate({"points": {"it": point}})


def fed(points: dict, *messages: tuple[str, bytes]) -> list[dict]:
    driver = MqttTopic(MqttTopicConfig.model_validate({"points": points}), None)  # type: ignore[arg-type]
    return [dict(v) for topic, payload in messages for v in driver.feed(MqttMessage(topic, payload))]


def test_several_sensors_on_one_topic_are_told_apart():
    points = {
        "inside": {"topic": "rtl", "path": "t", "where": {"channel": 1}},
        "outside": {"topic": "rtl", "path": "t", "where": {"channel": 3, "ok": True}},
    }
    assert fed(
        points,
        ("rtl", b'{"channel": 1, "t": 21.5}'),
        ("rtl", b'{"channel": "3", "ok": true, "t": -4}'),
        ("rtl", b'{"channel": 3, "ok": 1, "t": 99}'),
        ("rtl", b'{"channel": 2, "t": 99}'),
    ) == [{"inside": 21.5}, {"outside": -4.0}]


def test_wildcards_and_patterns():
    points = {
        "t": {"topic": "home/+/text", "pattern": "T=(?P<value>-?[0-9.]+)"},
        "h": {"topic": "home/#", "pattern": "H=(?P<value>[0-9]+)"},
    }
    assert fed(
        points,
        ("home/cellar/text", b"T=-2.5 H=80"),
        ("home/cellar/text", b"H=81"),
        ("home/cellar/other", b"T=7 H=82"),
        ("away/cellar/text", b"T=7 H=83"),
    ) == [{"t": -2.5, "h": 80.0}, {"h": 81.0}, {"h": 82.0}]


def test_keys_with_dots_and_strange_members():
    points = {
        "t": {"topic": "a", "path": "sensor.temp.value"},
        "n": {"topic": "a", "path": "n", "type": "integer"},
    }
    assert fed(points, ("a", b'{"sensor.temp": {"value": nan}, "n": %s}' % (b"9" * 309))) == [
        {"t": Flagged(None, Flag.NO_ANSWER), "n": Flagged(None, Flag.OVERFLOW)}
    ]
    assert fed(points, ("a", b'{"sensor": {"temp.value": 3}}')) == [{"t": 3.0}]


def test_the_simulator_speaks_each_dialect():
    points = {
        "inside": {"topic": "rtl", "path": "now.t", "where": {"channel": 1}},
        "outside": {"topic": "rtl", "path": "now.t", "where": {"channel": 3}},
        "level": {"topic": "tank/+/text", "pattern": "L=(?P<value>[0-9.]+)cm"},
    }
    check_driver(MqttTopic, {"points": points})


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"t": 21.5}\0', 21.5),
        (b'\xef\xbb\xbf{"t": 21.5}', 21.5),
        (b'{"t": 21.5, "unit": "\xb0C"}', 21.5),
        (b'{"t": "21.5\xb0"}', Flagged(None, Flag.NO_ANSWER)),
        (b"", Flagged(None, Flag.NO_ANSWER)),
    ],
)
def test_payloads_as_senders_make_them(payload, value):
    assert fed({"t": {"topic": "a", "path": "t"}}, ("a", payload)) == [{"t": value}]


def test_an_emptied_text_is_no_empty_text():
    assert fed({"t": {"topic": "a", "type": "string"}}, ("a", b"")) == [{"t": Flagged(None, Flag.NO_ANSWER)}]


# -- a device whose absence is told --------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"offline", b"Offline", b'{"state":"offline"}', b"false", b"0", b" offline\n"]
)
def test_nothing_is_known_of_a_device_that_its_broker_calls_offline(bench, said):
    it = bench(MqttTopic, "broker", **PLUG, availability="plug/availability")
    it.driver.open()
    source = it.driver.listen()
    source.drain()
    it.board.say("broker", "plug/availability", b"online")
    it.board.say("broker", "plug/temperature", b"31.5")
    assert readings(it, source) == [{"temperature": 31.5}]
    it.board.say("broker", "plug/availability", said)
    unknown = Flagged(None, Flag.NO_ANSWER)
    assert readings(it, source) == [{"power": unknown, "on": unknown, "temperature": unknown}]
    assert it.driver.present(0.0)["temperature"] == unknown
    it.board.say("broker", "plug/availability", b'{"state":"online"}')
    it.board.say("broker", "plug/temperature", b"30.5")
    assert readings(it, source) == [{"temperature": 30.5}]
    assert it.driver.messages_garbage == 0


def test_the_topic_of_the_availability_is_one_topic():
    with pytest.raises(ValidationError, match="availability"):
        MqttTopicConfig.model_validate({**PLUG, "availability": "plug/+"})


@pytest.mark.parametrize(
    ("template", "text", "sign"),
    [
        ('{{"mode": "{value}"}}', 'off", "valve": "on', '"'),
        ('{{"mode": "{value}"}}', "off\\", "\\"),
        ('{{"mode": "{value}"}}', "off\n", "\n"),
        ("mode={value}&", "off&valve=on", "&"),
        ('{{"mode": "{value}"}}', "12:30, Küche; {x}", ""),
        ("{value}", '{"mode": "off"};', ""),
    ],
)
def test_a_callers_text_stays_one_value(bench, template, text, sign):
    point = {"type": "string", "write": True, "write_topic": "d/set", "template": template, "safe": "off"}
    it = bench(MqttTopic, "broker", points={"mode": point})
    it.driver.open()
    if sign:
        with pytest.raises(DriverError) as raised:
            it.driver.write({"mode": text})
        assert f"holds {sign!r} and would be more" in str(raised.value)
        text = "off"
    else:
        it.driver.write({"mode": text})
    assert it.board.published("broker")[-1][1] == template.format(value=text).encode()
