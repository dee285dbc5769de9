"""How the published card differs from the one that the configuration makes, and when that is logged."""

import copy
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from device_agent.card import agent_card
from device_agent.card.compare import LOGGED_MAX, SHOWN_MAX, CardWatch, differences
from device_agent.config import Config, load

CARDS = Path(__file__).parents[2] / "cards"


@pytest.fixture(scope="module")
def config() -> Config:
    return load(CARDS / "greenhouse.toml", environ={})


@pytest.fixture
def published(config: Config) -> dict[str, Any]:
    return copy.deepcopy(agent_card.build(config))


def test_the_same_card_has_no_differences(published: dict[str, Any]) -> None:
    assert differences(published, published) == []


def test_members_that_the_network_adds_are_ignored() -> None:
    assert differences({"identity": {}, "rating": 5}, {"identity": {}}) == []


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ({"a": 1}, {}, "- runtime.a"),
        ({}, {"a": 1}, "+ runtime.a"),
        ({"a": 1}, {"a": 2}, "~ runtime.a: 1 → 2"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "~ runtime.a[1]: 2 → 3"),
        ({"a": [1, 2]}, {"a": [1]}, "~ runtime.a: 2 items → 1 items"),
        ({"a": 1}, {"a": True}, "~ runtime.a: 1 → True"),
        ({"a": "x\x1b[2J"}, {"a": "y"}, "~ runtime.a: x [2J → y"),
    ],
)
def test_each_kind_of_difference_is_one_line(before: Any, after: Any, line: str) -> None:
    assert differences({"runtime": before}, {"runtime": after}) == [line]


def test_a_long_value_is_cut() -> None:
    (line,) = differences({"runtime": {"a": "x" * 500}}, {"runtime": {"a": "y"}})
    assert len(line) < SHOWN_MAX + 30
    assert "…" in line


def test_differences_are_logged_once_until_they_change(config: Config, published: dict[str, Any]) -> None:
    watch = CardWatch(lambda: config)
    other = {**published, "identity": {**published["identity"], "displayName": "Old"}}
    with capture_logs() as logs:
        watch.published(published)
        assert logs == []
        watch.published(other)
        watch.published(other)
        assert [entry["event"] for entry in logs] == ["card_differs"]
        watch.published(published)
        watch.published(other)
    assert [entry["count"] for entry in logs] == [1, 1]


def test_the_log_names_the_first_differences_only(config: Config, published: dict[str, Any]) -> None:
    with capture_logs() as logs:
        CardWatch(lambda: config).published({**published, "identity": {}, "streams": {}})
    assert len(logs[0]["changes"]) == LOGGED_MAX < logs[0]["count"]
