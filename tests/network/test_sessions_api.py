"""The client against the stand-in, and the stand-in against the documented facts."""

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from device_agent.errors import NetworkError, ProtocolFault, Refused, Unreachable
from device_agent.network import sessions_api
from device_agent.network.sessions_api import NotNow, SessionsApi, Unsent, may_exist
from device_agent.testing.network import DevNetwork

AGENT = {"agent_name": "claude"}
HEADERS = {"Authorization": "ApiKey bk_farm"}


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork() as made:
        yield made


@pytest.fixture
async def pool() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
def api(net: DevNetwork, pool: aiohttp.ClientSession) -> SessionsApi:
    return SessionsApi(net.api_base_url, lambda: "bk_farm", lambda: pool)


async def get(pool: aiohttp.ClientSession, address: str) -> tuple[int, Any]:
    async with pool.get(address, headers=HEADERS) as response:
        return response.status, await response.json()


async def test_a_session_from_question_to_follow_up(net: DevNetwork, api: SessionsApi) -> None:
    net.sessions_api.held = True
    net.sessions_api.answers.extend(["Open it.", "Good."])
    opened = await api.create(AGENT, "It is hot.\nWhat now?", private=True)
    session = net.sessions_api.sessions[opened.id]
    assert (session.agent, session.private, session.said("user")) == (AGENT, True, ["It is hot.\nWhat now?"])
    assert opened.page.startswith("https://")
    assert await api.final_message(opened.final_message) is None
    net.sessions_api.release()
    assert await api.final_message(opened.final_message) == "Open it."
    later = await api.follow_up(opened.id, "Done.")
    assert later != opened.final_message
    assert await api.final_message(later) == "Good."
    assert await api.final_message(opened.final_message) == "Open it."


async def test_a_follow_up_interrupts_the_turn(net: DevNetwork, api: SessionsApi) -> None:
    net.sessions_api.held = True
    opened = await api.create(AGENT, "one", private=False)
    later = await api.follow_up(opened.id, "two")
    net.sessions_api.release()
    assert await api.final_message(opened.final_message) is None
    assert await api.final_message(later) == "You wrote: two"


