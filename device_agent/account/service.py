"""The network's account API."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from device_agent import __version__
from device_agent.account.publication import ListingLimits
from device_agent.clock import SystemClock
from device_agent.config.models import NetworkConfig
from device_agent.errors import AgentError, NetworkError, ProtocolFault, Refused, Rejected, Unreachable
from device_agent.network.blocks.http import Api, Http
from device_agent.network.blocks.joiner import CDM_LIMIT_S, DEFAULT_CDM_URL
from device_agent.network.blocks.wire import PROTOCOL_VERSION
from device_agent.network.connectivity import Connectivity
from device_agent.records import is_whole
from device_agent.text.printable import printable

LIMITS_LIMIT_S = 5.0
AGENTS = "/api/v1/registry/agents"


class Account:
    """The requests of one command. Raises Rejected `not_allowed` if the key is refused, else AgentError."""

    def __init__(self, api: Api, api_key: str, dashboard_url: str) -> None:
        self._api = api
        self._key = api_key
        self.dashboard_url = dashboard_url

    async def context(self) -> dict[str, str | int]:
        """`orgId`, `orgName` and `agentCount` of the key's organisation, as far as the answer has them."""
        reply = await self._ask("GET", "/api/v1/registry/publish-context")
        members: dict[str, str | int] = {
            name: printable(reply[name]) for name in ("orgId", "orgName") if isinstance(reply.get(name), str)
        }
        if isinstance(reply.get("agentCount"), int):
            members["agentCount"] = reply["agentCount"]
        return members

    async def limits(self) -> ListingLimits:
        """The bounds of prices; the documented ones if the network does not answer."""
        try:
            reply = await self._api.request("GET", "/api/v1/pricing/limits", limit_s=LIMITS_LIMIT_S)
            return ListingLimits(
                _money(reply, "minPricePerTask"),
                _money(reply, "maxPricePerTask"),
                _money(reply, "minPricePerMinute"),
                _money(reply, "maxPricePerMinute"),
                _count(reply, "maxFreeTasksAllowed"),
                _count(reply, "maxFreeMinutesAllowed"),
            )
        except (NetworkError, ValueError):
            return ListingLimits()

    async def agent(self, name: str) -> dict[str, Any] | None:
        """The registry's entry of an agent; None if there is none that this key may see."""
        try:
            reply = await self._ask("GET", f"{AGENTS}?agentName={quote(name)}")
        except Missing:
            return None
        entry = reply.get("agent")
        if not isinstance(entry, dict):
            raise AgentError(f"the registry's entry of {name} has a bad form: try again later")
        return entry

    async def publish(self, body: Mapping[str, Any]) -> str:
        """Publish an agent or its changes; returns the address of its page."""
        request = {
            **body,
            "cliVersion": f"device-agent/{__version__}",
            "protocolVersions": [PROTOCOL_VERSION],
            "preferredProtocolVersion": PROTOCOL_VERSION,
        }
        reply = await self._ask("POST", AGENTS, request)
        agent = reply.get("agent")
        url = reply.get("agentUrl") or (agent.get("url") if isinstance(agent, dict) else None)
        return _web(url) or self.page(str(body["agentName"]))

    async def unpublish(self, name: str) -> None:
        """Delete an agent. Raises AgentError unless the answer confirms it for this agent."""
        reply = await self._ask("DELETE", f"{AGENTS}?agentName={quote(name)}", missing=_no_agent(name))
        if reply.get("agentName") != name or reply.get("status") != "deleted":
            raise AgentError(f"the network did not say that {name} is deleted: look at {self.page(name)}")

    async def invite(self, name: str, whom: Mapping[str, str]) -> dict[str, Any]:
        """Invite `{"email"}` or `{"targetOrgSlug"}`; returns `inviteUrl` and `notified` if there are any."""
        path = f"/api/v1/agents/{quote(name)}/invitations"
        reply = await self._ask("POST", path, dict(whom), missing=f"{_no_agent(name)}: publish it first")
        answer: dict[str, Any] = {}
        if url := _web(reply.get("inviteUrl")):
            answer["inviteUrl"] = url
        if isinstance(reply.get("notified"), int):
            answer["notified"] = reply["notified"]
        return answer

    async def access(self, name: str) -> dict[str, list[dict[str, str]]]:
        """`grants` (who has access) and `invitations` (who was invited), with texts fit for a terminal."""
        reply: dict[str, Any] = {}
        for what in ("invitations", "grants"):
            reply |= await self._ask("GET", f"/api/v1/agents/{quote(name)}/{what}", missing=_no_agent(name))
        invited = [
            {"id": _text(item, "id"), "who": _text(item, "email", "scope"), "until": _text(item, "expiresAt")}
            for item in _objects(reply.get("invitations"))
        ]
        granted = [
            {
                "id": _text(item, "id"),
                "who": _text(item.get("granteeUser"), "email", "name")
                or _text(item.get("granteeOrg"), "name"),
                "since": _text(item, "createdAt"),
            }
            for item in _objects(reply.get("grants"))
        ]
        return {"grants": granted, "invitations": invited}

    async def revoke(self, name: str, grant_id: str) -> None:
        """Take a grant back."""
        path = f"/api/v1/agents/{quote(name)}/grants/{quote(grant_id)}"
        await self._ask("DELETE", path, missing=f"{name} has no grant {grant_id}: see invite --list")

    def page(self, name: str) -> str:
        """The agent's page on the dashboard."""
        return f"{self.dashboard_url}/agents/{quote(name)}"

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing: str = ""
    ) -> dict[str, Any]:
        """`missing` is the sentence for HTTP 404, which raises Missing."""
        try:
            return await self._api.request(method, path, bearer=self._key, body=body)
        except Refused as error:
            if error.status == 404:
                raise Missing(missing or str(error)) from error
            if error.status == 401:
                text = "the API key is not valid (any more): run `device-agent login`"
                raise Rejected("not_allowed", text) from error
            if error.status == 403:
                raise Rejected("not_allowed", str(error)) from error
            raise AgentError(_sentence(error)) from error
        except Unreachable as error:
            raise AgentError(f"{error}: is there a network, and is {self._api.base_url} right?") from error


