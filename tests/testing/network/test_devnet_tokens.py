"""Messaging tokens: form, enforcement, expiry, revocation."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from device_agent.testing.network import DevNetwork, Settings
from support.network_peer import Api, Peer, held


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork(settings=Settings(hold_s=5.0)) as found:
        yield found


def parse(token: str) -> dict[str, Any]:
    from pubnub.managers import TokenManager

    return dict(TokenManager.parse_token(token))


@pytest.mark.parametrize("ttl_s", [3600.0, 90.0, 5.0, 43_200 * 60.0])
async def test_the_library_reads_the_form_and_the_expiry_is_true(net: DevNetwork, ttl_s: float) -> None:
    grant = net.tokens.issue("read", "playground", {"u.org.t": 1, "c": 3}, ttl_s, patterns={"^u": 2})
    parsed = parse(grant.token)
    assert parsed["version"] == 2
    assert parsed["resources"]["channels"]["u.org.t"]["read"] is True
    assert parsed["resources"]["channels"]["u.org.t"]["write"] is False
    assert parsed["resources"]["channels"]["c"]["write"] is True
    assert parsed["patterns"]["channels"]["^u"]["write"] is True
    assert isinstance(parsed["ttl"], int)
    expiry = parsed["timestamp"] + 60 * parsed["ttl"]
    assert 0 <= time.time() + ttl_s - expiry < 2


async def test_every_operation_is_guarded(net: DevNetwork) -> None:
    async with Peer(net, {"mine": 1}) as peer:
        subscribe_key = peer.subscribe_key
        refused = {
            "subscribe": await peer.try_subscribe("other"),
            "one of two": await peer.try_subscribe("mine", "other"),
            "publish without write": await peer.publish("mine", 1),
            "heartbeat": await peer.presence("other", "heartbeat"),
            "leave": await peer.presence("other", "leave"),
            "state": await peer.presence("other", "uuid", "peer", "data", state="{}"),
            "here now": await peer.presence("other"),
            "history": await peer.ask("GET", f"/v3/history/sub-key/{subscribe_key}/channel/other"),
            "file": await peer.ask("GET", f"/v1/files/{subscribe_key}/channels/other/files/1/a"),
        }
        assert {k: v[0] for k, v in refused.items()} == dict.fromkeys(refused, 403)
        assert refused["one of two"][1] == {
            "message": "Forbidden",
            "payload": {"channels": ["other"]},
            "error": True,
            "service": "Access Manager",
            "status": 403,
        }
        peer.token = ""
        assert (await peer.try_subscribe("mine"))[0] == 403


async def test_expired_and_revoked_say_so(net: DevNetwork) -> None:
    async with Peer(net, {"a": 3}, ttl_s=0.0) as old, Peer(net, {"a": 3}) as gone:
        assert (await old.publish("a", 1))[1]["message"] == "Token is expired."
        assert net.revoke_token(gone.token) == 1
        assert net.revoke_token(gone.token) == 0
        assert (await gone.publish("a", 1))[1]["message"] == "Token is revoked."


async def test_revoking_ends_a_held_poll_and_expiry_does_not(net: DevNetwork) -> None:
    async with Peer(net, {"a": 3}) as one, Peer(net, {"a": 3}) as two:
        polls = [await held(net, p.try_subscribe("a", tt=1000), n) for n, p in enumerate((one, two), 1)]
        assert net.revoke_tokens("write") == 2
        assert [(await p)[0] for p in polls] == [403, 403]
    async with Peer(net, {"b": 3}) as writer, Peer(net, {"b": 3}) as brief:
        lasting = await held(net, brief.try_subscribe("b", tt=1000))
        grant = net.tokens.find(brief.token)
        assert grant is not None
        grant.expires_at_s = 0.0
        await writer.publish("b", "late")
        assert (await lasting)[0] == 200
        assert (await brief.try_subscribe("b", tt=1000))[0] == 403


async def test_lifetimes_can_be_set_by_kind(net: DevNetwork) -> None:
    net.register("x")
    async with Api(net) as api:
        net.set_token_ttl("control", 7)
        answer = await api.connect("x")
        grant = net.tokens.find(answer["pamToken"])
        assert grant is not None
        assert 6 < grant.expires_at_s - time.time() <= 7
        net.set_token_ttl("access", 0.0)
        await api.log_in()
        assert (await api.ask("POST", "/api/v1/auth/task-read-token", {"taskId": "t"}))[0] == 401
    with pytest.raises(ValueError, match="unknown token kind"):
        net.set_token_ttl("gold", 1)
    with pytest.raises(ValueError, match="need a lifetime"):
        net.set_token_ttl("control", None)
