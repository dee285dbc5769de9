"""Every kind of fault, latency, links that fail alone, and the record of it all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from device_agent.testing.network import DevNetwork, Settings, faults
from support.network_peer import Peer, held


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork(settings=Settings(hold_s=5.0)) as found:
        yield found


@pytest.fixture
async def peer(net: DevNetwork) -> AsyncIterator[Peer]:
    async with Peer(net, {"a": 3}) as found:
        yield found


def delivered(net: DevNetwork) -> list[object]:
    return [r.body for r in net.publishes("a")]


async def test_status_for_a_count_after_some_that_pass(net: DevNetwork, peer: Peer) -> None:
    net.add_fault("status", faults.PUBLISH, status=500, body={"why": "test"}, count=2, skip=1)
    answers = [await peer.publish("a", n) for n in range(4)]
    assert [a[0] for a in answers] == [200, 500, 500, 200]
    assert answers[1][1] == {"why": "test"}
    assert delivered(net) == [0, 3]
    assert net.faults.rules == []


async def test_reset_before_anything_happens(net: DevNetwork, peer: Peer) -> None:
    net.add_fault("reset", faults.PUBLISH, count=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await peer.publish("a", 1)
    assert delivered(net) == []
    assert (await peer.publish("a", 2))[0] == 200


async def test_lost_acknowledgement(net: DevNetwork, peer: Peer) -> None:
    net.add_fault("lose_ack", faults.PUBLISH, count=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await peer.publish("a", 1)
    assert delivered(net) == [1]


async def test_reset_in_the_middle_of_the_body(net: DevNetwork, peer: Peer) -> None:
    await peer.publish("a", "x" * 1000)
    net.add_fault("reset_mid_body", faults.SUBSCRIBE, count=1)
    with pytest.raises(aiohttp.ClientError):
        await peer.subscribe("a", tt=1000)
    assert len((await peer.subscribe("a", tt=1000))[1]) == 1


async def test_duplicates_of_publish_and_of_delivery(net: DevNetwork, peer: Peer) -> None:
    net.add_fault("duplicate", faults.PUBLISH, count=1)
    await peer.publish("a", 1)
    await peer.publish("a", 2)
    _, messages = await peer.subscribe("a", tt=1000)
    assert [m["d"] for m in messages] == [1, 1, 2]
    assert messages[0]["p"]["t"] != messages[1]["p"]["t"]
    net.add_fault("duplicate", faults.SUBSCRIBE, count=1)
    _, messages = await peer.subscribe("a", tt=messages[1]["p"]["t"])
    assert [m["d"] for m in messages] == [2, 2]
    assert messages[0]["p"]["t"] == messages[1]["p"]["t"]


async def test_blackhole_swallows_new_and_waiting_requests_for_ever(net: DevNetwork, peer: Peer) -> None:
    deaf = await held(net, peer.subscribe("a", tt=1000))
    rule = net.add_fault("blackhole")
    swallowed = asyncio.ensure_future(peer.publish("a", "lost"))
    await net.wait_for(lambda: rule.hits == 1)
    assert net.heal() == 1
    assert (await peer.publish("a", "after"))[0] == 200
    assert [m["d"] for m in (await peer.subscribe("a", tt=1000))[1]] == ["after"]
    assert not deaf.done()
    assert not swallowed.done()
    for task in (deaf, swallowed):
        task.cancel()
    await asyncio.gather(deaf, swallowed, return_exceptions=True)
    assert delivered(net) == ["after"]


async def test_delay_and_round_trip(net: DevNetwork, peer: Peer) -> None:
    net.add_fault("delay", faults.TIME, delay_s=0.08, count=1)
    started = time.monotonic()
    await peer.ask("GET", "/time/0")
    assert time.monotonic() - started >= 0.08
    net.set_rtt(60)
    started = time.monotonic()
    await peer.publish("a", 1)
    assert 0.06 <= time.monotonic() - started < 2
    net.set_rtt(0)


async def test_requests_share_a_slow_link(net: DevNetwork, peer: Peer) -> None:
    net.set_upload(20_000)
    started = time.monotonic()
    await asyncio.gather(*(peer.publish("a", "x" * 1400) for _ in range(3)))
    assert 0.3 <= time.monotonic() - started < 3
    net.set_upload(0)


async def test_a_rule_can_mean_one_user_or_one_link(net: DevNetwork, peer: Peer) -> None:
    link = await net.open_link("device")
    net.add_fault("status", uuid="dev*", status=503)
    net.add_fault("status", link="device", status=504)
    async with (
        Peer(net, {"a": 3}, uuid="dev-1") as by_user,
        Peer(net, {"a": 3}, origin=link.origin) as by_link,
    ):
        assert (await by_user.publish("a", 1))[0] == 503
        assert (await by_link.publish("a", 1))[0] == 504
    assert (await peer.publish("a", 1))[0] == 200


async def test_one_link_refuses_while_the_other_serves(net: DevNetwork, peer: Peer) -> None:
    link = await net.open_link("device")
    async with Peer(net, {"a": 3}, origin=link.origin) as device:
        waiting = await held(net, device.subscribe("a", tt=1000))
        await net.refuse("device")
        with pytest.raises(aiohttp.ClientError):
            await waiting
        with pytest.raises(aiohttp.ClientConnectorError):
            await device.publish("a", 1)
        assert (await peer.publish("a", 2))[0] == 200
        await net.accept("device")
        assert [m["d"] for m in (await device.subscribe("a", tt=1000))[1]] == [2]
        await net.refuse("device", for_s=0.05)
        assert (await device.publish("a", 3))[0] == 200


async def test_everything_is_recorded_and_bounded(net: DevNetwork, peer: Peer) -> None:
    before = time.time()
    await peer.publish("a", {"n": 1}, meta={"m": 1}, store=0)
    (record,) = net.publishes("a")
    assert before <= record.at_s <= time.time()
    assert (record.uuid, record.token_kind, record.meta, record.body) == ("peer", "write", {"m": 1}, {"n": 1})
    assert (record.stored, record.status, record.environment) == (False, 200, "playground")
    net.add_fault("status", faults.TIME, status=502, count=1)
    await peer.ask("GET", "/time/0")
    (request,) = net.requests("/time/*")
    assert (request.method, request.status, request.fault, request.link) == ("GET", 502, "status", "main")
    net.clear_records()
    net.settings.record_bytes = 10_000
    for _ in range(50):
        await peer.publish("a", "x" * 1000)
    assert len(net.publishes("a")) < 10
    assert net.publish_count("a") == 50


async def test_unknown_words_are_told(net: DevNetwork) -> None:
    with pytest.raises(ValueError, match="unknown fault kind"):
        net.add_fault("explode")
    with pytest.raises(ValueError, match="there is no link"):
        net.set_rtt(1, "nowhere")
    with pytest.raises(ValueError, match="there is no agent"):
        net.force_offline("nobody")
    with pytest.raises(TimeoutError):
        await net.wait_for(lambda: False, 0.01)
