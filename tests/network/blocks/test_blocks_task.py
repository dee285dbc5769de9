"""A task's way back to its caller: which way a result takes, and what an input may be."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.background import BackgroundTasks
from device_agent.errors import Refused
from device_agent.network import Caller, Part, StartTask, StreamSpec
from device_agent.network.blocks.files import INLINE_MAX_BYTES, TOO_LARGE
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.joiner import JoinSettings
from device_agent.network.blocks.shared_streams import SharedStreams
from device_agent.network.blocks.task import BlocksTask, TaskServices
from device_agent.testing.clock import SteppedClock
from support.fake_pubsub import FakePubSub

START = StartTask("t1", "request", Caller("org", "alice"), "org", write_token="write")
TELEMETRY = StreamSpec("telemetry", "s1", "outbound", "events", "dedicated")


class Clients:
    """Makes clients in memory, and keeps them."""

    def __init__(self) -> None:
        self.control = FakePubSub("AG-1", "control")
        self.made: list[FakePubSub] = []

    def make(self, uuid: str, token: str) -> FakePubSub:
        self.made.append(FakePubSub(uuid, token))
        return self.made[-1]


class Uploads:
    """Notes what is uploaded."""

    def __init__(self) -> None:
        self.files: list[Any] = []

    async def upload(self, file: Any, before: Any, progress: Any) -> None:
        self.files.append(file)


@pytest.fixture
def clients() -> Clients:
    return Clients()


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


@pytest.fixture
def changes() -> list[str]:
    """One entry for each change of the presence."""
    return []


@pytest.fixture
async def services(
    http: Http, clients: Clients, uploads: Uploads, clock: SteppedClock, changes: list[str]
) -> AsyncIterator[TaskServices]:
    background = BackgroundTasks("test")
    yield TaskServices(
        settings=JoinSettings("greenhouse", lambda: "bk"),
        clients=clients,  # type: ignore[arg-type]
        http=http,
        uploads=uploads,  # type: ignore[arg-type]
        shared_streams=SharedStreams(),
        background=background,
        clock=clock,
        instance_id="AG-1",
        presence_changed=lambda: changes.append("changed"),
    )
    await background.close()


@pytest.fixture
def task(services: TaskServices, clock: SteppedClock) -> BlocksTask:
    """One whose caller listens already."""
    made = BlocksTask(START, services)
    clock.step(10)
    return made


def test_a_task_without_a_token_of_its_own_uses_the_control_token(services: TaskServices, clients: Clients):
    BlocksTask(START, services)
    BlocksTask(StartTask("t2", "request", Caller(), "anonymous"), services)
    assert [client.token for client in clients.made] == ["write", "control"]


async def test_a_small_result_is_an_event_and_a_large_one_a_file(
    task: BlocksTask, clients: Clients, uploads: Uploads, tmp_path: Path
):
    publishing = asyncio.create_task(task.events.run())
    small = tmp_path / "small"
    small.write_bytes(b"x" * INLINE_MAX_BYTES)
    order: list[str] = []

    async def before() -> None:
        order.append("before" if not clients.made[0].published else "late")

    await asyncio.wait_for(task.artifact(small, "text/plain", output_id="o1", before=before), 10)
    assert order == ["before"]
    (event,) = [json.loads(body) for _, body in clients.made[0].published]
    assert event["artifactRef"]["size"] == INLINE_MAX_BYTES
    assert event["artifactRef"]["fileName"] == "t1-artifact"
    await task.artifact(b"x" * (INLINE_MAX_BYTES + 1), "text/plain", output_id="o2")
    assert [file.output_id for file in uploads.files] == ["o2"]
    publishing.cancel()
    await asyncio.wait([publishing])


@pytest.mark.parametrize(
    "part",
    [
        Part("p1", text="hallo"),
        Part("p1", artifact={"kind": "inline", "data": base64.b64encode(b"hallo").decode()}),
    ],
)
async def test_an_input_that_the_message_holds(task: BlocksTask, part: Part, tmp_path: Path):
    await task.fetch(part, tmp_path / "a", 5)
    assert (tmp_path / "a").read_bytes() == b"hallo"
    with pytest.raises(Refused) as refused:
        await task.fetch(part, tmp_path / "b", 4)
    assert refused.value.status == TOO_LARGE
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"kind": "inline", "data": "!"},
        {"channel": "u.org.t1", "fileId": "", "fileName": "a"},
        {"channel": "u.org.t1", "fileId": "f"},
        {"channel": "u.org.other", "fileId": "f", "fileName": "a"},
    ],
)
async def test_an_input_that_names_no_file_of_this_task_is_refused(
    task: BlocksTask, reference: Any, tmp_path: Path
):
    with pytest.raises(Refused, match="'p1'"):
        await task.fetch(Part("p1", artifact=reference), tmp_path / "a", 100)


async def test_the_end_of_a_task_changes_the_presence(task: BlocksTask, changes: list[str]):
    task.terminal("completed")
    assert changes == ["changed"]


async def test_a_stream_is_opened_only_for_a_caller_who_asked_for_streams(task: BlocksTask):
    with pytest.raises(Refused, match="did not ask for streaming"):
        await task.open_stream(TELEMETRY, None)


async def test_a_stream_has_a_client_and_a_token_of_its_own(
    services: TaskServices, clients: Clients, clock: SteppedClock, changes: list[str]
):
    start = StartTask("t1", "pipe", Caller("org", "alice"), "org", has_stream=True)
    task = BlocksTask(start, services)
    clock.step(10)
    stream = await task.open_stream(TELEMETRY, None)
    assert clients.made[-1].token == "new"
    assert clients.made[-1].uuid.startswith("greenhouse-stream-")
    assert changes == ["changed"]
    await stream.close(end=False)
