"""Worlds with delegations: the stand-in of the Sessions API on a link of its own, rules, and helpers."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from device_agent.testing.sessions_api import FakeSession, FakeSessionsApi
from support.deployment import CONFIG, World
from support.processes import Daemon
from support.waiting import until

KEY = "bk_workspace"
HOT = "40"
COOL = "21"

RULES = """
[delegation]
base_url = "{sessions_url}"
api_key_file = "{folder}/sessions_key"
poll_s = 2

[delegations.too_hot]
agent = "claude"
when = {{ device = "climate", point = "temperature", above = 35, below_again = 33 }}
message = "{{agent}} is at {{climate.temperature}} °C."
readings = {{ devices = ["climate", "valve"], last_s = 600 }}
min_interval_s = 10
answer_within_s = {answer_within_s}
act_within_s = 300
stream = "telemetry"
[delegations.too_hot.follow_up]
ended = "It is {{climate.temperature}} °C again."
acted = "This came of it:"
unclear = "Which one?"
[delegations.too_hot.commands.open_valve]
description = "opens the valve for five minutes"
device = "valve"
values = {{ on = true }}
for_s = 300
[delegations.too_hot.commands.pulse]
device = "valve"
action = "pulse"
args = {{ for_s = 0.1 }}

[delegations.advice]
agent = "codex"
message = "A caller asks: {{question}}"
min_interval_s = 10
stream = "control"
"""
DRIVE = 'drive = ["user:user_alice", "user:user_bob"]'
OPEN = 'It is too hot. I open the valve.\n{"command": "open_valve"}'
NOTHING = 'Wait and see.\n```json\n{"command": "none"}\n```'


@pytest.fixture
def sessions(net: NetworkThread) -> Iterator[FakeSessionsApi]:
    """The service, on a link of its own that can fail alone."""
    with contextlib.suppress(ValueError):  # it is there already
        net.run(net.net.open_link("sessions"))
    api = net.net.sessions_api
    yield api
    net.call(net.net.heal)
    net.run(net.net.accept("sessions"))
    api.answers.clear()
    api.sessions.clear()
    api.held = False
    api.rate_per_minute = 100


@pytest.fixture
def start(
    net: NetworkThread, sessions: FakeSessionsApi, new_world: Callable[..., World], tmp_path: Path
) -> Callable[..., World]:
    """A world with these rules, its daemon running."""
    (tmp_path / "sessions_key").write_text(KEY)
    (tmp_path / "sessions_key").chmod(0o600)

    def begin(*, answer_within_s: int = 120, drive: str = DRIVE, rules: str = RULES) -> World:
        url = net.net.links["sessions"].addresses["sessions_url"]
        text = rules.format(sessions_url=url, folder=tmp_path, answer_within_s=answer_within_s)
        config = CONFIG.replace(DRIVE, drive[:-1] + ', "delegation:too_hot"]')
        made = new_world(config=config, more=text)
        made.start()
        return made

    return begin


def heat(world: World, celsius: str) -> None:
    assert world.board is not None
    world.board.do("chip", "climate", f"temperature={celsius}")


def one(sessions: FakeSessionsApi) -> FakeSession:
    """The only session, when it is there."""
    until(lambda: sessions.sessions, "a session")
    (session,) = sessions.sessions.values()
    return session


def told(daemon: Daemon, name: str = "too_hot") -> dict[str, Any]:
    return next(one for one in daemon.ask("status")["delegations"] if one["delegation"] == name)


def ended(daemon: Daemon, state: str, name: str = "too_hot") -> dict[str, Any]:
    """The newest words of a delegation, when they have this state."""
    until(
        lambda: told(daemon, name).get("last", {}).get("state") == state, f"{state}: {told(daemon, name)}", 60
    )
    return dict(told(daemon, name)["last"])


def outcome(sessions: FakeSessionsApi, count: int = 2) -> str:
    """What the AI agent was told of its command."""
    until(lambda: len(one(sessions).said("user")) == count, "the outcome told", 60)
    return one(sessions).said("user")[-1]
