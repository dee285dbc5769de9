"""Tasks: parameters, routing by presence, backlog, commands, deadlines, safety net, files, environments."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from device_agent.testing.network import DevNetwork, Settings
from device_agent.testing.network.tasks import Task
from support.network_peer import Api, Peer, join, state
from support.official_provider import make_card

REQUEST = {"partId": "request", "text": "{}"}


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork(settings=Settings(safety_grace_s=0.05)) as found:
        found.register("x")
        yield found


@pytest.fixture
async def device(net: DevNetwork) -> AsyncIterator[Api]:
    async with Api(net) as found:
        yield found


@pytest.fixture
async def caller(net: DevNetwork) -> AsyncIterator[Api]:
    async with Api(net, "bk_alice") as found:
        await found.log_in()
        yield found


def control(net: DevNetwork, agent: str = "x") -> list[tuple[Any, Any]]:
    """Body and meta of what went over the control channel."""
    return [(r.body, r.meta) for r in net.publishes(net.agent(agent).control_channel)]


async def running(net: DevNetwork, task: Task, instance: str = "AG-1") -> Peer:
    """Say "running" as the instance would; a peer with the task's write token."""
    token = next(
        b["writeToken"]
        for b, _ in reversed(control(net, task.agent.name))
        if b["type"] == "StartTask" and b["taskId"] == task.task_id
    )
    peer = Peer(net, uuid=instance, token=token, environment=task.environment)
    event = {"type": "progress", "taskId": task.task_id, "progress": 0, "state": "running"}
    assert (await peer.publish(task.channel, event))[0] == 200
    return peer


async def test_start_message_is_complete(net: DevNetwork, device: Api, caller: Api) -> None:
    async with await join(net, device, "x"):
        result = await caller.send(
            "x", REQUEST, blocks={"taskKind": "pipe", "duration": 5, "consumerPublicKey": "pk"}, ownerId="me"
        )
        ((message, meta),) = control(net)
        task = net.task(result["taskId"])
        assert meta == {"instance": "AG-1"}
        assert message["type"] == "StartTask"
        assert (message["ownerId"], message["orgId"], message["taskKind"]) == ("me", "org_alice", "pipe")
        assert (message["duration"], message["hasStream"], message["consumerPublicKey"]) == (5, True, "pk")
        assert abs(message["durationExpiresAtMs"] / 1000 - time.time() - 300) < 5
        assert message["callerClaims"]["sub"] == "user_alice"
        assert message["requestParts"] == [REQUEST]
        for name, kind in (("writeToken", "write"), ("controlToken", "control")):
            grant = net.tokens.find(message[name])
            assert grant is not None
            assert grant.kind == kind
        assert (result["state"], result["queued"], result["idempotent"]) == ("pending", False, False)
        assert result["extensions"]["blocks"]["streamChannels"] == {"status": task.channel}
        assert "subscribeKey" not in result["extensions"]["blocks"]


@pytest.mark.parametrize(
    ("params", "blocks", "code"),
    [
        ({"agentName": "nobody"}, {}, "AgentNotFound"),
        ({"billingMode": "paid"}, {}, "BillingModeMismatch"),
        ({"billingMode": None}, {}, "InvalidParams"),
        ({}, {"taskKind": "pipe"}, "InvalidParams"),
        ({}, {"taskKind": "pipe", "duration": 0}, "InvalidParams"),
        ({}, {"taskKind": "pipe", "duration": 43_201}, "InvalidParams"),
        ({}, {"taskKind": "pipe", "duration": 1.5}, "InvalidParams"),
        ({}, {"duration": 5}, "InvalidParams"),
        ({}, {"taskKind": "dance"}, "InvalidParams"),
        ({}, {"stream": "yes"}, "InvalidParams"),
        ({"requestParts": "text"}, {}, "InvalidParams"),
        ({"requestParts": [{"partId": "nope", "text": ""}]}, {}, "InvalidParams"),
        ({"requestParts": []}, {}, "InvalidParams"),
        ({"requestParts": [{**REQUEST, "artifactRef": {}}]}, {}, "InvalidParams"),
        ({"uploadSessionId": "ups_no"}, {}, "InvalidParams"),
        ({"idempotencyKey": 5}, {}, "InvalidParams"),
    ],
)
async def test_parameters_that_are_refused(
    net: DevNetwork, caller: Api, params: dict[str, Any], blocks: dict[str, Any], code: str
) -> None:
    net.register("x", make_card("x", 1))
    good = {"agentName": "x", "billingMode": "free", "requestParts": [REQUEST]}
    answer = await caller.rpc("SendMessage", **{**good, **params, "extensions": {"blocks": blocks}})
    assert answer["error"]["data"]["code"] == code
    assert answer["error"]["message"]


