"""What is published: the card with its listing and prices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from device_agent.errors import AgentError


@dataclass(frozen=True, slots=True)
class ListingLimits:
    """Bounds of prices (US dollars), free tasks and free minutes; the defaults are the documented ones."""

    task_min: Decimal = Decimal("0.0001")
    task_max: Decimal = Decimal("25.00")
    minute_min: Decimal = Decimal("0.01")
    minute_max: Decimal = Decimal("1.00")
    free_tasks_max: int = 100
    free_minutes_max: int = 30


@dataclass(frozen=True, slots=True)
class Terms:
    """Who may find the agent, and its price in US dollars: for each task, for each minute of a pipe."""

    listing: str
    billing_mode: str
    price_per_task: Decimal | None = None
    price_per_minute: Decimal | None = None
    free_tasks: int | None = None
    free_minutes: int | None = None
    accepted: bool = False


def faults(terms: Terms, task_kinds: Sequence[str], limits: ListingLimits) -> list[str]:
    """One sentence for each fault of the terms; empty if they can be published."""
    wrong: list[str] = []
    stated = (
        ("--price-per-task", "request", terms.price_per_task, limits.task_min, limits.task_max),
        ("--price-per-minute", "pipe", terms.price_per_minute, limits.minute_min, limits.minute_max),
        ("--free-tasks", "request", terms.free_tasks, 0, limits.free_tasks_max),
        ("--free-minutes", "pipe", terms.free_minutes, 0, limits.free_minutes_max),
    )
    for option, kind, value, low, high in stated:
        if value is None:
            continue
        if terms.billing_mode == "free":
            wrong.append(f"{option} is for paid agents: leave it away, or add --billing-mode paid")
        elif kind not in task_kinds:
            wrong.append(f"{option} is for {kind} tasks, which this agent does not serve: leave it away")
        elif not low <= value <= high:
            wrong.append(f"{option} {value} is outside {low} to {high}")
    if terms.billing_mode == "paid":
        if terms.price_per_task is None and terms.price_per_minute is None:
            wrong.append("a paid agent needs --price-per-task, --price-per-minute, or both")
        if not terms.accepted:
            wrong.append(
                "a paid agent needs --accept-terms: you accept the network's terms for paid providers"
            )
    return wrong


def by_kind(value: Any, task_kinds: Sequence[str], option: str) -> tuple[Any, Any]:
    """One value as (for tasks, for minutes). Raises AgentError for an agent that serves both kinds."""
    if value is None:
        return None, None
    if len(task_kinds) > 1:
        better = {"--price": "--price-per-task and --price-per-minute"}
        raise AgentError(
            f"{option} does not say whether it is for tasks or for minutes, and this agent serves both: "
            f"use {better.get(option, '--free-tasks and --free-minutes')}"
        )
    return (value, None) if list(task_kinds) == ["request"] else (None, value)


def body(card: Mapping[str, Any], terms: Terms) -> dict[str, Any]:
    """The body of the publish request, without the members that name the client (`Account.publish`)."""
    request: dict[str, Any] = {
        "agentName": card["identity"]["agentName"],
        "card": card,
        "listing": terms.listing,
        "billingMode": terms.billing_mode,
    }
    if terms.billing_mode == "free":
        return request
    request["tcAcceptedAt"] = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    prices = {"pricePerTask": terms.price_per_task, "pricePerMinute": terms.price_per_minute}
    request |= {name: format(price, "f") for name, price in prices.items() if price is not None}
    free = {"freeTasksPerConsumer": terms.free_tasks, "freeMinutesPerConsumer": terms.free_minutes}
    return request | {name: count for name, count in free.items() if count is not None}
