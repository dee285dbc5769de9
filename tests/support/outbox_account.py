"""What a caller that stays connected can account for: what came, and what gaps name."""

from collections.abc import Sequence
from typing import Any


def account(seen: Sequence[dict[str, Any]], first: int = 1) -> int:
    """Close the account of numbers; how many the gaps name. What came again on request is left out.

    Each number from the first up to the last either came once or is named by one gap; none did both.
    """
    numbers = [event["seq"] for event in seen]
    came = set(numbers)
    assert len(numbers) == len(came), f"came twice: {sorted(n for n in came if numbers.count(n) > 1)[:5]}"
    named: list[int] = []
    for gap in seen:
        if gap["kind"] == "gap" and gap["from_seq"] is not None:
            assert gap["count"] == gap["to_seq"] - gap["from_seq"] + 1, gap
            named += range(gap["from_seq"], gap["to_seq"] + 1)
    assert len(named) == len(set(named)), "named twice"
    wrong = came & set(named)
    assert not wrong, f"{len(wrong)} numbers came and are named by a gap: {sorted(wrong)[:5]}"
    missing = set(range(first, max(came, default=0) + 1)) - came - set(named)
    assert not missing, f"{len(missing)} numbers neither came nor are named: {sorted(missing)[:5]}"
    return len(named)


def stood_for(seen: Sequence[dict[str, Any]]) -> int:
    """How many readings those that came stand for."""
    return sum(event.get("thinned", {}).get("count", 1) for event in seen if event["kind"] == "reading")
