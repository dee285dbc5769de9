"""Registry and account end points (protocol section 3.1; the account page)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from device_agent.testing.network.accounts import Accounts, Identity
from device_agent.testing.network.calls import Call
from device_agent.testing.network.clock import now_ms
from device_agent.testing.network.registry import Agent, Registry
from device_agent.testing.network.replies import backend_error, reply

_PRICE_MEMBERS = ("pricePerTask", "pricePerMinute", "freeTasksPerConsumer", "freeMinutesPerConsumer")
_LIMITS = {
    "minPricePerTask": "0.0001",
    "maxPricePerTask": "25.00",
    "minPricePerMinute": "0.01",
    "maxPricePerMinute": "1.00",
    "maxFreeTasksAllowed": 100,
    "maxFreeMinutesAllowed": 30,
}
_MAX_INVITATIONS = 1000


class RegistryApi:
    """Agents, organisations, invitations and grants."""

    def __init__(self, accounts: Accounts, registry: Registry) -> None:
        self._accounts = accounts
        self._registry = registry
        self._org_names: dict[str, str] = {}
        self._invitations: dict[str, dict[str, Any]] = {}

    async def agents(self, call: Call) -> web.Response:
        """Read, list, publish or delete."""
        if call.method == "GET":
            return self._read(call) if "agentName" in call.query else self._list(call)
        identity = self._accounts.required(call.bearer)
        if call.method == "POST":
            return self._publish(await call.json(), identity, call)
        if call.method == "DELETE":
            agent = self._owned(call.query.get("agentName", ""), identity)
            self._registry.remove(agent.name)
            return reply({"agentName": agent.name, "status": "deleted", "ts": now_ms()})
        raise backend_error(405, "METHOD_NOT_ALLOWED", f"{call.method} is not possible here.")

    def _read(self, call: Call) -> web.Response:
        agent = self._registry.find(call.query["agentName"])
        if agent is None or not self._registry.visible(agent, self._accounts.optional(call.bearer)):
            raise backend_error(404, "AGENT_NOT_FOUND", "There is no such agent.")
        return reply({"agent": agent.to_wire()})

    def _list(self, call: Call) -> web.Response:
        identity = self._accounts.optional(call.bearer)
        found = self._registry.listed(identity, call.query.get("tag", ""), call.query.get("listing", ""))
        limit, start = _number(call, "limit", 100), _number(call, "cursor", 0)
        more = start + limit < len(found)
        return reply(
            {
                "agents": [a.to_wire() for a in found[start : start + limit]],
                "next": str(start + limit) if more else None,
                "totalCount": len(found),
            }
        )

    def _publish(self, body: dict[str, Any], identity: Identity, call: Call) -> web.Response:
        name = str(body.get("agentName", ""))
        known = self._registry.agents.get(name)
        if known is not None and known.owner_org not in (None, identity.org_id):
            raise backend_error(403, "AGENT_NOT_OWNED", f"Agent {name} belongs to another organisation.")
        if not isinstance(body.get("card"), dict):
            raise backend_error(400, "INVALID_CARD", "The card is missing.")
        prices = {k: body[k] for k in _PRICE_MEMBERS if k in body}
        billing_mode = str(body.get("billingMode", "free"))
        if billing_mode == "paid" and "tcAcceptedAt" not in body:
            raise backend_error(400, "TERMS_NOT_ACCEPTED", "A paid agent needs tcAcceptedAt.")
        agent = self._registry.register(
            name,
            body["card"],
            listing=str(body.get("listing", "private")),
            billing_mode=billing_mode,
            owner_org=identity.org_id,
            prices=prices if billing_mode == "paid" else None,
        )
        return reply({"agent": agent.to_wire(), "agentUrl": f"{call.base}/agents/{agent.name}"})

    async def publish_context(self, call: Call) -> web.Response:
        """What the publishing organisation is, and how many agents it has."""
        identity = self._accounts.required(call.bearer)
        count = sum(a.owner_org == identity.org_id for a in self._registry.agents.values())
        name = self._org_names.get(identity.org_id, identity.org_id)
        return reply({"orgId": identity.org_id, "orgName": name, "agentCount": count})

    async def pricing_limits(self, call: Call) -> web.Response:
        """Price bounds."""
        return reply(_LIMITS)

    async def orgs(self, call: Call) -> web.Response:
        """List the caller's organisation, or rename it."""
        identity = self._accounts.required(call.bearer)
        if call.method == "PATCH":
            name = str((await call.json()).get("name", ""))
            if call.segments[3:4] != [identity.org_id] or not name:
                raise backend_error(400, "INVALID_REQUEST", "Only the own organisation can be renamed.")
            if name in (n for org, n in self._org_names.items() if org != identity.org_id):
                raise backend_error(409, "ORG_NAME_TAKEN", "The name is taken.")
            self._org_names[identity.org_id] = name
        org = {
            "id": identity.org_id,
            "name": self._org_names.get(identity.org_id, identity.org_id),
            "slug": identity.org_id.replace("_", "-"),
        }
        return reply({"orgs": [org]} if call.method == "GET" else org)

    async def invitations(self, call: Call) -> web.Response:
        """``/api/v1/agents/{name}/invitations``: make or list them."""
        agent = self._owned(call.segments[3], self._accounts.required(call.bearer))
        if call.method == "GET":
            shown = ("id", "email", "scope", "expiresAt", "createdAt")
            mine = [i for i in self._invitations.values() if i["agent"] == agent.name]
            return reply({"invitations": [{k: i[k] for k in shown} for i in mine]})
        if agent.listing != "private":
            raise backend_error(400, "AGENT_NOT_PRIVATE", "Only private agents take invitations.")
        body = await call.json()
        email, slug = body.get("email"), body.get("targetOrgSlug")
        if body and not email and not slug:
            raise backend_error(400, "INVALID_REQUEST", "email or targetOrgSlug is missing.")
        if len(self._invitations) >= _MAX_INVITATIONS:
            raise backend_error(429, "TOO_MANY", "There are too many open invitations.")
        token, now = secrets.token_urlsafe(16), datetime.now(UTC)
        self._invitations[token] = {
            "id": f"inv_{token[:8]}",
            "agent": agent.name,
            "email": email,
            "slug": slug,
            "scope": "org" if slug else "user",
            "createdAt": now.isoformat(),
            "expiresAt": (now + timedelta(days=7)).isoformat(),
        }
        url = f"{call.base}/invitations/{token}"
        return reply({"id": f"inv_{token[:8]}", "notified": 0, "inviteUrl": url, "token": token})

    async def accept(self, call: Call) -> web.Response:
        """``POST /api/v1/agent-invitations/accept``."""
        identity = self._accounts.required(call.bearer)
        invitation = self._invitations.pop(str((await call.json()).get("token")), None)
        agent = self._registry.agents.get(invitation["agent"]) if invitation else None
        if invitation is None or agent is None:
            raise backend_error(404, "INVITATION_NOT_FOUND", "There is no such invitation.")
        grant_id = f"gr_{secrets.token_hex(6)}"
        agent.grants[grant_id] = {
            "id": grant_id,
            "scope": invitation["scope"],
            "createdAt": datetime.now(UTC).isoformat(),
            "granteeUser": {"name": identity.user_id, "email": invitation["email"]},
            "granteeOrg": {"id": identity.org_id, "name": identity.org_id, "slug": invitation["slug"]},
            "org": identity.org_id,
        }
        return reply({"agentName": agent.name, "grantId": grant_id})

    async def grants(self, call: Call) -> web.Response:
        """``/api/v1/agents/{name}/grants``: list, or delete one."""
        agent = self._owned(call.segments[3], self._accounts.required(call.bearer))
        if call.method == "DELETE":
            if agent.grants.pop(call.segments[-1], None) is None:
                raise backend_error(404, "GRANT_NOT_FOUND", "There is no such grant.")
            return reply({"status": "deleted"})
        shown = ("id", "scope", "createdAt", "granteeUser", "granteeOrg")
        return reply({"grants": [{k: g[k] for k in shown} for g in agent.grants.values()]})

    def _owned(self, name: str, identity: Identity) -> Agent:
        agent = self._registry.agents.get(name)
        if agent is None or agent.owner_org not in (None, identity.org_id):
            raise backend_error(404, "AGENT_NOT_FOUND", "There is no such agent of this organisation.")
        return agent


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "")
    if text and not text.isdigit():
        raise backend_error(400, "INVALID_REQUEST", f"{name} must be a number.")
    return int(text) if text else default
