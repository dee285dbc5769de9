"""Publish, subscribe, history, time and files of the messaging surface."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from device_agent.testing.network import DevNetwork, Settings
from support.network_peer import Peer, held


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork(settings=Settings(hold_s=5.0)) as found:
        yield found


@pytest.fixture
async def peer(net: DevNetwork) -> AsyncIterator[Peer]:
    async with Peer(net, {"a": 3, "b": 3, "with/slash": 3}) as found:
        yield found


async def test_start_now_then_wait_for_a_message(net: DevNetwork, peer: Peer) -> None:
    start, none = await peer.subscribe("a", tt=0)
    assert none == []
    assert len(str(start)) == 17
    waiting = await held(net, peer.subscribe("a", tt=start))
    status, (one, sent, timetoken) = await peer.publish("a", {"n": 1}, meta={"sender": "x"})
    assert (status, one, sent) == (200, 1, "Sent")
    cursor, (message,) = await waiting
    assert message["d"] == {"n": 1}
    assert message["u"] == {"sender": "x"}
    assert (message["c"], message["i"], message["k"]) == ("a", "peer", peer.subscribe_key)
    assert message["p"]["t"] == timetoken == str(cursor)
    assert message["f"] == message["e"] == 0


async def test_older_cursor_gets_the_queue_at_once_across_channels(peer: Peer) -> None:
    for n in range(3):
        await peer.publish("a", n)
        await peer.publish("b", n)
    cursor, messages = await peer.subscribe("a", "b", tt=1000)
    assert [(m["c"], m["d"]) for m in messages] == [
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("b", 2),
    ]
    _, rest = await peer.subscribe("a", "b", tt=messages[3]["p"]["t"])
    assert [m["d"] for m in rest] == [2, 2]
    assert cursor == int(messages[-1]["p"]["t"])


async def test_queue_holds_the_last_hundred_and_answers_hold_a_hundred(peer: Peer) -> None:
    for n in range(130):
        await peer.publish("a", n, store=0)
        if n % 2:
            await peer.publish("b", n, store=0)
    _, only = await peer.subscribe("a", tt=1000)
    assert [m["d"] for m in only] == list(range(30, 130))
    cursor, first = await peer.subscribe("a", "b", tt=1000)
    assert len(first) == 100
    _, second = await peer.subscribe("a", "b", tt=cursor)
    assert len(first) + len(second) == 165


async def test_idle_hold_ends_with_an_empty_answer(net: DevNetwork, peer: Peer) -> None:
    net.settings.hold_s = 0.05
    start, _ = await peer.subscribe("a")
    cursor, messages = await peer.subscribe("a", tt=start)
    assert messages == []
    assert cursor >= start


async def test_filter_holds_back_and_does_not_come_again(net: DevNetwork, peer: Peer) -> None:
    start, _ = await peer.subscribe("a")
    wanted = {"filter-expr": "meta.sender != 'me'"}
    waiting = await held(net, peer.subscribe("a", tt=start, **wanted))
    await peer.publish("a", "mine", meta={"sender": "me"})
    await peer.publish("a", "yours", meta={"sender": "you"})
    _, messages = await waiting
    assert [m["d"] for m in messages] == ["yours"]
    net.settings.hold_s = 0.05
    by_body = {"filter-expr": "data.kind == 'x'"}
    await peer.publish("a", {"kind": "y"})
    cursor, none = await peer.subscribe("a", tt=messages[-1]["p"]["t"], **by_body)
    assert none == []
    await peer.publish("a", {"kind": "x"})
    assert len((await peer.subscribe("a", tt=cursor, **by_body))[1]) == 1
    status, body = await peer.try_subscribe("a", tt=start, **{"filter-expr": "meta. =="})
    assert (status, body["status"]) == (400, 400)


async def test_publish_by_get_and_channel_with_a_slash(peer: Peer) -> None:
    message = quote(json.dumps({"path": "a/b", "text": "ä"}), safe="")
    path = f"/publish/{peer.publish_key}/{peer.subscribe_key}/0/with%2Fslash/0/{message}"
    status, body = await peer.ask("GET", path)
    assert (status, body[1]) == (200, "Sent")
    _, (got,) = await peer.subscribe("with/slash", tt=1000)
    assert got["d"] == {"path": "a/b", "text": "ä"}


async def test_size_limit_counts_the_encoded_form_of_a_get(peer: Peer) -> None:
    assert (await peer.publish("a", "x" * (32 * 1024 - 2)))[0] == 200
    status, body = await peer.publish("a", "x" * (32 * 1024 - 1))
    assert (status, body[1]) == (413, "Message Too Large")
    path = f"/publish/{peer.publish_key}/{peer.subscribe_key}/0/a/0/"
    # Each blank takes three bytes in the address.
    assert (await peer.ask("GET", path + quote(json.dumps(" " * 10_000), safe="")))[0] == 200
    assert (await peer.ask("GET", path + quote(json.dumps(" " * 11_000), safe="")))[0] == 413


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda d: zlib.compress(d, wbits=-15)])
async def test_compressed_bodies(peer: Peer, pack) -> None:  # type: ignore[no-untyped-def]
    path = f"/publish/{peer.publish_key}/{peer.subscribe_key}/0/a/0"
    status, _ = await peer.ask(
        "POST",
        path,
        pack(b'{"packed":true}'),
        {"Content-Encoding": "gzip", "Content-Type": "application/json"},
    )
    assert status == 200
    _, (got,) = await peer.subscribe("a", tt=1000)
    assert got["d"] == {"packed": True}


async def test_what_is_no_json_or_no_key_set_is_refused(peer: Peer) -> None:
    path = f"/publish/{peer.publish_key}/{peer.subscribe_key}/0/a/0"
    assert (await peer.ask("POST", path, b"{no"))[0] == 400
    assert (await peer.ask("POST", f"/publish/pub-c-x/{peer.subscribe_key}/0/a/0", b"1"))[0] == 400
    assert (await peer.ask("GET", "/v2/subscribe/sub-c-x/a/0", tt=0))[0] == 400
    assert (await peer.ask("GET", "/nowhere"))[0] == 404


async def test_history_pages_backwards_over_stored_messages_only(peer: Peer) -> None:
    tokens = []
    for n in range(230):
        status, (_, _, timetoken) = await peer.publish("a", n, store=int(n % 10 != 9), meta={"n": n})
        assert status == 200
        if n % 10 != 9:
            tokens.append((n, timetoken))
    collected: list[int] = []
    start: dict[str, str] = {}
    pages = []
    while page := (await peer.history("a", max=100, **start)).get("a", []):
        pages.append(len(page))
        collected = [m["message"] for m in page] + collected
        start = {"start": page[0]["timetoken"]}
    assert pages == [100, 100, 7]
    assert collected == [n for n, _ in tokens]
    ranged = await peer.history("a", start=tokens[20][1], end=tokens[10][1])
    assert [m["timetoken"] for m in ranged["a"]] == [t for _, t in tokens[10:20]]
    (last,) = (await peer.history("a", max=1, include_meta="true", include_uuid="true"))["a"]
    assert (last["message"], last["meta"], last["uuid"]) == (228, {"n": 228}, "peer")
    assert {k: len(v) for k, v in (await peer.history("a", "b")).items()} == {"a": 25}


async def test_key_sets_are_apart(net: DevNetwork, peer: Peer) -> None:
    async with Peer(net, {"a": 3}, environment="network") as other:
        await peer.publish("a", "here")
        await other.publish("a", "there")
        assert [m["d"] for m in (await peer.subscribe("a", tt=1000))[1]] == ["here"]
        assert [m["d"] for m in (await other.subscribe("a", tt=1000))[1]] == ["there"]
        other.token = peer.token
        assert (await other.publish("a", "x"))[0] == 403


async def test_time_needs_no_token_and_timetokens_rise(peer: Peer) -> None:
    peer.token = ""
    first = (await peer.ask("GET", "/time/0"))[1][0]
    second = (await peer.ask("GET", "/time/0"))[1][0]
    assert second > first > 10**16


async def test_a_client_that_goes_leaves_no_poll_behind(net: DevNetwork, peer: Peer) -> None:
    waiting = await held(net, peer.subscribe("a", "b", tt=1000))
    waiting.cancel()
    await net.wait_for(lambda: net.polls() == 0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
