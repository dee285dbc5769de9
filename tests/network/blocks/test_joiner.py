"""Joining: config document, registry and connect, and what is kept of their answers."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import NetworkError, ProtocolFault, Refused, Revoked, TokenRefused
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.joiner import Joiner, JoinSettings
from support.fake_backend import FakeBackend

CONFIG = "/config.json"
REGISTRY = "/api/v1/registry/agents"
CONNECT = "/api/v1/auth/agent/connect"
REFRESH = "/api/v1/auth/agent/refresh"
RPC = "/api/v1/rpc"
KEYS = {
    "playground": {"publishKey": "pub-p", "subscribeKey": "sub-p"},
    "network": {"publishKey": "pub-n", "subscribeKey": "sub-n"},
}
CARD = {"identity": {"agentName": "greenhouse"}}
ENTRY = {"agent": {"billingMode": "free", "listing": "public", "card": CARD}}
CONNECTED = {
    "accessToken": "access",
    "refreshToken": "refresh",
    "controlChannel": "x.control",
    "pamToken": "control",
    "agentId": "a1",
}


@pytest.fixture
def file(tmp_path: Path) -> IdentityFile:
    return IdentityFile(tmp_path / "identity.json", "greenhouse")


@pytest.fixture
def cards() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def joiner(http: Http, backend: FakeBackend, file: IdentityFile, cards: list[dict[str, Any]]) -> Joiner:
    """One for which every step succeeds."""
    backend.answers[CONFIG].append((200, {**KEYS, "api": {"baseUrl": backend.url}}))
    backend.answers[REGISTRY].append((200, ENTRY))
    backend.answers[CONNECT].append((200, CONNECTED))
    settings = JoinSettings(
        "greenhouse", lambda: "bk_key", cdm_url=backend.url + CONFIG, concurrency=lambda: 3
    )
    return Joiner(settings, http, file, cards.append)


async def test_a_join_leaves_its_results_in_the_file(
    joiner: Joiner, backend: FakeBackend, cards: list[dict[str, Any]], tmp_path: Path
):
    await joiner.join()
    kept = IdentityFile(tmp_path / "identity.json", "greenhouse").identity
    assert (kept.control_channel, kept.control_token, kept.access_token) == ("x.control", "control", "access")
    assert (kept.environment, kept.publish_key, kept.subscribe_key) == ("playground", "pub-p", "sub-p")
    assert cards == [CARD]
    body = backend.asked_for(CONNECT)[0].json
    assert (body["instanceId"], body["concurrency"], body["billingMode"]) == (kept.instance_id, 3, "free")
    assert "maxPendingBacklog" not in body, "what is not configured is left out"
    assert backend.asked_for(REGISTRY)[0].headers["Authorization"] == "Bearer bk_key"
    assert "Authorization" not in backend.asked_for(CONFIG)[0].headers


async def test_a_paid_agent_uses_the_keys_of_the_network(joiner: Joiner, backend: FakeBackend):
    backend.answers[REGISTRY] = [(200, {"agent": {"billingMode": "paid", "listing": "odd"}})]
    await joiner.join()
    identity = joiner.file.identity
    assert (identity.environment, identity.subscribe_key, identity.listing) == ("network", "sub-n", "")


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        (CONFIG, {**KEYS, "network": {"publishKey": "p"}}),
        (CONFIG, {**KEYS, "playground": {"publishKey": "", "subscribeKey": "s"}}),
        (CONFIG, {"playground": 7}),
        (CONFIG, {**KEYS, "api": {"baseUrl": "ftp://x"}}),
        (CONFIG, {**KEYS, "api": 7}),
        (REGISTRY, {}),
        (REGISTRY, {"agent": {"billingMode": "barter"}}),
        (CONNECT, {**CONNECTED, "pamToken": ""}),
        (CONNECT, {**CONNECTED, "controlChannel": 7}),
        (CONNECT, {}),
    ],
)
async def test_a_malformed_answer_is_a_fault(joiner: Joiner, backend: FakeBackend, path: str, reply: Any):
    backend.answers[path] = [(200, reply)]
    with pytest.raises(ProtocolFault):
        await joiner.join()


@pytest.mark.parametrize("path", [CONFIG, REGISTRY, CONNECT])
async def test_one_refusal_ends_the_try(joiner: Joiner, backend: FakeBackend, path: str):
    backend.answers[path] = [(503, {})]
    with pytest.raises(Refused):
        await joiner.join()
    assert len(backend.asked_for(path)) == 1


async def test_a_config_document_from_before_serves_when_it_cannot_be_read(
    joiner: Joiner, backend: FakeBackend
):
    backend.answers[CONFIG].append((503, {}))
    await joiner.join()
    await joiner.join()
    assert len(backend.asked_for(CONNECT)) == 2


async def test_a_private_agent_whose_key_was_revoked_learns_it_from_connect(
    joiner: Joiner, backend: FakeBackend
):
    await joiner.join()
    backend.answers[REGISTRY] = [(404, {})]
    backend.answers[CONNECT] = [(401, {"code": "API_KEY_INVALID"})]
    with pytest.raises(Revoked):
        await joiner.join()


async def test_an_agent_that_was_never_published_is_refused(joiner: Joiner, backend: FakeBackend):
    backend.answers[REGISTRY] = [(404, {})]
    with pytest.raises(Refused, match=r"publish greenhouse first \(`device-agent publish`\)"):
        await joiner.join()
    assert backend.asked_for(CONNECT) == []


async def test_another_control_channel_is_read_from_its_end(joiner: Joiner, backend: FakeBackend):
    await joiner.join()
    joiner.file.identity.control_timetoken = "42"
    await joiner.join()
    assert joiner.file.identity.control_timetoken == "42"
    backend.answers[CONNECT] = [(200, {**CONNECTED, "controlChannel": "y.control"})]
    await joiner.join()
    assert joiner.file.identity.control_timetoken == "0"


# -- requests with the access token -------------------------------------------------------------------------


async def test_an_access_token_that_ran_out_is_refreshed_once(joiner: Joiner, backend: FakeBackend):
    await joiner.join()
    backend.answers["/x"] += [(401, {}), (200, {"ok": 1})]
    backend.answers[REFRESH].append((200, {"accessToken": "access-2", "refreshToken": "refresh-2"}))
    assert await joiner.call("/x", {}) == {"ok": 1}
    assert [asked.headers["Authorization"] for asked in backend.asked_for("/x")] == [
        "Bearer access",
        "Bearer access-2",
    ]
    assert backend.asked_for(REFRESH)[0].json == {"refreshToken": "refresh"}
    assert joiner.file.identity.refresh_token == "refresh-2"


async def test_a_refresh_token_that_ran_out_leads_to_a_new_connect(joiner: Joiner, backend: FakeBackend):
    await joiner.join()
    backend.answers["/x"] += [(401, {}), (200, {"ok": 1})]
    backend.answers[REFRESH].append((400, {"code": "REFRESH_TOKEN_INVALID"}))
    assert await joiner.call("/x", {}) == {"ok": 1}
    assert len(backend.asked_for(CONNECT)) == 2


@pytest.mark.parametrize(("status", "refreshes"), [(403, 0), (500, 0), (401, 1)])
async def test_other_refusals_are_raised(joiner: Joiner, backend: FakeBackend, status: int, refreshes: int):
    await joiner.join()
    backend.answers["/x"].append((status, {}))
    backend.answers[REFRESH].append((200, {"accessToken": "a", "refreshToken": "r"}))
    with pytest.raises(NetworkError) as raised:
        await joiner.call("/x", {})
    assert isinstance(raised.value, TokenRefused) is (status != 500)
    assert len(backend.asked_for(REFRESH)) == refreshes


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"state": "completed"}, "completed"),
        ({"task": {"state": "canceled"}}, "canceled"),
        ({"task": {"state": "failed"}}, "failed"),
        ({"task": {"state": "running"}}, ""),
        ({"task": None}, ""),
        (None, ""),
        ([], ""),
    ],
)
async def test_whether_a_task_has_ended(joiner: Joiner, backend: FakeBackend, result: Any, state: str):
    await joiner.join()
    backend.answers[RPC].append((200, {"result": result}))
    assert await joiner.has_ended("t1") == state
    assert backend.asked_for(RPC)[0].json["params"] == {"taskId": "t1"}
