"""The registry: agents, their cards, and what their instances stated at connect (docs/protocol.md)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from device_agent.records import is_whole
from device_agent.testing.network.accounts import Requester
from device_agent.testing.network.http import backend_error
from device_agent.testing.network.settings import BILLING_ENVIRONMENT, Settings

AGENT_NAME = re.compile(r"[a-zA-Z0-9_]+")
_MAX_AUTOMATIC = 10_000
_REQUIRED_CARD_MEMBERS = ("identity", "capabilities", "tags", "runtime")


@dataclass(slots=True, eq=False)
class RegisteredAgent:
    """A registered agent. ``environment`` is the key set that it uses now."""

    name: str
    agent_id: str
    listing: str
    billing_mode: str
    environment: str
    registered_at: str
    card: dict[str, Any] | None = None
    owner_org: str | None = None
    prices: dict[str, Any] = field(default_factory=dict)
    grants: dict[str, dict[str, Any]] = field(default_factory=dict)
    forced_offline: bool = False
    expected_instances: int = 1
    max_backlog: int | None = None
    max_running_time_s: int | None = None
    instances: dict[str, int] = field(default_factory=dict)
    """Concurrency of each connected process by its instance id; 0 means unlimited."""
    connects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def control_channel(self) -> str:
        """The control channel."""
        return f"agent.{self.agent_id}.control"

    @property
    def streams(self) -> dict[str, Any] | None:
        """The card's streams, or ``None`` without a card."""
        if self.card is None:
            return None
        streams = self.card.get("streams")
        return streams if isinstance(streams, dict) else {}

    def connected(self, payload: dict[str, Any]) -> None:
        """Take over what an instance states at connect."""
        instance_id = str(payload["instanceId"])
        self.instances[instance_id] = _integer(payload, "concurrency", 1)
        self.expected_instances = _integer(payload, "expectedInstances", 1)
        if "maxPendingBacklog" in payload:
            self.max_backlog = _integer(payload, "maxPendingBacklog", 0)
        if "maxRunningTimeSec" in payload:
            self.max_running_time_s = _integer(payload, "maxRunningTimeSec", 0)
        self.connects = [*self.connects[-99:], payload]
        while len(self.instances) > 1000:
            del self.instances[next(iter(self.instances))]

    def to_wire(self) -> dict[str, Any]:
        """The registry's form of the agent."""
        identity = (self.card or {}).get("identity", {})
        return {
            "agentName": self.name,
            "name": identity.get("displayName", self.name),
            "description": identity.get("description", ""),
            "tags": (self.card or {}).get("tags", []),
            "scaling": {},
            "card": self.card,
            "cardRef": None,
            "cardSummary": None,
            "listing": self.listing,
            "billingMode": self.billing_mode,
            "registeredAt": self.registered_at,
            **self.prices,
        }


def _integer(payload: dict[str, Any], name: str, default: int) -> int:
    value = payload.get(name, default)
    if not is_whole(value) or value < 0:
        raise backend_error(400, "INVALID_REQUEST", f"{name} must be a number from 0 up, not {value!r}.")
    return value


class Registry:
    """All agents by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.agents: dict[str, RegisteredAgent] = {}
        self.by_control: dict[str, RegisteredAgent] = {}

    def find(self, name: str) -> RegisteredAgent | None:
        """The agent; with ``auto_register`` a new private, free one for a well-formed name."""
        found = self.agents.get(name)
        if found is not None or not self._settings.auto_register or len(self.agents) >= _MAX_AUTOMATIC:
            return found
        if AGENT_NAME.fullmatch(name):
            return self.register(name)
        return found

    def register(
        self,
        name: str,
        card: dict[str, Any] | None = None,
        *,
        listing: str = "private",
        billing_mode: str = "free",
        owner_org: str | None = None,
        prices: dict[str, Any] | None = None,
    ) -> RegisteredAgent:
        """Publish an agent, new or again; 400 when a value is not allowed."""
        _check_publication(name, card, listing, billing_mode)
        found = self.agents.get(name)
        if found is None:
            # Stable from one start to the next, like a real id.
            agent_id = "agt" + hashlib.sha256(name.encode()).hexdigest()[:16]
            found = RegisteredAgent(
                name=name,
                agent_id=agent_id,
                listing=listing,
                billing_mode=billing_mode,
                environment=BILLING_ENVIRONMENT[billing_mode],
                registered_at=datetime.now(UTC).isoformat(),
            )
            self.agents[name] = self.by_control[found.control_channel] = found
        if found.prices and billing_mode == "free":
            raise backend_error(400, "BillingModeInvalid", "An agent that has a price cannot be free.")
        if found.billing_mode != billing_mode:
            found.environment = BILLING_ENVIRONMENT[billing_mode]
        found.listing, found.billing_mode = listing, billing_mode
        found.card = card if card is not None else found.card
        found.owner_org = owner_org or found.owner_org
        found.prices = prices if prices is not None else found.prices
        return found

    def remove(self, name: str) -> bool:
        """Unpublish an agent; whether there was one."""
        found = self.agents.pop(name, None)
        if found is not None:
            del self.by_control[found.control_channel]
        return found is not None

    def visible(self, agent: RegisteredAgent, identity: Requester | None) -> bool:
        """Whether the agent exists for that reader."""
        if agent.listing == "public":
            return True
        if identity is None:
            return False
        if not self._settings.enforce_private or agent.owner_org in (None, identity.org_id):
            return True
        return any(identity.org_id in (g.get("org"), g.get("userOrg")) for g in agent.grants.values())

    def listed(self, identity: Requester | None, tag: str, listing: str) -> list[RegisteredAgent]:
        """The agents that a reader may see, by name."""
        return [
            a
            for _, a in sorted(self.agents.items())
            if self.visible(a, identity) and listing in ("", a.listing) and (not tag or tag in _tag_ids(a))
        ]


def _tag_ids(agent: RegisteredAgent) -> set[str]:
    tags = (agent.card or {}).get("tags", [])
    return {str(t.get("id")) for t in tags if isinstance(t, dict)}


def _check_publication(name: str, card: dict[str, Any] | None, listing: str, billing_mode: str) -> None:
    if not AGENT_NAME.fullmatch(name):
        raise backend_error(
            400, "INVALID_REQUEST", f"agentName {name!r} may hold letters, digits and _ only."
        )
    if listing not in ("private", "public"):
        raise backend_error(400, "INVALID_REQUEST", f"listing is private or public, not {listing!r}.")
    if billing_mode not in BILLING_ENVIRONMENT:
        raise backend_error(400, "BillingModeInvalid", f"billingMode is free or paid, not {billing_mode!r}.")
    if card is None:
        return
    if "skills" in card:
        raise backend_error(400, "INVALID_CARD", "The card member skills is called tags.")
    missing = [m for m in _REQUIRED_CARD_MEMBERS if m not in card]
    if missing:
        raise backend_error(400, "INVALID_CARD", f"The card lacks {', '.join(missing)}.")
    stated = card["identity"].get("agentName") if isinstance(card["identity"], dict) else None
    if stated != name:
        raise backend_error(400, "INVALID_CARD", f"The card names agent {stated!r}, the request {name!r}.")
