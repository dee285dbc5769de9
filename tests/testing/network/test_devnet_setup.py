"""The stream setup function: three phases, every check, announcements and their tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from device_agent.testing.network import DevNetwork
from device_agent.testing.network.tasks import Task
from support.network_peer import Api, Peer, join
from support.official_provider import make_card

REQUEST = {"partId": "request", "text": "{}"}


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork() as found:
        yield found


class Scene:
    """A task with its write token."""

    def __init__(self, net: DevNetwork, task: Task) -> None:
        self.net = net
        self.task = task
        self.peer = Peer(net, token=net.backend.write_token(task))

    def request(self, **changes: Any) -> dict[str, Any]:
        stream_id = changes.get("streamId", f"{self.task.task_id}-1")
        return {
            "type": "stream_setup",
            "protocolVersion": "2026-05-01",
            "taskId": self.task.task_id,
            "orgId": self.task.org_id,
            "agentName": "x",
            "streamId": stream_id,
            "channel": f"stream.x.{stream_id}",
            "direction": "outbound",
            "taskKind": self.task.kind,
            "durationMinutes": 60,
            "format": "events",
            "affinity": "dedicated",
            "declaredStream": "events",
            **changes,
        }

    async def set_up(self, drop: str = "", **changes: Any) -> dict[str, Any]:
        message = self.request(**changes)
        message.pop(drop, None)
        channel = f"setup.{self.task.org_id}.{self.task.task_id}"
        status, body = await self.peer.publish(channel, message, store=0)
        assert (status, body["status"]) == (403, 403)
        return dict(body["message"])

    def announced(self) -> list[dict[str, Any]]:
        events = [r.body for r in self.net.publishes(self.task.channel)]
        return [e for e in events if e.get("streamEvent") == "stream_started"]


@pytest.fixture
async def scenes(net: DevNetwork) -> AsyncIterator[Any]:
    net.register("x", make_card("x", 9))
    made: list[Scene] = []
    async with (
        Api(net) as device,
        Api(net, "bk_alice") as caller,
        await join(net, device, "x", concurrency=9),
    ):
        await caller.log_in()

        async def make(**blocks: Any) -> Scene:
            result = await caller.send("x", REQUEST, blocks=blocks or {"taskKind": "pipe", "duration": 5})
            made.append(Scene(net, net.task(result["taskId"])))
            return made[-1]

        yield make
        for scene in made:
            await scene.peer.__aexit__(None, None, None)


async def test_embedded_gives_the_token_and_announces(net: DevNetwork, scenes: Any) -> None:
    scene = await scenes()
    answer = await scene.set_up(metadata={"room": 1})
    reply = answer["streamSetupResponse"]
    assert answer["ok"] is True
    assert (reply["phase"], reply["tokenTtlMinutes"], reply["taskId"]) == ("embedded", 62, scene.task.task_id)
    (event,) = scene.announced()
    assert (event["type"], event["declaredStream"], event["taskId"]) == (
        "progress",
        "events",
        scene.task.task_id,
    )
    ((stream_id, stream),) = event["streams"].items()
    assert stream_id == reply["streamId"]
    assert {k: v for k, v in stream.items() if k != "token"} == {
        "channel": reply["channel"],
        "direction": "outbound",
        "format": "events",
        "affinity": "dedicated",
        "metadata": {"room": 1},
    }
    for token, kind in ((reply["token"], "stream_provider"), (stream["token"], "stream_consumer")):
        assert net.tokens.check(token, "playground", [reply["channel"]], 3).kind == kind
    assert net.publishes(f"setup.{scene.task.org_id}.{scene.task.task_id}") == []


async def test_external_streams_take_two_steps(scenes: Any) -> None:
    scene = await scenes()
    reply = (await scene.set_up(phase="token_request"))["streamSetupResponse"]
    assert reply["token"]
    assert scene.announced() == []
    reply = (await scene.set_up(phase="activate"))["streamSetupResponse"]
    assert "token" not in reply
    assert len(scene.announced()) == 1


async def test_second_task_attaches_to_a_shared_stream(scenes: Any) -> None:
    first, second = await scenes(), await scenes()
    shared = {"streamId": "shared", "declaredStream": "shared", "affinity": "shared"}
    assert (await second.set_up(**shared, phase="activate"))["ok"] is False
    assert (await first.set_up(**shared))["ok"] is True
    assert (await second.set_up(**shared, phase="activate"))["ok"] is True
    tokens = [s.announced()[0]["streams"]["shared"]["token"] for s in (first, second)]
    assert tokens[0] != tokens[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "other"},
        {"protocolVersion": "1999-01-01"},
        {"taskId": "no"},
        {"orgId": "no"},
        {"agentName": "y"},
        {"streamId": "a b"},
        {"streamId": "n" * 93},
        {"channel": "stream.x.other"},
        {"direction": "sideways"},
        {"taskKind": "request"},
        {"durationMinutes": 0},
        {"durationMinutes": "60"},
        {"durationMinutes": None},
        {"format": "text"},
        {"affinity": "both"},
        {"affinity": None},
        {"phase": "later"},
        {"metadata": []},
        {"declaredStream": 5},
        {"declaredStream": "unknown"},
        {"declaredStream": "talk"},
        {"declaredStream": "shared", "affinity": "shared"},
        {"phase": "activate"},
        {"affinity": "shared", "declaredStream": "_default"},
        {"affinity": "shared", "phase": "token_request", "declaredStream": "shared", "streamId": "shared"},
        {"drop": "affinity"},
        {"drop": "declaredStream"},
    ],
)
async def test_what_is_refused(scenes: Any, changes: dict[str, Any]) -> None:
    scene = await scenes()
    answer = await scene.set_up(**changes)
    assert (answer["ok"], answer["error"]["code"]) == (False, "InvalidArgument")
    assert answer["error"]["message"]
    assert scene.announced() == []


async def test_request_tasks_have_plain_streams_only(scenes: Any) -> None:
    scene = await scenes(stream=True)
    for changes in (
        {"direction": "inbound", "declaredStream": "upload", "format": "bytes"},
        {"phase": "token_request"},
        {"affinity": "shared", "declaredStream": "shared", "streamId": "shared"},
    ):
        assert (await scene.set_up(**changes))["ok"] is False
    assert (await scene.set_up())["ok"] is True
    unasked = await scenes(stream=False)
    assert (await unasked.set_up())["error"]["code"] == "FailedPrecondition"


async def test_ended_tasks_and_foreign_tokens_are_refused(net: DevNetwork, scenes: Any) -> None:
    scene = await scenes()
    other = await scenes()
    scene.peer.token = other.peer.token
    status, body = await scene.peer.publish(
        f"setup.{scene.task.org_id}.{scene.task.task_id}", scene.request()
    )
    assert (status, body["service"]) == (403, "Access Manager")
    net.backend.publish_terminal(other.task, "failed")
    assert (await other.set_up())["error"]["code"] == "FailedPrecondition"


async def test_stream_lifetime_can_be_set(net: DevNetwork, scenes: Any) -> None:
    net.set_token_ttl("stream", 0.0)
    scene = await scenes()
    reply = (await scene.set_up())["streamSetupResponse"]
    async with Peer(net, token=reply["token"]) as writer:
        assert (await writer.publish(reply["channel"], 1))[1]["message"] == "Token is expired."