async def test_goes_to_the_least_loaded_live_instance(net: DevNetwork, device: Api, caller: Api) -> None:
    first = await join(net, device, "x", "AG-1", concurrency=4)
    second = await join(net, device, "x", "AG-2", concurrency=4)
    channel = net.agent("x").control_channel
    await state(first, channel, 2, 4)
    await state(second, channel, 1, 4)
    for _ in range(3):
        await caller.send("x", REQUEST)
    assert [m["instance"] for _, m in control(net)] == ["AG-2", "AG-1", "AG-2"]
    await second.presence(channel, "leave")
    await caller.send("x", REQUEST)
    assert control(net)[-1][1] == {"instance": "AG-1"}
    await first.presence(channel, "heartbeat", heartbeat=1)
    await net.wait_for(lambda: not net.backend.candidates(net.agent("x")))
    assert (await caller.send("x", REQUEST))["queued"] is True
    for peer in (first, second):
        await peer.__aexit__(None, None, None)


async def test_backlog_is_served_when_there_is_room(net: DevNetwork, device: Api, caller: Api) -> None:
    async with await join(net, device, "x", maxPendingBacklog=2) as instance:
        first = net.task((await caller.send("x", REQUEST))["taskId"])
        waiting = [net.task((await caller.send("x", REQUEST))["taskId"]) for _ in range(2)]
        assert [t.queued for t in (first, *waiting)] == [False, True, True]
        refused = await caller.rpc(
            "SendMessage", agentName="x", billingMode="free", requestParts=[REQUEST], extensions={}
        )
        assert refused["error"]["data"]["code"] == "BacklogFull"
        await state(instance, net.agent("x").control_channel, 1)
        async with await running(net, first) as peer:
            await peer.publish(
                first.channel, {"type": "terminal", "taskId": first.task_id, "state": "completed"}
            )
        assert waiting[0].queued is True
        await state(instance, net.agent("x").control_channel, 0)
        assert [t.queued for t in waiting] == [False, True]
        await caller.rpc("CancelTask", taskId=waiting[1].task_id)
        assert waiting[1].state == "canceled"


async def test_broadcast_goes_to_all_and_belongs_to_who_starts(
    net: DevNetwork, device: Api, caller: Api
) -> None:
    for name in ("AG-1", "AG-2"):
        async with await join(net, device, "x", name, expectedInstances=0):
            pass
    task = net.task((await caller.send("x", REQUEST))["taskId"])
    assert control(net)[-1][1] == {"broadcast": "true"}
    async with await running(net, task, "AG-2"):
        await caller.rpc("CancelTask", taskId=task.task_id)
    assert control(net)[-1][1] == {"instance": "AG-2"}


async def test_cancel_says_so_and_the_safety_net_closes(net: DevNetwork, device: Api, caller: Api) -> None:
    async with await join(net, device, "x"):
        task = net.task((await caller.send("x", REQUEST))["taskId"])
        answer = await caller.rpc("CancelTask", taskId=task.task_id)
        assert answer["result"] == {"taskId": task.task_id, "state": "pending"}
        assert control(net)[-1][0]["type"] == "CancelTask"
        await net.wait_task(task.task_id)
        kinds = [r.body["type"] for r in net.publishes(task.channel)]
        assert (kinds, task.state) == (["cancel_requested", "terminal"], "canceled")


@pytest.mark.parametrize(
    ("method", "blocks", "expected"),
    [
        ("TerminateTask", {}, {"state": "canceled", "reason": "terminated"}),
        (
            "expire",
            {"taskKind": "pipe", "duration": 5},
            {"state": "completed", "completionReason": "duration_expired"},
        ),
        ("expire", {}, {"state": "failed", "reason": "timeout"}),
    ],
)
async def test_ends_by_the_safety_net(
    net: DevNetwork, device: Api, caller: Api, method: str, blocks: Any, expected: dict[str, str]
) -> None:
    async with await join(net, device, "x"):
        task = net.task((await caller.send("x", REQUEST, blocks=blocks))["taskId"])
        if method == "expire":
            net.expire_task(task.task_id)
        else:
            await caller.rpc(method, taskId=task.task_id)
        assert control(net)[-1][0]["type"] == ("ExpireTask" if method == "expire" else method)
        await net.wait_task(task.task_id)
        assert expected.items() <= task.terminals[-1].items()


