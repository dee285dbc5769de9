"""The setup handshake: what is asked, which answers are final, and which token is used."""

import asyncio
from typing import Any

import pytest

from device_agent.errors import ProtocolFault, Refused
from device_agent.network import Affinity, Caller, StartTask, StreamSpec
from device_agent.network.blocks import stream_tokens as module
from device_agent.network.blocks.clients import TaskClients
from device_agent.network.blocks.stream_channel import StreamChannel, writer_uuid
from device_agent.network.blocks.stream_tokens import StreamTokens
from device_agent.network.connectivity import Connectivity
from support.fake_pubsub import REFUSED, TOKEN_REFUSED, UNREACHABLE, FakePubSub

START = StartTask("t1", "pipe", Caller("org", "alice"), "org", has_stream=True, duration_min=5)
INVALID = {"message": {"ok": False, "error": {"code": "InvalidArgument", "message": "no such phase"}}}
BUSY = {"message": {"ok": False, "error": {"code": "Busy", "message": "later"}}}


def spec(affinity: Affinity = "dedicated") -> StreamSpec:
    return StreamSpec("telemetry", "s1", "bidirectional", "events", affinity)


def answer(token: Any) -> dict[str, Any]:
    return {"message": {"ok": True, "streamSetupResponse": {"token": token}}}


@pytest.fixture
def own() -> FakePubSub:
    return FakePubSub(token="write")


@pytest.fixture
def control() -> FakePubSub:
    return FakePubSub(token="control")


@pytest.fixture
def tokens(own: FakePubSub, control: FakePubSub, connectivity: Connectivity) -> StreamTokens:
    clients = TaskClients(own, control)  # type: ignore[arg-type]
    return StreamTokens("greenhouse", START, clients, connectivity)


def phases(client: FakePubSub) -> list[str]:
    return [phase.decode() for _, phase in client.published]


async def test_a_new_stream_is_announced_and_an_announced_one_is_not_again(
    tokens: StreamTokens, own: FakePubSub
):
    assert await tokens.first(spec(), announced=False) == "new"
    assert await tokens.first(spec(), announced=True) == "new"
    assert phases(own) == ["embedded", "token_request"]
    assert {channel for channel, _ in own.published} == {"setup.org.t1"}


async def test_the_token_of_a_shared_stream_is_renewed_with_an_announcement(
    tokens: StreamTokens, own: FakePubSub
):
    await tokens.renew(spec("shared"))
    assert phases(own) == ["embedded"]


async def test_a_network_that_knows_no_token_request_gets_an_announcement(
    tokens: StreamTokens, own: FakePubSub
):
    own.answers.extend([INVALID, answer("other")])
    assert await tokens.renew(spec()) == "other"
    assert phases(own) == ["token_request", "embedded"]


@pytest.mark.parametrize("failure", [UNREACHABLE, REFUSED, BUSY, {}, answer("")])
async def test_it_is_asked_until_it_is_answered(tokens: StreamTokens, own: FakePubSub, failure: Any):
    own.answers.extend([failure, failure])
    assert await tokens.ask(spec(), "embedded") == "new"


async def test_a_final_refusal_is_raised(tokens: StreamTokens, own: FakePubSub):
    own.answers.append(INVALID)
    with pytest.raises(Refused, match="no such phase") as refused:
        await tokens.ask(spec(), "embedded")
    assert refused.value.code == "InvalidArgument"


async def test_other_refusals_are_raised_after_a_while(
    tokens: StreamTokens, own: FakePubSub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "SETUP_REFUSED_LIMIT_S", 0.02)
    own.answers.extend([BUSY] * 10_000)
    with pytest.raises(Refused, match="later"):
        await asyncio.wait_for(tokens.ask(spec(), "embedded"), 10)
    assert len(own.published) > 1


async def test_the_control_token_serves_in_place_of_a_refused_one_at_once(
    tokens: StreamTokens, own: FakePubSub, control: FakePubSub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module.NetworkBackoff, "delay_s", lambda self, error: 3600.0)
    own.answers.append(TOKEN_REFUSED)
    assert await asyncio.wait_for(tokens.ask(spec(), "embedded"), 10) == "new"
    assert (len(own.published), len(control.published)) == (1, 1)


async def test_streams_that_are_refused_together_all_get_the_control_token_at_once(
    tokens: StreamTokens, own: FakePubSub, monkeypatch: pytest.MonkeyPatch
):
    """Each of them would otherwise switch back to the token that was refused to the one before."""
    monkeypatch.setattr(module.NetworkBackoff, "delay_s", lambda self, error: 3600.0)
    own.answers.extend([TOKEN_REFUSED] * 100)
    asking = (tokens.ask(spec(), "embedded") for _ in range(4))
    assert await asyncio.wait_for(asyncio.gather(*asking), 10) == ["new"] * 4
    assert len(own.published) == 4


async def test_an_activation_needs_no_token(tokens: StreamTokens, own: FakePubSub):
    own.answers.append({"ok": True, "streamSetupResponse": {}})
    assert await tokens.ask(spec("shared"), "activate") == ""


@pytest.mark.parametrize("reply", [{"ok": True}, answer(7), answer("")])
async def test_an_answer_without_a_token_is_a_fault(tokens: StreamTokens, own: FakePubSub, reply: Any):
    own.answers.append(reply)
    with pytest.raises(ProtocolFault):
        await tokens._ask_once(tokens.clients.current, spec(), "embedded")


async def test_several_who_find_the_token_refused_renew_it_once(own: FakePubSub, tokens: StreamTokens):
    client = FakePubSub(token="old")
    channel = StreamChannel(spec(), "greenhouse", client, tokens, tokens.connectivity)  # type: ignore[arg-type]
    await asyncio.gather(channel.renew_token(), channel.renew_token(), channel.renew_token())
    assert client.token == "new"
    assert len(own.published) == 1
    await channel.renew_token()
    assert len(own.published) == 2


def test_the_sender_of_a_stream_is_the_same_after_a_restart_and_another_for_each_instance():
    assert writer_uuid("x", "AG-1", "s1") == writer_uuid("x", "AG-1", "s1")
    others = {writer_uuid("x", *each) for each in [("AG-1", "s1"), ("AG-2", "s1"), ("AG-1", "s2")]}
    assert len(others) == 3