class Missing(AgentError):
    """HTTP 404."""


def _no_agent(name: str) -> str:
    return f"there is no agent {name} of this organisation"


def _sentence(error: Refused) -> str:
    if error.code == "BillingModeInvalid":
        return (
            f"{error}; an agent that has a price stays paid: publish with --billing-mode paid and its prices"
        )
    return str(error)


@asynccontextmanager
async def account(network: NetworkConfig, api_key: str) -> AsyncIterator[Account]:
    """An account with its connections. Raises AgentError if the network has no address for it."""
    http = Http(Connectivity(SystemClock()), network.proxy, network.pubnub_origin or "")
    try:
        document = await _document(http, network)
        api = document.get("api")
        base_url = os.environ.get("BLOCKS_BACKEND_URL") or network.api_base_url
        base_url = base_url or _web(api.get("baseUrl") if isinstance(api, dict) else None)
        if not base_url:
            raise AgentError("the config document has no api.baseUrl: set network.api_base_url")
        yield Account(Api(http, base_url), api_key, _dashboard(document, base_url))
    finally:
        await http.close()


async def _document(http: Http, network: NetworkConfig) -> dict[str, Any]:
    url = network.cdm_url or os.environ.get("BLOCKS_CDM_URL") or DEFAULT_CDM_URL
    try:
        return await Api(http, url).request("GET", "", limit_s=CDM_LIMIT_S)
    except (Unreachable, Refused, ProtocolFault) as error:
        if network.api_base_url or os.environ.get("BLOCKS_BACKEND_URL"):
            return {}
        raise AgentError(f"{url}: {error}: is there a network, and is network.cdm_url right?") from error


def _dashboard(document: Mapping[str, Any], base_url: str) -> str:
    """The vendor's variables, else the document's own address, else the API's origin, as the vendor does.

    Unverified: the member `dashboard.baseUrl` of the config document; without it the API's origin serves.
    """
    own = document.get("dashboard")
    documented = _web(own.get("baseUrl")) if isinstance(own, dict) else ""
    named = os.environ.get("BLOCKS_APP_BASE_URL") or os.environ.get("BLOCKS_DASHBOARD_URL")
    return (named or documented or base_url).rstrip("/")


def _web(url: Any) -> str:
    """An http or https address that a terminal may show; else empty."""
    if isinstance(url, str) and url.startswith(("https://", "http://")) and url == printable(url, 2000):
        return url
    return ""


def _money(reply: Mapping[str, Any], name: str) -> Decimal:
    try:
        value = Decimal(str(reply[name]))
    except (KeyError, InvalidOperation):
        raise ValueError(name) from None
    if not value.is_finite():
        raise ValueError(name)
    return value


def _count(reply: Mapping[str, Any], name: str) -> int:
    value = reply.get(name)
    if not is_whole(value) or value < 0:
        raise ValueError(name)
    return value


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any, *names: str) -> str:
    """The first of these members that is a text, fit for a terminal."""
    members = value if isinstance(value, dict) else {}
    text = next((members[name] for name in names if isinstance(members.get(name), str)), "")
    return printable(text, 200)
