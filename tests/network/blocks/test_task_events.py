"""The events of a task: in order, until they are accepted, and not before the caller listens."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from device_agent.errors import Refused
from device_agent.network import Caller, StartTask
from device_agent.network.blocks import task_events as module
from device_agent.network.blocks.clients import TaskClients
from device_agent.network.blocks.task_events import EARLY_TERMINAL_S, QUEUE_MAX, SETTLE_S, TaskEvents
from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock
from support.fake_pubsub import REFUSED, TOKEN_REFUSED, UNREACHABLE, FakePubSub

START = StartTask("t1", "request", Caller("org", "alice"), "org")


@pytest.fixture
def own() -> FakePubSub:
    return FakePubSub(token="write")


@pytest.fixture
def control() -> FakePubSub:
    return FakePubSub(token="control")


@pytest.fixture
def events(
    own: FakePubSub, control: FakePubSub, connectivity: Connectivity, clock: SteppedClock
) -> TaskEvents:
    """The events of a task that began long ago: callers listen."""
    clients = TaskClients(own, control)  # type: ignore[arg-type]
    made = TaskEvents("greenhouse", START, clients, connectivity, clock)
    clock.step(EARLY_TERMINAL_S + 1)
    return made


@asynccontextmanager
async def running(events: TaskEvents) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(events.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ended(events: TaskEvents) -> None:
    async with running(events) as task:
        await asyncio.wait_for(task, 10)


def sent(client: FakePubSub) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in client.published]


def types(client: FakePubSub) -> list[str]:
    return [event["type"] for event in sent(client)]


async def test_events_go_out_in_order_on_the_channel_of_the_task(events: TaskEvents, own: FakePubSub):
    events.running()
    events.system("paused")
    events.terminal("completed", reason="done")
    await ended(events)
    assert types(own) == ["progress", "system", "terminal"]
    assert {channel for channel, _ in own.published} == {"u.org.t1"}
    assert sent(own)[-1] == {
        "type": "terminal",
        "taskId": "t1",
        "protocolVersion": "2026-05-01",
        "state": "completed",
        "reason": "done",
    }


async def test_only_the_first_terminal_counts_and_nothing_follows_it(events: TaskEvents, own: FakePubSub):
    events.terminal("failed", error="first")
    events.terminal("completed")
    events.progress("too late")
    await ended(events)
    assert [event.get("error") for event in sent(own)] == ["first"]


@pytest.mark.parametrize("failure", [UNREACHABLE, REFUSED])
async def test_an_event_is_repeated_until_it_is_accepted(
    events: TaskEvents, own: FakePubSub, failure: Exception
):
    own.answers.extend([failure] * 3)
    events.running()
    events.terminal("completed")
    await ended(events)
    assert types(own) == ["progress", "terminal"]
    assert len(own.tokens) == 5


async def test_the_control_token_serves_in_place_of_a_refused_write_token(
    events: TaskEvents, own: FakePubSub, control: FakePubSub
):
    own.answers.append(TOKEN_REFUSED)
    events.running()
    events.terminal("completed")
    await ended(events)
    assert (types(own), types(control)) == ([], ["progress", "terminal"])


async def test_no_token_is_given_up(events: TaskEvents, own: FakePubSub, control: FakePubSub):
    own.answers.append(TOKEN_REFUSED)
    control.answers.extend([TOKEN_REFUSED] * 2)
    events.terminal("completed")
    await ended(events)
    assert (types(own), types(control)) == (["terminal"], [])


async def test_an_event_that_is_always_refused_is_given_up_and_the_next_goes_out(
    events: TaskEvents, own: FakePubSub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 3)
    own.answers.extend([REFUSED, UNREACHABLE, REFUSED, REFUSED])
    events.system("paused")
    events.terminal("completed")
    await ended(events)
    assert types(own) == ["terminal"]


async def test_an_artifact_returns_when_the_network_has_it(events: TaskEvents, own: FakePubSub):
    own.answers.append(UNREACHABLE)
    async with running(events):
        await asyncio.wait_for(events.artifact(b"\x00\x01", "image/png", "o1", "a.png"), 10)
    assert sent(own)[0]["artifactRef"] == {
        "kind": "inline",
        "mimeType": "image/png",
        "size": 2,
        "data": "AAE=",
        "fileName": "a.png",
    }


async def test_too_many_events_are_refused_but_never_the_terminal(events: TaskEvents, own: FakePubSub):
    for _ in range(QUEUE_MAX):
        events.system("paused")
    with pytest.raises(Refused):
        events.system("resumed")
    events.terminal("failed")
    await ended(events)
    assert len(own.published) == QUEUE_MAX + 1


async def test_of_progress_sentences_the_newest_goes_out_once_a_second(
    events: TaskEvents, own: FakePubSub, monkeypatch: pytest.MonkeyPatch
):
    async with running(events):
        events.progress("one")
        await own.until(lambda: len(own.published) == 1)
        events.progress("two")
        events.progress("three")
        await asyncio.sleep(0.02)
        assert len(own.published) == 1
    monkeypatch.setattr(module, "PROGRESS_INTERVAL_S", 0.0)
    async with running(events):
        await own.until(lambda: len(own.published) == 2)
    assert [event["message"] for event in sent(own)] == ["one", "three"]


async def test_running_goes_out_at_once_and_the_rest_when_the_caller_listens(
    own: FakePubSub,
    control: FakePubSub,
    connectivity: Connectivity,
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
):
    waits: list[float] = []
    sleep = asyncio.sleep

    async def stepped(seconds: float) -> None:
        if seconds >= SETTLE_S / 2:
            waits.append(seconds)
            clock.step(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", stepped)
    clients = TaskClients(own, control)  # type: ignore[arg-type]
    events = TaskEvents("greenhouse", START, clients, connectivity, clock)
    events.running()
    events.terminal("completed")
    await ended(events)
    assert types(own) == ["progress", "terminal", "terminal"], "an early terminal is sent again"
    assert waits == [SETTLE_S, EARLY_TERMINAL_S - SETTLE_S]


async def test_the_representation_tells_what_waits(events: TaskEvents):
    events.running()
    events.terminal("completed")
    assert repr(events) == "<TaskEvents of t1: 2 queued, ended>"
