"""Logins, registry and account end points of the backend API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from device_agent.testing.network import DevNetwork, Settings
from support.network_peer import Api
from support.official_provider import make_card

READ = "/api/v1/registry/agents?agentName="


@pytest.fixture
async def net() -> AsyncIterator[DevNetwork]:
    async with DevNetwork() as found:
        yield found


@pytest.fixture
async def api(net: DevNetwork) -> AsyncIterator[Api]:
    async with Api(net) as found:
        yield found


def publication(name: str, **members: Any) -> dict[str, Any]:
    return {
        "agentName": name,
        "card": make_card(name, 1),
        "listing": "private",
        "billingMode": "free",
        **members,
    }


async def test_config_document_points_back_at_its_link(net: DevNetwork, api: Api) -> None:
    status, document = await api.ask("GET", "/config.json")
    assert status == 200
    assert document["api"]["baseUrl"] == net.api_base_url
    assert all(document[s][k] for s in ("playground", "network") for k in ("publishKey", "subscribeKey"))
    link = await net.open_link("second")
    async with Api(net, origin=link.origin) as other:
        assert (await other.ask("GET", "/config.json"))[1]["api"]["baseUrl"] == f"http://{link.origin}"


async def test_publish_read_list_and_unpublish(api: Api) -> None:
    assert (await api.ask("GET", READ + "x"))[0] == 404
    status, answer = await api.ask("POST", "/api/v1/registry/agents", publication("x"))
    assert (status, answer["agentUrl"].endswith("/agents/x")) == (200, True)
    status, answer = await api.ask("GET", READ + "x")
    agent = answer["agent"]
    assert (agent["listing"], agent["billingMode"], agent["card"]["identity"]["agentName"]) == (
        "private",
        "free",
        "x",
    )
    assert (await api.ask("GET", READ + "x", bearer=""))[0] == 404
    assert (await api.ask("GET", READ + "x", bearer="nonsense"))[0] == 404
    await api.ask("POST", "/api/v1/registry/agents", publication("y", listing="public"))
    assert (await api.ask("GET", READ + "y", bearer=""))[0] == 200
    status, answer = await api.ask("GET", "/api/v1/registry/agents?include=full&limit=1")
    assert ([a["agentName"] for a in answer["agents"]], answer["next"], answer["totalCount"]) == (
        ["x"],
        "1",
        2,
    )
    status, answer = await api.ask("GET", "/api/v1/registry/agents?tag=test&listing=public&cursor=0")
    assert [a["agentName"] for a in answer["agents"]] == ["y"]
    context = (await api.ask("GET", "/api/v1/registry/publish-context"))[1]
    assert (context["orgId"], context["agentCount"]) == ("org_device", 2)
    status, answer = await api.ask("DELETE", "/api/v1/registry/agents?agentName=x", {"reason": "test"})
    assert (answer["agentName"], answer["status"]) == ("x", "deleted")
    assert (await api.ask("GET", READ + "x"))[0] == 404


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"agentName": "a-b"}, "INVALID_REQUEST"),
        ({"listing": "secret"}, "INVALID_REQUEST"),
        ({"billingMode": "cheap"}, "BillingModeInvalid"),
        ({"billingMode": "paid"}, "TERMS_NOT_ACCEPTED"),
        ({"card": None}, "INVALID_CARD"),
        ({"card": {"skills": []}}, "INVALID_CARD"),
        ({"card": {"identity": {}}}, "INVALID_CARD"),
        ({"card": make_card("other", 1)}, "INVALID_CARD"),
    ],
)
async def test_publications_that_are_refused(api: Api, change: dict[str, Any], code: str) -> None:
    status, answer = await api.ask("POST", "/api/v1/registry/agents", publication("x", **change))
    assert (status, answer["code"]) == (400, code)


async def test_price_and_free_exclude_each_other(net: DevNetwork, api: Api) -> None:
    paid = publication("x", billingMode="paid", tcAcceptedAt="2026-01-01T00:00:00Z", pricePerTask="0.01")
    assert (await api.ask("POST", "/api/v1/registry/agents", paid))[0] == 200
    assert net.agent("x").environment == "network"
    status, answer = await api.ask("POST", "/api/v1/registry/agents", publication("x"))
    assert (status, answer["code"]) == (400, "BillingModeInvalid")
    assert (await api.ask("GET", "/api/v1/pricing/limits", bearer=""))[1]["maxPricePerTask"] == "25.00"


async def test_auto_register_makes_private_free_agents(net: DevNetwork, api: Api) -> None:
    net.settings.auto_register = True
    status, answer = await api.ask("GET", READ + "anything")
    assert (status, answer["agent"]["listing"], answer["agent"]["billingMode"]) == (200, "private", "free")
    assert (await api.ask("GET", READ + "no-hyphens"))[0] == 404


async def test_connect_answers_and_refusals(net: DevNetwork, api: Api) -> None:
    net.register("x")
    answer = await api.connect("x", concurrency=3, expectedInstances=0, maxPendingBacklog=2)
    agent = net.agent("x")
    assert answer["controlChannel"] == f"agent.{answer['agentId']}.control" == agent.control_channel
    assert answer["expiresIn"] == 3600
    assert (agent.expected_instances, agent.max_backlog, agent.owner_org) == (0, 2, "org_device")
    again = await api.connect("x")
    assert again["agentId"] == answer["agentId"]

    async def refused(body: dict[str, Any], bearer: str = "bk_device") -> tuple[int, str]:
        status, answer = await api.ask("POST", "/api/v1/auth/agent/connect", body, bearer)
        return status, answer["code"]

    good = {"agentName": "x", "instanceId": "AG-1", "billingMode": "free"}
    assert await refused(good, "nothing") == (401, "API_KEY_INVALID")
    assert await refused(good, "bk_other") == (403, "AGENT_NOT_OWNED")
    assert await refused({**good, "billingMode": "paid"}) == (409, "BillingModeMismatch")
    assert await refused({**good, "agentName": "y"}) == (404, "AGENT_NOT_FOUND")
    assert await refused({**good, "concurrency": -1}) == (400, "INVALID_REQUEST")
    assert await refused({**good, "protocolVersions": ["1999"]}) == (400, "UNSUPPORTED_PROTOCOL_VERSION")
    net.force_offline("x")
    assert await refused(good) == (403, "AGENT_FORCED_OFFLINE")
    net.allow_online("x")
    net.revoke_api_key("bk_device")
    assert await refused(good) == (401, "API_KEY_INVALID")
    net.restore_api_key("bk_device")
    await api.connect("x")


async def test_refresh_rotates_and_says_why_not(net: DevNetwork, api: Api) -> None:
    net.register("x")
    first = await api.connect("x")

    async def refresh(token: str) -> tuple[int, dict[str, Any]]:
        return await api.ask("POST", "/api/v1/auth/agent/refresh", {"refreshToken": token}, api.key)  # type: ignore[no-any-return]

    status, second = await refresh(first["refreshToken"])
    assert status == 200
    assert second["refreshToken"] != first["refreshToken"]
    assert (await refresh(first["refreshToken"]))[1]["code"] == "REFRESH_TOKEN_INVALID"
    net.force_offline("x")
    assert (await refresh(second["refreshToken"]))[1]["code"] == "AGENT_FORCED_OFFLINE"
    net.allow_online("x")
    third = await api.connect("x")
    assert net.revoke_tokens("refresh") >= 1
    assert (await refresh(third["refreshToken"]))[1]["code"] == "REFRESH_TOKEN_INVALID"
    net.revoke_api_key(api.key)
    assert (await refresh(third["refreshToken"]))[1]["code"] == "API_KEY_INVALID"
    assert (await api.ask("GET", "/api/v1/registry/publish-context"))[0] == 401


async def test_caller_identity_comes_from_the_key(net: DevNetwork) -> None:
    async with Api(net, "bk_alice") as alice:
        answer = await alice.log_in()
        assert answer["userId"] == "user_alice"
        assert (await alice.ask("GET", "/api/v1/orgs"))[1]["orgs"][0]["id"] == "org_alice"
        assert (await alice.ask("PATCH", "/api/v1/orgs/org_alice", {"name": "Alice's"}))[1][
            "name"
        ] == "Alice's"
        status, answer = await alice.ask("POST", "/api/v1/auth/agent/consumer-token", {"apiKey": "x"}, "")
        assert (status, answer["code"]) == (401, "API_KEY_INVALID")


async def test_invitations_and_grants() -> None:
    async with DevNetwork(settings=Settings(enforce_private=True)) as net, Api(net) as owner:
        await owner.ask("POST", "/api/v1/registry/agents", publication("x"))
        async with Api(net, "bk_bob") as bob:
            assert (await bob.ask("GET", READ + "x"))[0] == 404
            assert (await bob.ask("GET", "/api/v1/agents/x/grants"))[0] == 404
            invite = (await owner.ask("POST", "/api/v1/agents/x/invitations", {"email": "bob@example.org"}))[
                1
            ]
            assert invite["notified"] == 0
            token = invite["inviteUrl"].rpartition("/")[2]
            listed = (await owner.ask("GET", "/api/v1/agents/x/invitations"))[1]["invitations"]
            assert listed[0]["email"] == "bob@example.org"
            assert (await bob.ask("POST", "/api/v1/agent-invitations/accept", {"token": token}))[0] == 200
            assert (await bob.ask("GET", READ + "x"))[0] == 200
            (grant,) = (await owner.ask("GET", "/api/v1/agents/x/grants"))[1]["grants"]
            assert (await owner.ask("DELETE", f"/api/v1/agents/x/grants/{grant['id']}"))[0] == 200
            assert (await bob.ask("GET", READ + "x"))[0] == 404


async def test_bodies_that_are_no_objects(api: Api) -> None:
    assert (await api.ask("POST", "/api/v1/auth/agent/connect", [1]))[0] == 400
    assert (await api.ask("PUT", "/api/v1/registry/agents"))[0] == 405
    assert (await api.ask("GET", "/api/v1/nothing"))[0] == 404
