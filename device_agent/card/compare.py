"""How the card that would be published differs from the one that is."""

from collections.abc import Iterator, Mapping
from typing import Any

# What the configuration decides. Members that the network may add to a card are not ours to compare.
OURS = ("identity", "capabilities", "tags", "runtime", "io", "streams")
SHOWN_MAX = 60


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
