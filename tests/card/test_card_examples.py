"""The cards in cards/ are those of the configurations beside them: `make cards` remakes them."""

import json
from pathlib import Path

import jsonschema
import pytest

from device_agent.card import agent_card
from device_agent.config import load

CARDS = Path(__file__).parents[2] / "cards"
EXAMPLES = sorted(CARDS.glob("*.toml"))


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} >= {
        "greenhouse",
        "weather_station",
        "printer_console",
        "energy_meter",
        "relay_board",
    }
    assert {path.name.removesuffix(".card.json") for path in CARDS.glob("*.card.json")} == {
        path.stem for path in EXAMPLES
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_card_is_that_of_the_configuration(path):
    config = load(path, environ={})
    assert config.warnings == ()
    made = json.dumps(agent_card.build(config), indent=2, ensure_ascii=False) + "\n"
    assert made == path.with_suffix(".card.json").read_text(), "run: make cards"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_card_keeps_the_network_s_rules(path):
    made = json.loads(path.with_suffix(".card.json").read_text())
    assert agent_card.validate(made) == []
    jsonschema.Draft202012Validator(agent_card.rules()).validate(made)
