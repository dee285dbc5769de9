"""The official SDK on both sides: request tasks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.official_provider import LIMIT_S, Provider, StartProvider, ask, result


def test_inline_artifact_comes_back(net: NetworkThread, worker: Provider, client: Any) -> None:
    session = ask(client, worker, {"op": "echo", "text": "hello"})
    assert result(session) == {"echo": "hello"}
    task = net.net.task(session.task_id)
    assert task.state == "completed"
    kinds = [r.body["type"] for r in net.net.publishes(task.channel)]
    assert kinds == ["progress", "artifact", "terminal"]
    assert {r.token_kind for r in net.net.publishes(task.channel)} == {"write"}


def test_large_artifact_is_uploaded_and_downloaded(net: NetworkThread, worker: Provider, client: Any) -> None:
    session = ask(client, worker, {"op": "large", "size": 70_000})
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"
    reopened = client.connect(session.task_id)
    (artifact,) = reopened.list_artifacts()
    assert (artifact.kind, artifact.size) == ("file", 70_000)
    downloaded = reopened.download_artifact(artifact)
    assert downloaded.data == bytes(i % 251 for i in range(70_000))
    assert downloaded.file_name == "large.bin"
    events = net.net.publishes(net.net.task(session.task_id).channel)
    assert [r.token_kind for r in events if r.body["type"] == "artifact"] == ["backend"]
    reopened.close()


def test_file_input_small_and_large(worker: Provider, client: Any) -> None:
    for data in (b"small" * 10, b"large" * 10_000):
        part = {
            "partId": "file",
            "contentType": "application/octet-stream",
            "file": data,
            "fileName": "a.bin",
        }
        session = ask(client, worker, {"op": "file"}, part)
        assert result(session) == {"size": len(data), "sum": sum(data)}


def test_streaming_request(worker: Provider, client: Any) -> None:
    session = ask(client, worker, {"op": "count", "stream": "events", "events": 50}, stream=True)
    stream = session.wait_for_stream("events", timeout=LIMIT_S).open()
    assert [e["n"] for e in stream.events()] == list(range(50))
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"


def test_a_request_that_did_not_ask_has_no_stream(worker: Provider, client: Any) -> None:
    session = ask(client, worker, {"op": "count", "stream": "events", "events": 1})
    terminal = session.wait_for_terminal(LIMIT_S)
    assert terminal["state"] == "failed"


def test_multipart_messages(net: NetworkThread, worker: Provider, client: Any) -> None:
    request = {"op": "count", "stream": "events", "events": 3, "pad": 40_000}
    session = ask(client, worker, request, stream=True)
    ref = session.wait_for_stream("events", timeout=LIMIT_S)
    got = list(ref.open().events())
    assert [(e["n"], len(e["pad"])) for e in got] == [(n, 40_000) for n in range(3)]
    parts = [r.body for r in net.net.publishes(ref.descriptor.channel)]
    assert any("multipart" in p for p in parts)
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"


def test_connect_to_an_existing_task(worker: Provider, client: Any) -> None:
    session = ask(client, worker, {"op": "echo", "text": "again"})
    session.wait_for_terminal(LIMIT_S)
    reopened = client.connect(session.task_id)
    assert reopened.state == "completed"
    assert result(reopened) == {"echo": "again"}
    assert [e.type for e in reopened.list_events()] == ["progress", "artifact", "terminal"]
    reopened.close()


def test_idempotency_key(worker: Provider, client: Any) -> None:
    first = ask(client, worker, {"op": "echo", "text": "once"}, idempotency_key="k1")
    first.wait_for_terminal(LIMIT_S)
    second = ask(client, worker, {"op": "echo", "text": "once"}, idempotency_key="k1")
    assert (second.task_id, second.idempotent, second.state) == (first.task_id, True, "completed")


def test_cancel_is_acknowledged_and_ends_the_task(worker: Provider, client: Any) -> None:
    session = ask(client, worker, {"op": "wait"})
    asked = threading.Event()
    session.on_cancel_requested(lambda event: asked.set())
    session.cancel()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"
    assert asked.wait(LIMIT_S)


def test_full_agent_queues_and_serves_in_order(
    net: NetworkThread, start_provider: StartProvider, client: Any
) -> None:
    narrow = start_provider("narrow", concurrency=1, maxPendingBacklog=2)
    running = ask(client, narrow, {"op": "wait"})
    net.run(net.net.wait_task(running.task_id, "running", LIMIT_S))
    waiting = [ask(client, narrow, {"op": "echo", "text": t}) for t in ("a", "b")]
    assert [s.queued for s in (running, *waiting)] == [False, True, True]
    with pytest.raises(Exception, match="2 tasks wait for agent narrow"):
        ask(client, narrow, {"op": "echo", "text": "c"})
    running.cancel()
    for session in waiting:
        net.run(net.net.wait_task(session.task_id, "completed", LIMIT_S))
        session.close()
    started = [r.body for r in net.net.publishes(net.net.agent("narrow").control_channel)]
    assert [m["taskId"] for m in started if m["type"] == "StartTask"] == [
        s.task_id for s in (running, *waiting)
    ]


def test_wrong_part_and_wrong_billing_mode_are_rejected(worker: Provider, client: Any) -> None:
    from blocks_network import TaskClient
    from blocks_network.rpc_client import BillingModeMismatchError, RpcError

    with pytest.raises(RpcError, match="has no input unknown"):
        ask(client, worker, {"op": "echo", "text": ""}, {"partId": "unknown", "text": "x"})
    with (
        TaskClient.create(billing_mode="paid", api_key="bk_alice") as paid,
        pytest.raises(BillingModeMismatchError) as caught,
    ):
        ask(paid, worker, {"op": "echo", "text": ""})
    assert (caught.value.expected, caught.value.got) == ("free", "paid")


def test_list_and_card(worker: Provider, client: Any) -> None:
    from blocks_network.task_client import ListTasksParams

    session = ask(client, worker, {"op": "echo", "text": "listed"})
    session.wait_for_terminal(LIMIT_S)
    listed = client.list_tasks(ListTasksParams(agent_name="worker", limit=1))
    assert [t.task_id for t in listed.tasks] == [session.task_id]
    assert client.get_agent_card("worker")["identity"]["agentName"] == "worker"
    assert client.get_agent_card("nobody") is None
