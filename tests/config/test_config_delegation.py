"""[delegations]: what may be written, what not, and where its key comes from."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.config import Config
from device_agent.config.delegation import DelegationConfig
from device_agent.config.secret import sessions_key
from device_agent.errors import ConfigError

DEVICES = """
[agent]
name = "a"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "x"
[devices.thermo]
driver = "thermo"
bus = "i2c1"
[devices.fan]
driver = "fan"
bus = "i2c1"
safe = { speed = 0, steps = 1, label = "" }
[devices.relay]
driver = "relay"
bus = "pins"
line = 4
safe = false
[streams.telemetry]
direction = "outbound"
devices = ["thermo"]
[streams.orders]
direction = "inbound"
devices = ["fan"]
"""
ACCESS = '[access]\ndrive = ["user:u", "delegation:too_hot"]\n'
WHEN = 'when = { device = "thermo", point = "temperature", above = 35, below_again = 33, for_s = 60 }\n'
RULE = f"""
[delegations.too_hot]
agent = "claude"
{WHEN}message = "It is {{thermo.temperature}} °C at {{agent}}, {{time}}. {{ 1 }}"
readings = {{ devices = ["thermo"], last_s = 3600 }}
stream = "telemetry"
[delegations.too_hot.follow_up]
ended = "Now it is {{thermo.temperature}} °C."
acted = "Done."
[delegations.too_hot.commands.blow]
description = "the fan at half speed for ten minutes"
device = "fan"
values = {{ speed = 50 }}
for_s = 600
[delegations.too_hot.commands.puff]
device = "relay"
action = "pulse"
args = {{ for_s = 5 }}
"""


def test_a_whole_rule(load_text: Callable[..., Config]) -> None:
    config = load_text(DEVICES + ACCESS + RULE)
    rule = config.delegations["too_hot"]
    assert rule.when is not None
    assert (rule.when.above, rule.when.below_again, rule.when.timed) == (35, 33, False)
    assert set(rule.commands) == {"blow", "puff"}
    assert not rule.asks_question
    assert config.delegations_of("telemetry") == {"too_hot": rule}
    assert config.delegation == DelegationConfig()
    assert config.delegation.base_url == "https://api.blocks.team"
    assert [text for text in config.warnings if "delegation" in text] == []


def test_a_rule_that_only_a_caller_starts(load_text: Callable[..., Config]) -> None:
    config = load_text(
        DEVICES + ACCESS + '[access.devices.advice]\ndrive = ["user:v"]\n'
        '[delegations.advice]\nagent = "claude"\nstream = "telemetry"\nmessage = "{question}"\n'
        # An unused name in access.drive is an error, so the other rule is there too.
         + RULE
    )
    assert config.delegations["advice"].asks_question
    assert config.access.allows("drive", "advice", {"user:v"})
    assert not config.access.allows("drive", "advice", {"user:u"})


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('agent = "claude"\n', "", "exactly one of agent, agent_id, profile"),
        ('agent = "claude"\n', 'agent = "claude"\nagent_id = "x"\n', "agent_id"),
        ('agent = "claude"\n', 'agent = "claude"\nanswer_in_s = 3\n', 'did you mean "answer_within_s"?'),
        (WHEN, 'when = { device = "thermo" }\n', "exactly one of above"),
        (WHEN, "when = { above = 3 }\n", "add device"),
        (WHEN, 'when = { device = "thermo", above = 3 }\n', "needs a point"),
        (WHEN, 'when = { device = "thermo", point = "alert", status = "offline" }\n', "needs no point"),
        (WHEN, 'when = { device = "thermo", point = "temperature", above = 3, below_again = 4 }\n', "swap"),
        (WHEN, 'when = { device = "thermo", point = "temperature", below = 3, above_again = 2 }\n', "swap"),
        (WHEN, 'when = { device = "thermo", point = "temperature", below = 3, below_again = 2 }\n', "above"),
        (WHEN, 'when = { device = "thermo", point = "temperatur", above = 3 }\n', '"temperature"?'),
        (WHEN, 'when = { device = "termo", point = "temperature", above = 3 }\n', '"thermo"?'),
        (WHEN, 'when = { device = "thermo", point = "alert", above = 3 }\n', "equals with a boolean"),
        (WHEN, 'when = { device = "thermo", point = "temperature", equals = true }\n', "above or below"),
        (WHEN, 'when = { device = "thermo", status = "gone" }\n', "status"),
        (WHEN, 'when = { at = "6:00" }\n', "when.at"),
        (WHEN, 'when = { at = "06:00", for_s = 3 }\n', "needs no device"),
        (WHEN, "when = { every_s = 3600 }\n", "follow_up.ended"),
        (WHEN, "", "follow_up.ended"),
        ("{thermo.temperature} °C at", "{thermo.temp} °C at", "not a point of thermo"),
        ("{thermo.temperature} °C at", "{temperature} °C at", "which is not a reading"),
        ("{thermo.temperature} °C at", "{question} at", "only a caller's `do`"),
        ('devices = ["thermo"], last_s', 'devices = ["termo"], last_s', '"thermo"?'),
        ('stream = "telemetry"', 'stream = "telemetri"', '"telemetry"?'),
        ('stream = "telemetry"', 'stream = "orders"', "carries no events"),
        ("speed = 50", "speed = 150", "outside 0 to 100"),
        ("speed = 50", "sped = 50", "no point 'sped'"),
        ("speed = 50", "speed = true", "takes a number"),
        (
            'device = "fan"\nvalues = { speed = 50 }',
            'device = "thermo"\nvalues = { alert = true }',
            "not set",
        ),
        ('device = "fan"\nvalues = { speed = 50 }', 'device = "fam"\nvalues = { speed = 50 }', '"fan"?'),
        ("values = { speed = 50 }\nfor_s = 600", "", "either values or an action"),
        ('action = "pulse"', 'action = "puls"', "no action 'puls'"),
        ("args = { for_s = 5 }", "args = { for_s = 500 }", "outside"),
        ("args = { for_s = 5 }", "", "needs the argument 'for_s'"),
        ("commands.puff]", "commands.Puff]", "lower-case"),
    ],
)
def test_mistakes_are_named(
    problems: Callable[..., tuple[str, ...]], old: str, new: str, problem: str
) -> None:
    text = RULE.replace(old, new, 1)
    assert text != RULE
    found = problems(DEVICES + ACCESS + text)
    assert any(problem in one and "delegations.too_hot" in one for one in found), found


@pytest.mark.parametrize(
    ("access", "problem"),
    [
        ("", "access does not let it drive fan"),
        ('[access]\ndrive = ["delegation:too_cold"]\n', 'did you mean "delegation:too_hot"?'),
        (ACCESS + '[access.devices.fan.points.speed]\ndrive = ["user:u"]\n', "points.speed.drive"),
        (ACCESS + "[access.devices.fan.points.speed]\nmaximum = 20\n", "range"),
        (ACCESS + "[access.devices.too_hot.points.x]\nmaximum = 20\n", "no points"),
        (ACCESS + "[access.devices.to_hot]\nread = []\n", 'did you mean "too_hot"?'),
        (ACCESS + "[history]\nenabled = false\n", "history.enabled"),
        (ACCESS + '[delegation]\nbase_url = "http://example.com"\n', "https"),
        (ACCESS + '[delegation]\nbase_url = "https://u:p@example.com"\n', "password"),
        (ACCESS + "[delegation]\npoll_s = 0.1\n", "at least 2"),
        (ACCESS + '[delegation]\napi_key = "bk_x"\n', "not a known key"),
        (ACCESS + '[delegations.fan]\nagent = "codex"\nmessage = "x"\n', "name of a device"),
    ],
)
def test_what_does_not_fit_is_named(
    problems: Callable[..., tuple[str, ...]], access: str, problem: str
) -> None:
    found = problems(DEVICES + access + RULE)
    assert any(problem in one for one in found), found


def test_warnings(load_text: Callable[..., Config]) -> None:
    text = '[delegations.odd]\nagent = "my-own"\nmessage = "Hello"\n'
    warnings = [one for one in load_text(DEVICES + text).warnings if "delegations" in one]
    assert len(warnings) == 3
    assert "claude" in warnings[0]
    assert "seen by the owner alone" in warnings[1]
    assert "only the owner" in warnings[2]


def test_the_key_has_places_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from_file\n")
    file.chmod(0o600)
    config = DelegationConfig(api_key_file=file)
    assert sessions_key(config, environ={"BLOCKS_API_KEY": "network"}) == "from_file"
    environ = {"BLOCKS_SESSIONS_API_KEY": "from_env"}
    assert sessions_key(config, environ=environ) == "from_env"
    (tmp_path / "blocks_sessions_api_key").write_text("from_credential")
    assert (
        sessions_key(config, environ={**environ, "CREDENTIALS_DIRECTORY": str(tmp_path)}) == "from_credential"
    )
    with pytest.raises(ConfigError, match="BLOCKS_SESSIONS_API_KEY"):
        sessions_key(DelegationConfig(), environ={"BLOCKS_API_KEY": "network"})
    os.chmod(file, 0o644)
    with pytest.raises(ConfigError, match=r"delegation\.api_key_file.*chmod 600"):
        sessions_key(config, environ={})
