"""[rules] and [alerts]: what may be written, and what not."""

from collections.abc import Callable

import pytest

from device_agent.config import Config
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
"""
RULE = """
[rules]
cool.when = { device = "thermo", point = "temperature", above = 35 }
cool.then = { device = "fan", values = { speed = 50 } }
night = { when = { at = "22:00" }, then = { device = "relay", action = "pulse", args = { for_s = 5 } } }
"""
ALERT = """
[alerts]
hot = { when = { device = "thermo", point = "temperature", above = 40 }, webhook = "https://example.com/x" }
gone = { when = { device = "thermo", status = "offline", for_s = 600 }, command = ["/bin/tell", "me"] }
stuck = { not_safe = true, command = ["/bin/tell", "me"] }
full = { outbox_above = 0.5, webhook = "http://192.0.2.7:8000/y" }
"""


def test_rules_and_alerts_are_lines(load_text: Callable[..., Config]) -> None:
    config = load_text(DEVICES + RULE + ALERT + '[access]\ndrive = ["rule:cool"]\n')
    assert config.rules["cool"].then.values == {"speed": 50}
    assert config.rules["night"].when.timed
    assert config.alerts["gone"].command == ("/bin/tell", "me")
    assert config.alerts["full"].outbox_above == 0.5
    assert not [text for text in config.warnings if "rule" in text or "alert" in text]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("above = 35", "above = 35, status = 'offline'", "exactly one of above"),
        ('point = "temperature", above = 35', 'point = "temp", above = 35', "not a point of thermo"),
        ("speed = 50", "speed = 150", "outside 0 to 100"),
        ('device = "fan", values', 'device = "fam", values', '"fan"?'),
        ('action = "pulse"', 'action = "puls"', "no action 'puls'"),
        (", values = { speed = 50 }", "", "either values or an action"),
        ("not_safe = true, ", "", "exactly one of when, not_safe"),
        ("not_safe = true", "not_safe = true, outbox_above = 0.5", "exactly one of when, not_safe"),
        ("outbox_above = 0.5", "outbox_above = 50", "less than 1"),
        (', webhook = "https://example.com/x"', "", "either a webhook or a command"),
        ('webhook = "https://example.com/x"', 'webhook = "example.com"', "webhook"),
        (
            'not_safe = true, command = ["/bin/tell", "me"]',
            'not_safe = true, command = "tell"',
            "a list such as",
        ),
        (
            'when = { device = "thermo", point = "temperature", above = 40 }',
            "when = { every_s = 60 }",
            "never over",
        ),
    ],
)
def test_what_is_wrong_is_said(load_text: Callable[..., Config], old: str, new: str, problem: str) -> None:
    text = RULE + ALERT
    assert old in text
    with pytest.raises(ConfigError) as caught:
        load_text(DEVICES + text.replace(old, new, 1))
    assert any(problem in one for one in caught.value.problems), caught.value.problems


def test_a_rule_that_is_not_there_cannot_be_named_in_access(load_text: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match='not a rule: did you mean "rule:cool"'):
        load_text(DEVICES + RULE + '[access]\ndrive = ["rule:cole"]\n')