async def test_deadline_comes_by_itself(net: DevNetwork, device: Api, caller: Api) -> None:
    net.settings.minute_s = 0.05
    async with await join(net, device, "x"):
        task = net.task(
            (await caller.send("x", REQUEST, blocks={"taskKind": "pipe", "duration": 1}))["taskId"]
        )
        await net.wait_task(task.task_id)
        assert [b["type"] for b, _ in control(net)] == ["StartTask", "ExpireTask"]


async def test_first_terminal_counts_and_commands_pass(net: DevNetwork, device: Api, caller: Api) -> None:
    async with await join(net, device, "x"):
        task = net.task((await caller.send("x", REQUEST))["taskId"])
        for method in ("PauseTask", "ResumeTask", "RetryTask"):
            await caller.rpc(method, taskId=task.task_id)
        assert [b["type"] for b, _ in control(net)[1:]] == ["PauseTask", "ResumeTask", "RetryTask"]
        async with await running(net, task) as peer:
            assert (await caller.rpc("GetTask", taskId=task.task_id))["result"]["task"]["state"] == "running"
            for end in ("failed", "completed"):
                event = {"type": "terminal", "taskId": task.task_id, "state": end}
                await peer.publish(task.channel, event)
        assert (task.state, len(task.terminals)) == ("failed", 2)
        assert (await caller.rpc("CancelTask", taskId=task.task_id))["result"]["state"] == "failed"
        assert (await caller.rpc("ListTasks", state="failed"))["result"]["totalCount"] == 1


async def test_tasks_belong_to_their_caller(net: DevNetwork, device: Api, caller: Api) -> None:
    async with await join(net, device, "x"), Api(net, "bk_bob") as bob:
        await bob.log_in()
        task_id = (await caller.send("x", REQUEST))["taskId"]
        assert (await bob.rpc("GetTask", taskId=task_id))["error"]["data"]["code"] == "TaskNotFound"
        for api, role, status in (
            (caller, "consumer", 200),
            (bob, "consumer", 404),
            (device, "provider", 200),
        ):
            body = {"taskId": task_id, "role": role}
            assert (await api.ask("POST", "/api/v1/auth/task-read-token", body))[0] == status
        assert (await caller.ask("POST", "/api/v1/rpc", {"method": "GetTask"}, ""))[1]["error"]
        anonymous = "/api/v1/auth/anon-task-read-token"
        shown = {"taskId": task_id, "fingerprint": "f"}
        assert (await caller.ask("POST", anonymous, shown, ""))[0] == 403
        net.set_fingerprint(task_id, "f")
        assert (await caller.ask("POST", anonymous, shown, ""))[1]["channel"] == net.task(task_id).channel
        assert (await caller.ask("POST", "/api/v1/rpc", {"method": "ListTasks"}, "bad"))[0] == 401
        assert (await caller.rpc("Dance"))["error"]["code"] == -32601


async def test_forced_offline_fails_what_runs_and_refuses_more(
    net: DevNetwork, device: Api, caller: Api
) -> None:
    async with await join(net, device, "x"):
        task = net.task((await caller.send("x", REQUEST))["taskId"])
        net.force_offline("x")
        assert task.state == "failed"
        answer = await caller.rpc("SendMessage", agentName="x", billingMode="free", requestParts=[REQUEST])
        assert answer["error"]["data"]["code"] == "AGENT_FORCED_OFFLINE"


async def test_switch_environment_moves_the_agent(net: DevNetwork, device: Api, caller: Api) -> None:
    async with await join(net, device, "x"):
        net.switch_environment("x", "network")
        message, meta = control(net)[-1]
        assert (message["type"], message["environment"], meta) == (
            "SwitchEnvironment",
            "network",
            {"broadcast": "true"},
        )
        channel = net.agent("x").control_channel
        async with Peer(net, uuid="AG-1", token=message["pamToken"], environment="network") as moved:
            await state(moved, channel, 0)
            result = await caller.send("x", REQUEST)
            assert result["extensions"]["blocks"]["subscribeKey"] == moved.subscribe_key
            _, (start,) = await moved.subscribe(channel, tt=1000)
            assert start["d"]["type"] == "StartTask"


