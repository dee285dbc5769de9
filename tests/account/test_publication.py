"""Prices and what is published: which terms are wrong, and the body of the request."""

from decimal import Decimal
from typing import Any

import pytest

from device_agent.account.publication import ListingLimits, Terms, body, by_kind, faults
from device_agent.errors import AgentError

LIMITS = ListingLimits()
BOTH = ("request", "pipe")
CARD = {"identity": {"agentName": "greenhouse"}}


def paid(**members: Any) -> Terms:
    return Terms("public", "paid", **{"accepted": True, "price_per_task": Decimal("1"), **members})


def test_free_terms_and_good_prices_have_no_fault():
    assert faults(Terms("public", "free"), BOTH, LIMITS) == []
    assert faults(paid(price_per_minute=Decimal("0.5"), free_tasks=0, free_minutes=30), BOTH, LIMITS) == []


@pytest.mark.parametrize(
    ("member", "value", "good"),
    [
        ("price_per_task", Decimal("0.0001"), True),
        ("price_per_task", Decimal("0.00009"), False),
        ("price_per_task", Decimal("25.00"), True),
        ("price_per_task", Decimal("25.01"), False),
        ("price_per_minute", Decimal("0.01"), True),
        ("price_per_minute", Decimal("1.01"), False),
        ("free_tasks", 100, True),
        ("free_tasks", 101, False),
        ("free_tasks", -1, False),
        ("free_minutes", 31, False),
    ],
)
def test_prices_and_free_units_have_bounds(member: str, value: Any, good: bool):
    assert (faults(paid(**{member: value}), BOTH, LIMITS) == []) is good


def test_a_free_agent_has_no_prices():
    (fault,) = faults(Terms("public", "free", price_per_task=Decimal("1")), BOTH, LIMITS)
    assert "--billing-mode paid" in fault


def test_a_price_is_for_a_kind_of_task_that_is_served():
    (fault,) = faults(paid(price_per_minute=Decimal("0.5")), ["request"], LIMITS)
    assert fault.startswith("--price-per-minute is for pipe tasks")


def test_a_paid_agent_needs_a_price_and_accepted_terms():
    wrong = faults(Terms("public", "paid"), BOTH, LIMITS)
    assert len(wrong) == 2
    assert "--accept-terms" in wrong[1]


def test_one_value_goes_to_the_kind_that_is_served():
    assert by_kind(None, BOTH, "--price") == (None, None)
    assert by_kind(5, ["request"], "--price") == (5, None)
    assert by_kind(5, ["pipe"], "--price") == (None, 5)
    with pytest.raises(AgentError, match="--price-per-task and --price-per-minute"):
        by_kind(5, BOTH, "--price")


def test_the_request_of_a_free_agent_names_no_price():
    assert body(CARD, Terms("private", "free")) == {
        "agentName": "greenhouse",
        "card": CARD,
        "listing": "private",
        "billingMode": "free",
    }


def test_the_request_of_a_paid_agent_has_prices_as_text_and_only_what_was_given():
    made = body(CARD, paid(price_per_task=Decimal("0.10"), free_tasks=0))
    assert (made["pricePerTask"], made["freeTasksPerConsumer"]) == ("0.10", 0)
    assert "pricePerMinute" not in made
    assert made["tcAcceptedAt"].endswith("Z")
