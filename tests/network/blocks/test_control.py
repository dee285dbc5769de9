"""The control channel: what it hands over, when it is present, and how it goes on after a loss."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_agent.network.blocks import control as module
from device_agent.network.blocks.control import SEEN_MAX, ControlChannel
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.long_poll import Delivery
from device_agent.network.connectivity import Connectivity
from support.fake_pubsub import REFUSED, TOKEN_REFUSED, UNREACHABLE, FakePubSub, batch, delivery


class Owner:
    """A `ControlOwner` that notes what it is asked."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.tokens_refused = 0
        self.listening = 0
        self.may_remember = asyncio.Event()
        self.may_remember.set()
        self.state: dict[str, Any] = {"activeTasks": 0}

    def presence(self) -> Mapping[str, Any]:
        return dict(self.state)

    def on_control_message(self, delivery: Delivery) -> None:
        self.messages.append(delivery.payload)

    async def remembered(self) -> None:
        await self.may_remember.wait()

    def on_token_refused(self, why: str) -> None:
        self.tokens_refused += 1

    def on_listening(self) -> None:
        self.listening += 1


@pytest.fixture
def file(tmp_path: Path) -> IdentityFile:
    made = IdentityFile(tmp_path / "identity.json", "x")
    made.identity.control_channel = "x.control"
    return made


@pytest.fixture
def client() -> FakePubSub:
    return FakePubSub()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture(autouse=True)
def no_coalescing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COALESCE_S", 0.001)


@pytest.fixture
def clients(client: FakePubSub) -> SimpleNamespace:
    return SimpleNamespace(ready=True, control=client)


@pytest.fixture
def channel(
    file: IdentityFile, clients: SimpleNamespace, connectivity: Connectivity, owner: Owner
) -> ControlChannel:
    return ControlChannel(file, clients, connectivity, owner)  # type: ignore[arg-type]


