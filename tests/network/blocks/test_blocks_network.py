"""What the network does with control messages, and how tasks of an earlier process go on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.network import Caller, StartTask, TaskLink
from device_agent.network.blocks.joiner import JoinSettings
from device_agent.network.blocks.network import REFUSALS_MAX, BlocksNetwork
from device_agent.testing.clock import SteppedClock
from support.fake_pubsub import delivery

pytestmark = pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning")
NOBODY_THERE = "127.0.0.1:9"


class Runtime:
    """A `network.Runtime` that notes what it is asked."""

    def __init__(self) -> None:
        self.room = True
        self.known: set[str] = set()
        self.began: list[TaskLink] = []
        self.resumed: list[str] = []
        self.unfinished: list[StartTask] = []
        self.ends: list[tuple[str, str]] = []

    def knows(self, task_id: str) -> bool:
        return task_id in self.known

    def has_room(self, start: StartTask) -> bool:
        return self.room

    def load_now(self) -> tuple[int, int]:
        return len(self.began), 7

    def begin(self, link: TaskLink) -> None:
        self.known.add(link.start.task_id)
        self.began.append(link)

    async def remembered(self) -> None: ...

    def resumable(self) -> list[StartTask]:
        return self.unfinished

    def resume(self, link: TaskLink) -> None:
        self.resumed.append(link.start.task_id)

    def end(self, task_id: str, how: str) -> bool:
        self.ends.append((task_id, how))
        return True

    def is_running(self, task_id: str) -> bool:
        return task_id in self.known


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
async def network(runtime: Runtime, clock: SteppedClock, tmp_path: Path) -> AsyncIterator[BlocksNetwork]:
    """With the token of an earlier process, and no network to be reached."""
    settings = JoinSettings(
        "greenhouse", lambda: "bk", concurrency=lambda: 3, pubnub_origin=NOBODY_THERE, pubnub_tls=False
    )
    made = BlocksNetwork(settings, runtime, clock, tmp_path)
    made.file.identity.publish_key, made.file.identity.subscribe_key = "pub", "sub"
    made.file.identity.control_token = "control"
    made._on_joined()
    yield made
    await close(made)


async def close(network: BlocksNetwork) -> None:
    await asyncio.sleep(0)  # what was begun starts
    await network.background.close()
    await network.http.close()


def send(network: BlocksNetwork, type_: str, *, targeted: bool = True, **members: Any) -> None:
    meta = {"instance": network.file.identity.instance_id} if targeted else {"broadcast": "true"}
    message = {"type": type_, "taskId": "t1", "orgId": "org", **members}
    network.on_control_message(delivery(message, timetoken=17_000_000_000_000_000, **meta))


def running(network: BlocksNetwork) -> int:
    return len(network.background)


async def test_a_task_begins_with_the_time_at_which_it_was_sent(network: BlocksNetwork, runtime: Runtime):
    send(network, "StartTask", ownerId="alice")
    (link,) = runtime.began
    assert (link.start.task_id, link.start.caller.user) == ("t1", "alice")
    assert link.start.sent_ms == 1_700_000_000_000.0
    assert running(network) == 1, "its events are published"
    assert network.presence() == {
        "instanceId": network.file.identity.instance_id,
        "activeTasks": 1,
        "concurrency": 3,
        "startedAt": network.clock.now_ms(),
        "activeStreams": 7,
        "preferredProtocolVersion": "2026-05-01",
        "protocolVersions": ["2026-05-01"],
    }


async def test_a_task_begins_once(network: BlocksNetwork, runtime: Runtime):
    send(network, "StartTask")
    send(network, "StartTask")
    assert len(runtime.began) == 1


async def test_without_room_a_task_is_refused_only_if_it_was_sent_to_this_instance(
    network: BlocksNetwork, runtime: Runtime
):
    runtime.room = False
    send(network, "StartTask", targeted=False)
    assert running(network) == 0
    send(network, "StartTask")
    assert (running(network), runtime.began) == (1, [])


async def test_refusals_are_answered_up_to_a_limit(network: BlocksNetwork, runtime: Runtime):
    for n in range(REFUSALS_MAX + 5):
        send(network, "StartTask", taskId=f"t{n}", taskKind="batch")
    assert running(network) == REFUSALS_MAX
    assert runtime.began == []


@pytest.mark.parametrize(
    ("type_", "how"), [("CancelTask", "cancel"), ("ExpireTask", "expire"), ("TerminateTask", "terminate")]
)
async def test_tasks_are_ended(network: BlocksNetwork, runtime: Runtime, type_: str, how: str):
    send(network, type_)
    assert runtime.ends == [("t1", how)]


@pytest.mark.parametrize(("type_", "queued"), [("PauseTask", 2), ("ResumeTask", 2), ("RetryTask", 1)])
async def test_a_pause_is_confirmed_and_a_retry_ignored(
    network: BlocksNetwork, runtime: Runtime, type_: str, queued: int
):
    send(network, type_)
    send(network, "StartTask")
    send(network, type_)
    (link,) = runtime.began
    assert repr(link.events) == f"<TaskEvents of t1: {queued} queued>"  # type: ignore[attr-defined]
    assert runtime.ends == []


async def test_a_newer_control_token_is_used_and_a_malformed_message_ignored(
    network: BlocksNetwork, runtime: Runtime
):
    send(network, "StartTask", taskId=7, controlToken="bad")
    assert network.file.identity.control_token == "control"
    send(network, "StartTask", controlToken="newer")
    assert network.file.identity.control_token == "newer"
    assert len(runtime.began) == 1


async def test_the_environment_is_switched(network: BlocksNetwork):
    network.file.identity.network_keys = ["pub-2", "sub-2"]
    send(network, "SwitchEnvironment", environment="network", pamToken="other")
    assert (network.file.identity.subscribe_key, network.file.identity.control_token) == ("sub-2", "other")


async def test_tasks_of_an_earlier_process_go_on_once(runtime: Runtime, clock: SteppedClock, tmp_path: Path):
    runtime.unfinished = [StartTask("old", "pipe", Caller("org", "alice"), "org")]
    settings = JoinSettings("greenhouse", lambda: "bk", pubnub_origin=NOBODY_THERE, pubnub_tls=False)
    network = BlocksNetwork(settings, runtime, clock, tmp_path)
    network.file.identity.control_token = "control"
    network._on_joined()
    network._on_joined()
    assert runtime.resumed == ["old"]
    await close(network)