async def test_raw_control_messages_and_a_second_start(net: DevNetwork, device: Api, caller: Api) -> None:
    async with await join(net, device, "x"):
        net.send_control("x", {"type": "Strange"}, meta={"instance": "AG-9", "more": 1})
        net.send_control("x", {"type": "Plain"}, instance_id="AG-1")
        assert [m for _, m in control(net)] == [{"instance": "AG-9", "more": 1}, {"instance": "AG-1"}]
        task_id = (await caller.send("x", REQUEST))["taskId"]
        net.resend_start(task_id)
        first, second = (b for b, _ in control(net)[2:])
        assert first["writeToken"] != second["writeToken"]
        assert {**first, "writeToken": 0, "controlToken": 0} == {**second, "writeToken": 0, "controlToken": 0}


async def test_file_uploads_from_both_sides(net: DevNetwork, device: Api, caller: Api) -> None:
    net.register("x", make_card("x", 1))

    async def upload(api: Api, data: bytes, **body: Any) -> dict[str, Any]:
        ask = {"fileName": "a b.bin", "fileSize": len(data), "mimeType": "application/octet-stream", **body}
        status, answer = await api.ask("POST", "/api/v1/files/request-upload", ask)
        assert status == 200, answer
        form = aiohttp.FormData()
        for field in answer["formFields"]:
            form.add_field(field["key"], field["value"])
        form.add_field("file", data, filename="a b.bin", content_type="application/octet-stream")
        async with aiohttp.ClientSession() as session, session.post(answer["uploadUrl"], data=form) as done:
            assert done.status == 204
        status, confirmed = await api.ask(
            "POST", "/api/v1/files/confirm-upload", {"uploadId": answer["uploadId"]}
        )
        assert status == 200, confirmed
        return {**answer, **confirmed}

    async with await join(net, device, "x"):
        sent = await upload(caller, b"in" * 9000, role="consumer-input", agentName="x", partId="file")
        parts = (REQUEST, {"partId": "file", "contentType": "application/octet-stream"})
        task = net.task((await caller.send("x", *parts, uploadSessionId=sent["uploadSessionId"]))["taskId"])
        ref = task.parts[1]["artifactRef"]
        assert (ref["kind"], ref["size"], ref["channel"]) == ("file", 18_000, task.channel)
        out = await upload(
            device, b"out" * 9000, role="provider-output", taskId=task.task_id, outputId="result"
        )
        event = net.publishes(task.channel)[-1]
        assert (event.body["artifactRef"], event.body["outputId"]) == (out["artifactRef"], "result")
        assert event.stored
        async with await running(net, task) as peer:
            path = f"/v1/files/{peer.subscribe_key}/channels/{task.channel}/files/{ref['fileId']}/a%20b.bin"
            status, headers = await peer.ask("GET", path)
            assert status == 307
            async with aiohttp.ClientSession() as session, session.get(headers["Location"]) as got:
                assert await got.read() == b"in" * 9000
            assert (await peer.ask("GET", path.replace(ref["fileId"], "other")))[0] == 404
        for body, status in (
            ({"role": "provider-output", "taskId": "no"}, 404),
            ({"role": "thief"}, 400),
            ({"role": "consumer-input", "agentName": "x"}, 400),
            ({"role": "consumer-input", "agentName": "x", "partId": "file", "fileSize": 2_000_000}, 413),
            ({"role": "consumer-input", "uploadSessionId": "no", "partId": "file"}, 404),
        ):
            ask = {"fileName": "f", "fileSize": 1, "mimeType": "text/plain", **body}
            assert (await caller.ask("POST", "/api/v1/files/request-upload", ask))[0] == status
        assert (await caller.ask("POST", "/api/v1/files/confirm-upload", {"uploadId": "no"}))[0] == 404


async def test_state_alone_is_no_presence_and_a_waiting_task_starts_with_it(
    net: DevNetwork, device: Api, caller: Api
) -> None:
    answer = await device.connect("x", "AG-1")
    async with Peer(net, uuid="AG-1", token=answer["pamToken"]) as instance:
        await state(instance, answer["controlChannel"], 0, 1)
        task = net.task((await caller.send("x", REQUEST))["taskId"])
        assert task.queued is True
        cursor, _ = await instance.subscribe(answer["controlChannel"], heartbeat=20)
        assert task.queued is False
        _, (start,) = await instance.subscribe(answer["controlChannel"], tt=cursor)
        assert start["d"]["taskId"] == task.task_id
        assert net.presence()[answer["controlChannel"]][0]["state"]["concurrency"] == 1
