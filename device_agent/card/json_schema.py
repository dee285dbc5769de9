"""A checker for the part of JSON Schema (draft 2020-12) that the card's rules and the card's schemas use.

It reports every fault as a sentence with its place. Keywords that are not in `KEYWORDS` are annotations.

Not the package `jsonschema`: its messages would have to be written anew for people who edit a configuration,
which is most of this file, and it adds 10 MB of memory, 0.1 s of import and a compiled wheel (rpds-py). The
tests compare the two.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

from device_agent.records import is_number

Schema = Mapping[str, Any]


def faults(schema: Schema, value: Any, *, place: str = "") -> list[str]:
    """Every way in which a JSON value breaks a schema; empty if it keeps it. `place` is the value's name."""
    return list(_Check(schema).faults(schema, value, place))


def same(one: Any, other: Any) -> bool:
    """Equality as JSON has it: true is not 1, but 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


class _Check:
    """One schema document; references are looked up in it."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def faults(self, schema: Schema | bool, value: Any, place: str) -> Iterator[str]:
        if isinstance(schema, bool):
            if not schema:
                yield f"{_name(place)} is not allowed"
            return
        for keyword, check in _CHECKS.items():
            if keyword in schema:
                yield from check(self, schema, value, place)

    def keeps(self, schema: Schema | bool, value: Any) -> bool:
        return next(self.faults(schema, value, ""), None) is None

    def resolve(self, reference: str) -> Schema:
        found: Any = self._root
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        return found  # type: ignore[no-any-return]


_Keyword = Callable[[_Check, Schema, Any, str], Iterator[str]]


def _name(place: str) -> str:
    return place or "the value"


def _within(place: str, step: object) -> str:
    return f"{place}.{step}" if place else str(step)


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "object": ("an object", lambda value: isinstance(value, Mapping)),
    "array": ("a list", lambda value: isinstance(value, list | tuple)),
    "string": ("text", lambda value: isinstance(value, str)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "null": ("null", lambda value: value is None),
    "number": ("a number", _is_finite),
    "integer": ("a whole number", lambda value: _is_finite(value) and value == int(value)),
}


def _type(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(_TYPES[kind][1](value) for kind in kinds):
        yield f"{_name(place)} must be {' or '.join(_TYPES[kind][0] for kind in kinds)}"


def _ref(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    yield from check.faults(check.resolve(schema["$ref"]), value, place)


def _enum(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if not any(same(value, allowed) for allowed in schema["enum"]):
        yield f"{_name(place)} must be one of {', '.join(map(str, schema['enum'][:20]))}"


def _const(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if not same(value, schema["const"]):
        yield f"{_name(place)} must be {schema['const']}"


def _pattern(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if isinstance(value, str) and re.search(schema["pattern"], value) is None:
        yield f"{_name(place)} must match {schema['pattern']}"


def _bound(keyword: str, words: str, broken: Callable[[Any, Any], bool]) -> _Keyword:
    def check_bound(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
        if _is_finite(value) and broken(value, schema[keyword]):
            yield f"{_name(place)} must be {words} {schema[keyword]:g}"

    return check_bound


def _length(keyword: str, kinds: tuple[type[Sized], ...], words: str, sign: int) -> _Keyword:
    def check_length(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
        if isinstance(value, kinds) and sign * len(value) > sign * schema[keyword]:
            yield f"{_name(place)} must have {words.format(schema[keyword])}"

    return check_length


def _required(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key in schema["required"]:
            if key not in value:
                yield f"{_within(place, key)} is missing"


def _members(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    known: Schema = schema.get("properties", {})
    for key, item in value.items():
        if key in known:
            yield from check.faults(known[key], item, _within(place, key))
        elif schema.get("additionalProperties") is False:
            yield f"{_within(place, key)} is not a member here"
        elif "additionalProperties" in schema:
            yield from check.faults(schema["additionalProperties"], item, _within(place, key))


def _only_members(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if "properties" not in schema:
        yield from _members(check, schema, value, place)


def _property_names(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key in value:
            yield from check.faults(schema["propertyNames"], key, f"the name {_within(place, key)}")


def _items(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from check.faults(schema["items"], item, _within(place, index))


def _unique(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if schema["uniqueItems"] and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if any(same(item, earlier) for earlier in value[:index]):
                yield f"{_within(place, index)} is there twice"


def _all_of(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    for part in schema["allOf"]:
        yield from check.faults(part, value, place)


def _any_of(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if not any(check.keeps(part, value) for part in schema["anyOf"]):
        yield f"{_name(place)} {schema.get('$comment', 'has none of the allowed forms')}"


def _one_of(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if sum(check.keeps(part, value) for part in schema["oneOf"]) != 1:
        yield f"{_name(place)} {schema.get('$comment', 'must have exactly one of the allowed forms')}"


def _not(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    if check.keeps(schema["not"], value):
        yield f"{_name(place)} {schema.get('$comment', 'has a form that is not allowed')}"


def _if(check: _Check, schema: Schema, value: Any, place: str) -> Iterator[str]:
    branch = "then" if check.keeps(schema["if"], value) else "else"
    yield from check.faults(schema.get(branch, True), value, place)


_SIZED = (list, tuple)
_CHECKS: dict[str, _Keyword] = {
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "minimum": _bound("minimum", "at least", lambda value, bound: value < bound),
    "maximum": _bound("maximum", "at most", lambda value, bound: value > bound),
    "exclusiveMinimum": _bound("exclusiveMinimum", "more than", lambda value, bound: value <= bound),
    "minLength": _length("minLength", (str,), "at least {} characters", -1),
    "maxLength": _length("maxLength", (str,), "at most {} characters", 1),
    "minItems": _length("minItems", _SIZED, "at least {} items", -1),
    "maxItems": _length("maxItems", _SIZED, "at most {} items", 1),
    "minProperties": _length("minProperties", (dict,), "at least {} members", -1),
    "maxProperties": _length("maxProperties", (dict,), "at most {} members", 1),
    "required": _required,
    "properties": _members,
    "additionalProperties": _only_members,
    "propertyNames": _property_names,
    "items": _items,
    "uniqueItems": _unique,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
}

KEYWORDS = frozenset(_CHECKS) | {"then", "else", "$defs"}
"""The keywords that are checked (or belong to one that is)."""
