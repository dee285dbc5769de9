"""Messages as frozen dataclasses that check themselves, without a library's models in the daemon's memory.

Each field is `Annotated[type, check]`; a check returns what is wrong with a value, "" for nothing.
"""

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self, get_type_hints

from device_agent.errors import Rejected

Check = Callable[[Any], str]

Member = tuple[str, str, Check, bool]
"""Name in JSON, name of the field, its check, whether it must be there."""

TEXT_MAX = 4096
SHOWN_MAX = 100

_MEMBERS: dict[type, list[Member]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A message; making one raises Rejected `invalid_value` with a sentence that names member and fault."""

    def __post_init__(self) -> None:
        _refuse([(name, check(getattr(self, field))) for name, field, check, _ in _members(type(self))])

    @classmethod
    def read(cls, message: Any) -> Self:
        """From a decoded JSON object. A member whose name is a Python keyword is the field with a `_`."""
        if not isinstance(message, dict):
            raise Rejected("invalid_value", "the message should be an object")
        members = _members(cls)
        faults = [
            (name, check(message[name]) if name in message else "field required" if required else "")
            for name, _, check, required in members
        ]
        unknown = message.keys() - {name for name, *_ in members}
        _refuse(
            [*faults, *((str(name), "extra inputs are not permitted") for name in sorted(unknown, key=str))]
        )
        return cls(**{field: message[name] for name, field, _, _ in members if name in message})

    def members(self, *, but_none: bool = False) -> dict[str, Any]:
        """As a JSON object; `but_none` leaves out what is None."""
        named = {name: getattr(self, field) for name, field, _, _ in _members(type(self))}
        return {name: value for name, value in named.items() if not (but_none and value is None)}


def _members(form: type[Form]) -> list[Member]:
    if form not in _MEMBERS:
        hints = get_type_hints(form, include_extras=True)
        _MEMBERS[form] = [
            (
                one.name.removesuffix("_"),
                one.name,
                hints[one.name].__metadata__[0],
                one.default is MISSING and one.default_factory is MISSING,
            )
            for one in fields(form)
        ]
    return _MEMBERS[form]


def _refuse(checked: list[tuple[str, str]]) -> None:
    faults = [(name, fault) for name, fault in checked if fault]
    if not faults:
        return
    more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
    name, fault = faults[0]
    # The name is echoed, and may be anything.
    text = f"{name[:SHOWN_MAX]}: {fault[: 3 * SHOWN_MAX]}{more}"
    raise Rejected("invalid_value", text.encode(errors="replace").decode())


def text(least: int = 0, most: int | None = None, most_bytes: int | None = None) -> Check:
    """So many characters, and at most so many bytes."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            return "input should be a valid string"
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError:
            return "has half a character (a surrogate), which no text can hold"
        if len(value) < least:
            return f"string should have at least {least} character"
        if most is not None and len(value) > most:
            return f"string should have at most {most} characters"
        if most_bytes is not None and size_bytes > most_bytes:
            return f"has {size_bytes} bytes, at most {most_bytes} are taken"
        return ""

    return check


def number(
    above: float = -math.inf, *, least: float = -math.inf, most: float = math.inf, whole: bool = False
) -> Check:
    """Above one bound, within two others."""

    def check(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            return f"input should be a valid {'integer' if whole else 'number'}"
        if not value > above:
            return f"input should be greater than {above}"
        if not value >= least:
            return f"input should be greater than or equal to {least}"
        return "" if value <= most else f"input should be less than or equal to {most}"

    return check


def boolean(value: Any) -> str:
    return "" if isinstance(value, bool) else "input should be true or false"


def one_of(*words: str) -> Check:
    return lambda value: "" if value in words else f"input should be {' or '.join(map(repr, words))}"


def optional(check: Check) -> Check:
    return lambda value: "" if value is None else check(value)


def list_of(check: Check, least: int = 0, most: int = 256) -> Check:
    """A list of so many of these."""

    def check_all(value: Any) -> str:
        if not isinstance(value, list):
            return "input should be a valid list"
        if not least <= len(value) <= most:
            return f"list should have at least {least} and at most {most} items, not {len(value)}"
        return next((f"{place}: {fault}" for place, one in enumerate(value) if (fault := check(one))), "")

    return check_all


def values_by(name: Check, least: int, most: int) -> Check:
    """An object of so many plain values, by names that pass this check."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return "input should be a valid dictionary"
        if not least <= len(value) <= most:
            return f"dictionary should have at least {least} and at most {most} items, not {len(value)}"
        faults = (fault for key, one in value.items() if (fault := name(key) or _unlike_a_value(key, one)))
        return next(faults, "")

    return check


def _unlike_a_value(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{name} is not a finite number"
    if isinstance(value, int):
        return "" if abs(value) <= 2**53 else f"{name} is beyond 2^53"
    if isinstance(value, str):
        if len(value) > TEXT_MAX:
            return f"{name} is longer than {TEXT_MAX} characters"
        return f"{name} {fault}" if (fault := text()(value)) else ""
    return f"{name} is a {type(value).__name__}, not a number, text, true, false or null"
