"""Which streams a session opens, and what of each its caller may see."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.commands.authorization import Actor
from device_agent.config import Config, load
from device_agent.errors import Rejected
from device_agent.messages.requests import PipeRequest
from device_agent.network import Caller, StartTask
from device_agent.tasks.stream_scope import STREAM_ID_MAX, choose_streams, scope_of, spec_of, stream_id
from support.control_side import DRIVERS

CONFIG = """
[agent]
name = "a"
[devices.one]
driver = "button"
[devices.two]
driver = "button"
[devices.secret]
driver = "button"
[streams.public]
direction = "outbound"
affinity = "shared"
devices = ["one"]
[streams.partly_secret]
direction = "outbound"
affinity = "shared"
devices = ["one", "secret"]
[streams.own]
direction = "outbound"
devices = ["two", "secret"]
[streams.all_secret]
direction = "outbound"
devices = ["secret"]
[access.devices.secret]
read = ["user:bob"]
"""
DEVICES: Any = {"one": object(), "two": object(), "secret": object()}
ALICE, BOB = (Actor("t1", name, Caller("org", name), "pipe") for name in ("alice", "bob"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG)
    return load(path, load_driver=DRIVERS.__getitem__)


def chosen(config: Config, actor: Actor, **request: Any) -> list[str]:
    return choose_streams(PipeRequest(**request), config, DEVICES, actor)


def test_without_a_request_all_that_may_be_read(config: Config) -> None:
    assert chosen(config, ALICE) == ["public", "own"], "a shared stream needs the right to all of it"
    assert chosen(config, BOB) == ["public", "partly_secret", "own", "all_secret"]


def test_for_devices_the_streams_that_carry_them(config: Config) -> None:
    assert chosen(config, ALICE, devices=["two"]) == ["own"]
    assert chosen(config, BOB, devices=["one"]) == ["public", "partly_secret"]


def test_named_streams_in_their_order_and_once(config: Config) -> None:
    assert chosen(config, ALICE, streams=["own", "public", "own"]) == ["own", "public"]
    assert chosen(config, ALICE, streams=["own"], devices=["one"]) == ["own"], "a named stream opens anyway"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"streams": ["nothing"]}, "invalid_value"),
        ({"streams": ["partly_secret"]}, "not_allowed"),
        ({"streams": ["all_secret"]}, "not_allowed"),
        ({"devices": ["nothing"]}, "unknown_device"),
        ({"devices": ["secret"]}, "unknown_device"),
    ],
)
def test_what_is_not_there_or_not_allowed(config: Config, request_: Any, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        chosen(config, ALICE, **request_)
    assert caught.value.code == code


def test_an_own_stream_leaves_out_what_its_caller_may_not_read(config: Config) -> None:
    start = StartTask("t1", "pipe", ALICE.caller, "org")
    spec = spec_of("own", config, start)
    assert spec.stream_id == "t1-3", "by its place in the configuration"
    assert list(scope_of(spec, config, DEVICES, ALICE).devices) == ["two"]
    assert list(scope_of(spec, config, DEVICES, BOB).devices) == ["two", "secret"]
    assert list(scope_of(spec, config, {"secret": DEVICES["secret"]}, BOB).devices) == ["secret"]
    shared = scope_of(spec_of("public", config, start), config, DEVICES, ALICE)
    assert (shared.spec.stream_id, shared.shared) == ("public", True)


@pytest.mark.parametrize("task_id", ["t" * (STREAM_ID_MAX - 2), "a-b_9"])
def test_a_streams_id_is_the_tasks_where_the_network_takes_it(task_id: str) -> None:
    assert stream_id(StartTask(task_id, "pipe", Caller(), ""), 1) == f"{task_id}-1"


@pytest.mark.parametrize("task_id", ["t" * (STREAM_ID_MAX - 1), "a.b", "ü"])
def test_another_task_id_is_replaced_by_its_checksum(task_id: str) -> None:
    id_ = stream_id(StartTask(task_id, "pipe", Caller(), ""), 1)
    assert id_.startswith("task-")
    assert id_.endswith("-1")
    assert len(id_) == len("task-01234567-1")