@pytest.mark.parametrize("agent", [{"agent_name": "nobody"}, {"agent_id": "x"}, {}, {**AGENT, "profile": {}}])
async def test_what_the_service_does_not_take(api: SessionsApi, agent: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        await api.create(agent, "Hello", private=False)
    assert (caught.value.status, caught.value.code) == (400, "VALIDATION")
    assert not may_exist(caught.value)


async def test_another_workspace_and_a_wrong_key(
    net: DevNetwork, api: SessionsApi, pool: aiohttp.ClientSession
) -> None:
    opened = await api.create(AGENT, "Hello", private=False)
    with pytest.raises(Refused) as caught:
        await SessionsApi(net.api_base_url, lambda: "bk_other", lambda: pool).final_message(
            opened.final_message
        )
    assert (caught.value.status, caught.value.code) == (404, "NOT_FOUND")
    with pytest.raises(Refused) as caught:
        await SessionsApi(net.api_base_url, lambda: "wrong_key", lambda: pool).create(
            AGENT, "x", private=False
        )
    assert caught.value.status == 401
    assert "wrong_key" not in str(caught.value)


async def test_the_rate_limit_and_when_to_come_back(net: DevNetwork, api: SessionsApi) -> None:
    opened = await api.create(AGENT, "Hello", private=False)
    for _ in range(99):
        await api.final_message(opened.final_message)
    with pytest.raises(NotNow) as caught:
        await api.final_message(opened.final_message)
    assert caught.value.status == 429
    assert caught.value.retry_after_s is not None
    assert 0 < caught.value.retry_after_s <= 61
    assert net.sessions_api.limited == 1


async def test_messages_by_page_type_role_and_time(
    net: DevNetwork, api: SessionsApi, pool: aiohttp.ClientSession
) -> None:
    opened = await api.create(AGENT, "one", private=False)
    await api.final_message(opened.final_message)
    base = f"{net.api_base_url}/rest/v1/sessions/{opened.id}"
    _, whole = await get(pool, f"{base}/messages")
    assert [one["type"] for one in whole["items"]] == ["final_message", "message", "tool_call", "message"]
    _, part = await get(pool, f"{base}/messages?sort=asc&limit=1&page=2&role=assistant")
    assert [one["type"] for one in part["items"]] == ["message"]
    assert part["pagination"]["total"] == 3
    _, session = await get(pool, base)
    _, thread = await get(pool, f"{base}/threads/{session['thread_id']}/messages?type=final_message")
    assert [one["message"] for one in thread["items"]] == ["You wrote: one"]
    _, newer = await get(pool, whole["_links"]["new_messages"]["href"])
    assert newer["items"] == []
    assert (await get(pool, f"{base}/messages?limit=101"))[0] == 400
    assert (await get(pool, f"{base}/threads/x/messages"))[0] == 404


@pytest.mark.parametrize(
    ("fault", "options", "kind", "exists"),
    [
        ("status", {"status": 500}, Refused, True),
        ("status", {"status": 503}, NotNow, False),
        ("status", {"status": 403}, Refused, False),
        ("status", {"status": 307}, Refused, True),
        ("status", {"status": 200, "body": ["no", "object"]}, ProtocolFault, True),
        ("status", {"status": 200, "body": {"id": "../x"}}, ProtocolFault, True),
        ("status", {"status": 200, "body": {"id": "x", "_links": []}}, ProtocolFault, True),
        ("status", {"status": 200, "body": {"id": "x" * 2_000_000}}, ProtocolFault, True),
        ("reset", {}, Unreachable, True),
        ("lose_ack", {}, Unreachable, True),
        ("reset_mid_body", {}, Unreachable, True),
    ],
)
async def test_failures_say_whether_a_session_may_exist(
    net: DevNetwork, api: SessionsApi, fault: str, options: Any, kind: type[NetworkError], exists: bool
) -> None:
    net.add_fault(fault, "/rest/*", **options)
    with pytest.raises(kind) as caught:
        await api.create(AGENT, "Hello", private=False)
    assert may_exist(caught.value) is exists
    assert "bk_farm" not in str(caught.value)


async def test_a_refused_connection_was_not_heard(net: DevNetwork, api: SessionsApi) -> None:
    await net.refuse()
    with pytest.raises(Unsent):
        await api.create(AGENT, "Hello", private=False)


async def test_a_silent_service_is_given_up(
    net: DevNetwork, api: SessionsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_api, "REQUEST_LIMIT_S", 0.2)
    net.add_fault("blackhole", "/rest/*")
    with pytest.raises(Unreachable, match="no answer within"):
        await api.create(AGENT, "Hello", private=False)


@pytest.mark.parametrize(
    "link",
    ["https://elsewhere.example/x", "//elsewhere.example/x", "http://127.0.0.1:1/x", "http://u@{}/x", ""],
)
async def test_the_key_goes_nowhere_else(net: DevNetwork, api: SessionsApi, link: str) -> None:
    net.sessions_api.redirect_to = "link:" + link.format(net.pubnub_origin)
    with pytest.raises(ProtocolFault):
        await api.create(AGENT, "Hello", private=False)


async def test_redirects_are_not_followed(net: DevNetwork, api: SessionsApi) -> None:
    opened = await api.create(AGENT, "Hello", private=False)
    net.sessions_api.redirect_to = f"{net.api_base_url}/somewhere"
    with pytest.raises(Refused, match="307"):
        await api.final_message(opened.final_message)
    assert not [one for one in net.records.requests if "somewhere" in one.path]


async def test_links_without_a_host_are_the_services_own(net: DevNetwork, api: SessionsApi) -> None:
    net.sessions_api.redirect_to = "link:/rest/v1/sessions/unknown"
    opened = await api.create(AGENT, "Hello", private=False)
    assert opened.final_message == f"{net.api_base_url}/rest/v1/sessions/unknown"


@pytest.mark.parametrize(
    ("header", "low", "high"), [("7", 7, 7), ("1e9", 900, 900), ("nan", None, None), ("soon", None, None)]
)
def test_retry_after(header: str, low: float | None, high: float | None) -> None:
    wait_s = sessions_api._seconds(header)
    assert (wait_s, wait_s) == (low, high)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 90 < (sessions_api._seconds(date) or 0) <= 100
