"""The official SDK on both sides: pipe tasks, their streams and their ends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.official_provider import LIMIT_S, Provider, StartProvider, ask


def pipe(client: Any, provider: Provider, **request: Any) -> Any:
    return ask(client, provider, request, task_kind="pipe", duration=5)


def test_outbound_events_until_cancelled(worker: Provider, client: Any) -> None:
    session = pipe(client, worker, op="pipe", stream="events")
    events = session.wait_for_stream("events", timeout=LIMIT_S).open().events()
    assert [e["n"] for e in itertools.islice(events, 20)] == list(range(20))
    session.cancel()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"


def test_outbound_bytes(worker: Provider, client: Any) -> None:
    session = pipe(client, worker, op="bytes", stream="raw", chunks=20)
    stream = session.wait_for_stream("raw", timeout=LIMIT_S).open()
    assert b"".join(stream.bytes()) == b"".join(bytes([n]) * 1000 for n in range(20))
    session.terminate()
    session.wait_for_terminal(LIMIT_S)


def test_inbound_bytes(net: NetworkThread, worker: Provider, client: Any) -> None:
    session = pipe(client, worker, op="listen", stream="upload")
    stream = session.wait_for_stream("upload", timeout=LIMIT_S).open()
    stream.write(b"abc" * 100)
    stream.end()
    channel = net.net.task(session.task_id).channel
    heard = net.run(
        net.net.wait_for(
            lambda: [r.body for r in net.net.publishes(channel) if r.body["type"] == "artifact"], LIMIT_S
        )
    )
    assert heard[0]["artifactRef"]["fileName"] == "heard.txt"
    assert heard[0]["artifactRef"]["size"] == 400
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_bidirectional_events_do_not_echo(worker: Provider, client: Any) -> None:
    session = pipe(client, worker, op="answer", stream="talk")
    stream = session.wait_for_stream("talk", timeout=LIMIT_S).open()
    replies = stream.events()
    for n in range(3):
        stream.write({"n": n})
        assert next(replies) == {"got": {"n": n}}
    stream.write({"stop": True})
    assert next(replies) == {"got": {"stop": True}}
    session.terminate()
    assert session.wait_for_terminal(LIMIT_S)["reason"] == "terminated"


def test_two_callers_share_one_stream(net: NetworkThread, worker: Provider, client: Any) -> None:
    from blocks_network import TaskClient

    with TaskClient.create(billing_mode="free", api_key="bk_bob") as other:
        first = pipe(client, worker, op="attach", stream="shared", writes=True)
        one = first.wait_for_stream("shared", timeout=LIMIT_S)
        events_of_one = one.open().events()
        next(events_of_one)
        second = pipe(other, worker, op="attach", stream="shared", writes=False)
        two = second.wait_for_stream("shared", timeout=LIMIT_S)
        assert one.descriptor.channel == two.descriptor.channel == "stream.worker.shared"
        assert one.descriptor.token != two.descriptor.token
        assert (net.net.task(first.task_id).org_id, net.net.task(second.task_id).org_id) == (
            "org_alice",
            "org_bob",
        )
        events_of_two = two.open().events()
        seen = [e["n"] for e in itertools.islice(events_of_two, 5)]
        assert seen == list(range(seen[0], seen[0] + 5))
        setups = [
            r.body["phase"]
            for task in (first, second)
            for r in net.net.publishes(
                net.net.task(task.task_id).channel.replace("u.", "setup.", 1), refused=True
            )
        ]
        assert setups == ["embedded", "activate"]
        for session in (second, first):
            session.terminate()
            net.run(net.net.wait_task(session.task_id, "canceled", LIMIT_S))
            session.close()


def test_expiry_completes_a_pipe(net: NetworkThread, worker: Provider, client: Any) -> None:
    session = pipe(client, worker, op="pipe", stream="events")
    net.run(net.net.wait_task(session.task_id, "running", LIMIT_S))
    net.call(net.net.expire_task, session.task_id)
    terminal = session.wait_for_terminal(LIMIT_S)
    assert (terminal["state"], terminal["completionReason"]) == ("completed", "duration_expired")


def test_terminate_says_so(worker: Provider, client: Any) -> None:
    session = pipe(client, worker, op="pipe", stream="events")
    session.wait_for_stream("events", timeout=LIMIT_S)
    session.terminate()
    terminal = session.wait_for_terminal(LIMIT_S)
    assert (terminal["state"], terminal["reason"]) == ("canceled", "terminated")


def test_backend_closes_what_a_dead_provider_leaves(
    net: NetworkThread, start_provider: StartProvider, client: Any
) -> None:
    mortal = start_provider("mortal")
    session = pipe(client, mortal, op="pipe", stream="events")
    net.run(net.net.wait_task(session.task_id, "running", LIMIT_S))
    mortal.stop()
    session.cancel()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"
    assert net.net.publishes(net.net.task(session.task_id).channel)[-1].token_kind == "backend"


def test_stream_token_of_the_caller_ends_after_the_task(
    net: NetworkThread, worker: Provider, client: Any
) -> None:
    net.net.settings.stream_revoke_delay_s = 0.0
    try:
        session = pipe(client, worker, op="pipe", stream="events")
        ref = session.wait_for_stream("events", timeout=LIMIT_S)
        net.net.tokens.check(ref.descriptor.token, "playground", [ref.descriptor.channel], 3)
        session.cancel()
        session.wait_for_terminal(LIMIT_S)
        grant = net.net.tokens.find(ref.descriptor.token)
        assert grant is not None
        net.run(net.net.wait_for(lambda: grant.revoked, LIMIT_S))
    finally:
        net.net.settings.stream_revoke_delay_s = 5.0


def test_control_token_expiry_deafens_the_official_runtime(
    net: NetworkThread, start_provider: StartProvider, client: Any
) -> None:
    """Weakness W6: the stand-in answers 403 from then on, and the runtime leaves for good."""
    idle = start_provider("idle")
    agent = net.net.agent("idle")
    assert net.call(net.net.revoke_tokens, "control", next(iter(agent.instances))) >= 1
    net.run(
        net.net.wait_for(
            lambda: any(r.status == 403 and agent.control_channel in r.path for r in net.net.requests()),
            LIMIT_S,
        )
    )
    session = ask(client, idle, {"op": "echo", "text": "anybody?"})
    with pytest.raises(TimeoutError):
        session.wait_for_terminal(0.5)
    session.close()
