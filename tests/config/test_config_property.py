"""Whatever the file holds: a Config or a ConfigError. And every Config makes a card that is right."""

import json
import string
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.card import agent_card
from device_agent.config import Config, load
from device_agent.errors import ConfigError

ROOT = Path(__file__).parents[2]

GREENHOUSE = (ROOT / "cards" / "greenhouse.toml").read_text()
WORKSHOP = (ROOT / "cards" / "workshop.toml").read_text()

hostile = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

NASTY = [
    *("nan", "inf", "-1", "0", "1e400", "9" * 30, "true", '""', '"\\u0000"', "[]", "{}", "[[1]]"),
    *("1979-05-27", "{ a = 1 }", '["x", 1, true]', '"' + "x" * 300 + '"', '"anyone"', "'\\'", "0x76"),
]


def outcome(path: Path, load_driver: Any = None) -> Config | None:
    """The configuration, or None after an error that is fit for a person."""
    try:
        return load(path, environ={}, **({"load_driver": load_driver} if load_driver else {}))
    except ConfigError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem.isprintable(), problem
        assert 0 < len(problem) < 2000
    return None


def require_right_card(config: Config) -> None:
    made = agent_card.build(config)
    assert agent_card.validate(made) == []
    jsonschema.Draft202012Validator(agent_card.rules()).validate(made)
    assert json.dumps(agent_card.build(config)) == json.dumps(made, allow_nan=False)
    request = made["io"]["inputs"][0]  # a second one is `file`, where a device takes bytes
    jsonschema.Draft202012Validator(request["schema"]).validate(request["example"])
    for stream in made.get("streams", {}).values():
        for key in ("schema", "outboundSchema", "inboundSchema"):
            if key in stream:
                jsonschema.Draft202012Validator.check_schema(stream[key])


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@hostile
def test_any_bytes(tmp_path, data):
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    assert outcome(path) is None


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A right file with a few lines lost, doubled, moved or given another value."""
    lines = draw(st.sampled_from([GREENHOUSE, WORKSHOP])).splitlines()
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "value", "key", "move", "noise"])):
            case "drop":
                del lines[place]
            case "value":
                key, equals, _value = lines[place].partition("=")
                lines[place] = f"{key}{equals} {draw(st.sampled_from(NASTY))}"
            case "key":
                lines[place] = draw(st.sampled_from(string.ascii_lowercase)) + lines[place]
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines[place])
            case "noise":
                lines[place] += draw(st.text(max_size=5))
    return "\n".join(lines)


@given(mutated())
@hostile
def test_a_right_file_after_any_slip(tmp_path, text):
    path = tmp_path / "agent.toml"
    path.write_text(text, encoding="utf-8")
    if config := outcome(path):
        require_right_card(config)


def toml(value: Any) -> str:
    """Inline TOML; JSON is nearly enough."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


scalars = st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
short = st.text(max_size=6)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3)
)
KEYS = [
    *("name", "tags", "skills", "kind", "directory", "max_bytes", "keep_days", "read", "drive", "devices"),
    *("driver", "bus", "line", "address", "safe", "dead_band", "scale", "offset", "direction", "format"),
    *("interlock", "names"),
]
tables = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), anything, max_size=5)
SECTIONS = [
    "agent",
    "network",
    "state",
    "outbox",
    "history",
    "safety",
    "access",
    "buses",
    "devices",
    "streams",
]
documents = st.dictionaries(
    st.sampled_from(SECTIONS) | st.text(max_size=6),
    anything | tables | st.dictionaries(st.text("ab", min_size=1, max_size=2), tables, max_size=3),
    max_size=6,
)


@given(documents)
@hostile
def test_any_tables(tmp_path, fakes, document):
    def load_driver(name: str) -> Any:
        if name not in fakes:
            raise ConfigError(f'driver "{name}" is not installed')
        return fakes[name]

    path = tmp_path / "agent.toml"
    text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items())
    path.write_text(text, encoding="utf-8", errors="replace")
    outcome(path, load_driver)


# -- configurations that are right by construction ---------------------------------------------------------

words = st.from_regex(r"\A[a-z][a-z0-9_]{0,9}\Z")
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)


@st.composite
def right(draw: st.DrawFn) -> str:
    kinds = draw(st.sampled_from([["request"], ["pipe"], ["request", "pipe"]]))
    agent = {
        "name": draw(st.from_regex(r"\A[a-zA-Z0-9_]{1,20}\Z")),
        "display_name": draw(texts),
        "description": draw(texts),
        "organization": draw(texts),
        "tags": draw(st.lists(words, max_size=3, unique=True)),
        "task_kinds": kinds,
    }
    devices: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(draw(st.lists(words, max_size=6, unique=True))):
        kind = draw(st.sampled_from(["thermo", "relay", "fan", "meter", "console", "board"]))
        devices[name] = {
            "thermo": {"bus": f"i{number}", "scale": {"count": draw(st.floats(0.5, 2))}},
            "relay": {
                "bus": "p",
                "line": number,
                "safe": draw(st.booleans()),
                "max_on_s": 5,
                "interlock": ["g"],
            },
            "fan": {"bus": f"i{number}", "safe": {"speed": 50, "steps": 1, "label": draw(texts)}},
            "meter": {"bus": f"s{number}"},
            "console": {"bus": f"s{number}"},
            "board": {},
        }[kind] | {"driver": kind}
    buses: dict[str, dict[str, Any]] = {"p": {"kind": "gpio", "chip": "gpiochip0"}}
    for number in range(len(devices)):
        buses[f"i{number}"] = {"kind": "i2c", "device": f"/dev/i2c-{number}"}
        buses[f"s{number}"] = {"kind": "serial", "port": f"/dev/ttyUSB{number}"}
    streams = (
        draw(st.dictionaries(words, right_stream(devices), max_size=3)) if "pipe" in kinds and devices else {}
    )
    document = {"agent": agent, "buses": buses, "devices": devices, "streams": streams}
    document["history"] = {"enabled": draw(st.booleans())}
    return "\n".join(f"{key} = {toml(value)}" for key, value in document.items())


@st.composite
def right_stream(draw: st.DrawFn, devices: dict[str, dict[str, Any]]) -> dict[str, Any]:
    consoles = [name for name, device in devices.items() if device["driver"] == "console"]
    others = [name for name in devices if name not in consoles]
    direction = draw(st.sampled_from(["outbound", "inbound", "bidirectional"]))
    if not others or (consoles and draw(st.booleans())):
        return {"direction": direction, "format": "bytes", "devices": [draw(st.sampled_from(consoles))]}
    chosen = draw(st.lists(st.sampled_from(others), min_size=1, unique=True))
    if not any(devices[name]["driver"] in ("relay", "fan") for name in chosen):
        direction = "outbound"
    return {
        "direction": direction,
        "devices": chosen,
        "affinity": draw(st.sampled_from(["shared", "dedicated"])),
        "overflow": draw(st.sampled_from(["drop-oldest", "thin", "refuse"])),
    }


@given(right())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_right_configuration_makes_a_right_card(load_text, text):
    require_right_card(load_text(text))


@pytest.mark.parametrize("text", [GREENHOUSE, WORKSHOP], ids=["greenhouse", "workshop"])
def test_the_examples_do_too(tmp_path, text):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    config = outcome(path)
    assert config is not None
    require_right_card(config)