@asynccontextmanager
async def running(*loops: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(loop()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks), "it ended by itself"


def begun(client: FakePubSub, polls: int) -> Any:
    return client.until(lambda: len(client.polls) >= polls)


async def test_it_starts_at_the_end_of_a_new_channel(
    channel: ControlChannel, client: FakePubSub, owner: Owner, file: IdentityFile
):
    async with running(channel.receive):
        await begun(client, 2)
        assert [timetoken for timetoken, _ in client.polls] == ["0", "100"]
        assert (owner.listening, file.identity.control_timetoken) == (1, "100")
        assert repr(channel) == "<ControlChannel x.control listening>"


async def test_it_goes_on_where_an_earlier_process_stopped(
    client: FakePubSub,
    file: IdentityFile,
    clients: SimpleNamespace,
    connectivity: Connectivity,
    owner: Owner,
):
    file.identity.control_timetoken = "42"
    channel = ControlChannel(file, clients, connectivity, owner)  # type: ignore[arg-type]
    async with running(channel.receive):
        await begun(client, 2)
        assert client.polls[1][0] == "42"
        assert f"meta.instance == '{file.identity.instance_id}'" in client.polls[1][1]


async def test_messages_are_handed_over_once(channel: ControlChannel, client: FakePubSub, owner: Owner):
    async with running(channel.receive):
        client.batches.put_nowait(batch(101, delivery("a", 1), delivery("b", 2), delivery("a", 1)))
        client.batches.put_nowait(batch(102, delivery("b", 2), delivery("c", 3)))
        await begun(client, 4)
        assert owner.messages == ["a", "b", "c"]
        assert client.polls[-1][0] == "102"


async def test_what_was_handed_over_long_ago_is_forgotten(
    channel: ControlChannel, client: FakePubSub, owner: Owner
):
    async with running(channel.receive):
        many = [delivery(n, n) for n in range(SEEN_MAX + 1)]
        client.batches.put_nowait(batch(101, *many))
        client.batches.put_nowait(batch(102, many[-1], many[0]))
        await begun(client, 4)
        assert owner.messages[SEEN_MAX + 1 :] == [0]


async def test_the_place_moves_on_only_when_the_messages_are_remembered(
    channel: ControlChannel, client: FakePubSub, owner: Owner, file: IdentityFile
):
    """The next messages do not wait for that: a stop may be among them."""
    owner.may_remember.clear()
    async with running(channel.receive, channel.keep_place):
        client.batches.put_nowait(batch(101, delivery("a")))
        client.batches.put_nowait(batch(102, delivery("stop", 2)))
        await client.until(lambda: owner.messages == ["a", "stop"])
        assert [timetoken for timetoken, _ in client.polls[1:3]] == ["100", "101"]
        assert file.identity.control_timetoken == "100"
        owner.may_remember.set()
        await client.until(lambda: file.identity.control_timetoken == "102")


async def test_a_poll_without_news_is_followed_by_a_proof(channel: ControlChannel, client: FakePubSub):
    async with running(channel.receive):
        client.batches.put_nowait(None)
        await begun(client, 4)
        assert [timetoken for timetoken, _ in client.polls] == ["0", "100", "0", "100"]


@pytest.mark.parametrize("failure", [UNREACHABLE, REFUSED])
async def test_it_listens_again_after_a_loss_and_says_so(
    channel: ControlChannel, client: FakePubSub, owner: Owner, failure: Exception
):
    async with running(channel.receive):
        client.batches.put_nowait(failure)
        client.batches.put_nowait(batch(101, delivery("a")))
        await client.until(lambda: owner.messages)
        assert owner.listening == 2


async def test_a_proof_without_an_answer_is_a_loss(channel: ControlChannel, client: FakePubSub, owner: Owner):
    client.channel_ends = None
    async with running(channel.receive):
        await begun(client, 3)
        assert owner.listening == 0
        assert "not listening" in repr(channel)


async def test_a_refused_token_is_reported_and_the_next_is_used_at_once(
    channel: ControlChannel, client: FakePubSub, owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module.NetworkBackoff, "delay_s", lambda self, error: 3600.0)
    client.channel_ends = TOKEN_REFUSED
    async with running(channel.receive):
        await client.until(lambda: owner.tokens_refused)
        await asyncio.sleep(0.01)
        client.channel_ends = batch(100)
        channel.client_changed()
        await client.until(lambda: owner.listening)


async def test_another_client_takes_over_a_poll_that_waits(
    channel: ControlChannel, client: FakePubSub, clients: SimpleNamespace, owner: Owner
):
    other = FakePubSub()
    async with running(channel.receive):
        await begun(client, 2)
        clients.control = other
        channel.client_changed()
        other.batches.put_nowait(batch(101, delivery("a")))
        await other.until(lambda: owner.messages)


async def test_nothing_is_asked_before_there_is_a_client(
    channel: ControlChannel, client: FakePubSub, clients: SimpleNamespace
):
    clients.ready = False
    async with running(channel.receive, channel.send_heartbeats, channel.publish_state):
        await asyncio.sleep(0.01)
        assert not client.polls
        clients.ready = True
        channel.client_changed()
        await client.until(lambda: client.polls and client.states and client.heartbeats)


# -- presence -----------------------------------------------------------------------------------------------


async def test_an_agent_that_does_not_listen_does_not_look_present(
    channel: ControlChannel, client: FakePubSub, owner: Owner
):
    client.channel_ends = UNREACHABLE
    async with running(channel.receive, channel.send_heartbeats, channel.publish_state):
        channel.state_changed()
        await begun(client, 3)
        assert (client.heartbeats, client.states) == (0, [])
        client.channel_ends = batch(100)
        await client.until(lambda: client.heartbeats == 1 and client.states)


async def test_changes_that_come_together_are_published_once_and_as_the_newest(
    channel: ControlChannel, client: FakePubSub, owner: Owner
):
    async with running(channel.receive, channel.publish_state):
        for tasks in (1, 2, 3):
            owner.state["activeTasks"] = tasks
            channel.state_changed()
        await client.until(lambda: client.states)
        await asyncio.sleep(0.02)
        assert client.states == [{"activeTasks": 3}]


@pytest.mark.parametrize(("failure", "tokens_refused"), [(UNREACHABLE, 0), (REFUSED, 0), (TOKEN_REFUSED, 1)])
async def test_a_state_is_published_until_it_is_accepted(
    channel: ControlChannel, client: FakePubSub, owner: Owner, failure: Exception, tokens_refused: int
):
    client.answers.append(failure)
    async with running(channel.receive, channel.publish_state):
        channel.state_changed()
        await client.until(lambda: len(client.states) == 2)
        assert owner.tokens_refused == tokens_refused
        assert len(client.polls) == 2, "the subscription is left alone"


async def test_another_process_under_our_instance_id_is_noticed_and_its_end_too(
    channel: ControlChannel, client: FakePubSub, owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.001)
    owner.state["startedAt"] = 5
    async with running(channel.receive, channel.send_heartbeats):
        for state in ({}, {"startedAt": 5}):
            client.state_now, seen = state, client.heartbeats
            await client.until(lambda seen=seen: client.heartbeats > seen + 2 * module.TWIN_EVERY)
            assert channel.twin == ""
        client.state_now = {"startedAt": 6}
        await client.until(lambda: channel.twin)
        client.state_now = {"startedAt": 5}
        await client.until(lambda: not channel.twin)


async def test_a_token_that_may_not_read_the_presence_costs_no_heartbeat(
    channel: ControlChannel, client: FakePubSub, owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.001)
    client.state_now = TOKEN_REFUSED
    async with running(channel.receive, channel.send_heartbeats):
        await client.until(lambda: client.heartbeats > 2 * module.TWIN_EVERY)
        assert channel.blind.startswith("two boards under one instance id cannot be noticed: ")
        client.state_now = UNREACHABLE
        seen = client.heartbeats
        await client.until(lambda: client.heartbeats > seen + 2 * module.TWIN_EVERY)
        assert channel.blind, "that the network is away says nothing of it"
        client.state_now = {}
        await client.until(lambda: not channel.blind)
    assert owner.tokens_refused == 0


async def test_a_failed_heartbeat_is_repeated_soon(channel: ControlChannel, client: FakePubSub, owner: Owner):
    client.answers.extend([UNREACHABLE, TOKEN_REFUSED])
    async with running(channel.receive, channel.send_heartbeats):
        await client.until(lambda: client.heartbeats == 3)
        assert owner.tokens_refused == 1
