"""How the published card differs from the one that the configuration makes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from device_agent.card.agent_card import build
from device_agent.config import Config

log = structlog.get_logger("card")

# What the configuration decides. Members that the network may add to a card are not ours to compare.
OURS = ("identity", "capabilities", "tags", "runtime", "io", "streams")
SHOWN_MAX = 60
LOGGED_MAX = 5


def differences(published: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """One line for each: `+ place` is new, `- place` goes, `~ place: before → after` changes."""
    before = {name: published[name] for name in OURS if name in published}
    return list(_walk(before, {name: made[name] for name in OURS if name in made}, ""))


def _walk(before: Any, after: Any, place: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            inner = f"{place}.{name}" if place else str(name)
            if name not in after:
                yield f"- {inner}"
            elif name not in before:
                yield f"+ {inner}"
            else:
                yield from _walk(before[name], after[name], inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _walk(*pair, f"{place}[{number}]")
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield f"~ {place}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    text = f"{len(value)} items" if isinstance(value, (list, dict)) else str(value)
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= SHOWN_MAX else f"{clean[: SHOWN_MAX - 1]}…"


class CardWatch:
    """Warns when the published card is not the configuration's: callers rely on it."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._logged: list[str] = []

    def published(self, card: Mapping[str, Any]) -> None:
        """Compare the registry's card, at each join; the same differences are logged once."""
        changes = differences(card, build(self._config()))
        if changes and changes != self._logged:
            log.warning(
                "card_differs",
                changes=changes[:LOGGED_MAX],
                count=len(changes),
                command="device-agent publish",
            )
        self._logged = changes
