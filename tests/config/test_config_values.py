"""The small parts of the configuration: sizes, hints, values as they are shown, access by caller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.config.access import AccessConfig
from device_agent.config.explain import VALUE_SHOWN_MAX, did_you_mean, show, unknown_key
from device_agent.config.types import format_size, parse_size
from support.config_texts import I2C, PINS, relay


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("32 MB", 32_000_000), ("256kB", 256_000), ("1.5 MiB", 1_572_864), (" 1 GiB ", 2**30), (7, 7)],
)
def test_a_size_is_a_number_with_a_unit(text: object, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["32", "MB", "-1 MB", "1 mb", "1e3 B", "1 MB MB", ""])
def test_other_texts_are_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(text)


@given(st.integers(0, 10**15))
def test_a_size_that_is_shown_is_read_back(size_bytes: int) -> None:
    text = format_size(size_bytes)
    assert len(text.split()[0]) > 12 or parse_size(text) == size_bytes


def test_a_hint_names_the_nearest_else_the_remedy() -> None:
    assert did_you_mean("clmate", ["door", "climate"], "add it") == 'did you mean "climate"?'
    assert did_you_mean("xyz", ["door", "climate"], "add it") == "add it"
    assert did_you_mean("xyz", [], "add it") == "add it"


def test_an_unknown_key_that_may_be_a_secret_is_not_repeated() -> None:
    assert unknown_key("network", "api_token", ["kind"]).endswith("see network.api_key_file")
    assert 'did you mean "address"' in unknown_key("devices.a", "adress", ["address", "bus"])
    assert unknown_key("", "xyz", []) == "xyz is not a known key: remove it, or use one of none"


@pytest.mark.parametrize(
    ("value", "key", "text"),
    [
        (True, "", "true"),
        (118, "address", "0x76"),
        (118, "every_s", "118"),
        (256_000, "max_bytes", "256 kB"),
        ("a\n", "", '"a\\n"'),
        ({"a": 1}, "", "{…}"),
    ],
)
def test_a_value_is_shown_as_in_the_file(value: object, key: str, text: str) -> None:
    assert show(value, key) == text


def test_a_long_value_is_cut() -> None:
    assert len(show("x" * 500)) == VALUE_SHOWN_MAX


ACCESS = AccessConfig.model_validate(
    {
        "drive": ["user:ann", "org:farm"],
        "devices": {
            "valve": {"drive": ["org:farm"], "points": {"on": {"drive": ["user:bob"], "maximum": 1.0}}},
            "secret": {"read": []},
        },
        "request": {"drive": ["user:ann"]},
    }
)


def test_nobody_drives_unless_it_is_written() -> None:
    access = AccessConfig()
    assert access.allows("read", "valve", {"user:ann"})
    assert not access.allows("drive", "valve", {"user:ann"})


def test_a_device_has_rules_of_its_own() -> None:
    assert ACCESS.allows("drive", "pump", {"user:ann"})
    assert not ACCESS.allows("drive", "valve", {"user:ann"})
    assert not ACCESS.allows("read", "secret", {"user:ann", "org:farm"})
    assert ACCESS.allows("read", "pump", {"user:nobody"})


def test_a_kind_of_task_can_ask_for_more() -> None:
    farm = {"user:eve", "org:farm"}
    assert ACCESS.allows("drive", "pump", farm, "pipe")
    assert not ACCESS.allows("drive", "pump", farm, "request")
    assert ACCESS.allows("drive", "pump", {"user:ann"}, "request")


def test_a_point_can_be_for_fewer() -> None:
    assert ACCESS.drives_point("valve", "on", {"user:bob"})
    assert not ACCESS.drives_point("valve", "on", {"org:farm"})
    assert ACCESS.drives_point("valve", "other", {"org:farm"})
    assert ACCESS.point("valve", "on").maximum == 1.0
    assert ACCESS.point("pump", "on").maximum is None


def test_the_rank_is_the_place_in_the_list() -> None:
    assert ACCESS.rank("pump", {"user:ann"}) == 0
    assert ACCESS.rank("pump", {"user:ann", "org:farm"}) == 0
    assert ACCESS.rank("pump", {"org:farm"}) == 1
    assert ACCESS.rank("pump", {"user:eve"}) == 2, "whoever is not listed comes last"


MQTT = '[buses.m]\nkind = "mqtt"\nhost = "{}"\n'


@pytest.mark.parametrize(
    "host",
    ["mqtt://broker", "mqtt://broker:1883", "broker:1883", "user@broker", "broker/path", "192.0.2.7:1"],
)
def test_an_address_of_a_broker_is_no_url(problems, host):
    (problem,) = problems(MQTT.format(host))
    assert problem.startswith(f'buses.m.host = "{host}" must be a name or an address alone')


@pytest.mark.parametrize("host", ["broker", "broker.local", "192.0.2.7", "2001:db8::7"])
def test_a_broker_has_a_name_or_an_address(problems, host):
    assert problems(MQTT.format(host)) == ()


@pytest.mark.parametrize("value", ["${BROKER}", "a.${DOMAIN}.local"])
def test_a_variable_is_not_filled_in_and_said_so(problems, value):
    (problem,) = problems(MQTT.format(value))
    assert problem == f'buses.m.host = "{value}" stays as it is: variables are not filled in, write the value'


@pytest.mark.parametrize("written", ['"no"', '"off"', '"false"', '"true"', "0", "1"])
def test_only_a_boolean_decides_on_a_level(problems, written):
    (problem,) = problems(PINS + relay("r", hold=written))
    assert problem == f"devices.r.hold = {written} must be true or false, without quotes"
    (problem,) = problems(I2C + f'power = {{ bus = "p", line = 4, active_low = {written} }}\n' + PINS)
    assert problem == f"buses.i.power.active_low = {written} must be true or false, without quotes"


def test_a_file_from_windows_may_begin_with_a_bom(load_text):
    assert load_text('\ufeff[agent]\r\nname = "a"\r\n').agent.name == "a"
