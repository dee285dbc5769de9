"""A checker for the part of JSON Schema (draft 2020-12) that the network's card rules use.

It reports every fault as a sentence with its place. Keywords that are not in `KEYWORDS` are annotations.

Not the package `jsonschema`: its messages would have to be written anew for people who edit a configuration,
which is most of this file, and it adds 10 MB of memory, 0.1 s of import and a compiled wheel (rpds-py). The
tests compare the two.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from device_agent.records import is_number

Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "object": ("an object", lambda value: isinstance(value, Mapping)),
    "array": ("a list", lambda value: isinstance(value, list | tuple)),
    "string": ("text", lambda value: isinstance(value, str)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "null": ("null", lambda value: value is None),
    "number": ("a number", lambda value: _is_finite(value)),
    "integer": ("a whole number", lambda value: _is_finite(value) and value == int(value)),
}
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", lambda value, bound: value >= bound),
    "maximum": ("at most", lambda value, bound: value <= bound),
    "exclusiveMinimum": ("more than", lambda value, bound: value > bound),
}
KEYWORDS: frozenset[str] = frozenset().union(
    ("$ref", "$defs", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    ("pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum"),
    ("items", "uniqueItems", "minItems", "maxItems", "required", "properties", "additionalProperties"),
    ("propertyNames", "minProperties", "maxProperties"),
)
"""The keywords that are checked."""


def faults(schema: Schema, value: Any, *, place: str = "") -> list[str]:
    """Every way in which a JSON value breaks a schema; empty if it keeps it. `place` is the value's name."""
    return list(_Checker(schema).faults(schema, value, place))


def same(a: Any, b: Any) -> bool:
    """Equality as JSON has it: true is not 1, but 1.0 is."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


class _Checker:
    """One schema document; references are looked up in it."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def faults(self, schema: Schema | bool, value: Any, place: str) -> Iterator[str]:
        name = place or "the value"
        if isinstance(schema, bool):
            if not schema:
                yield f"{name} is not allowed"
            return
        if "$ref" in schema:
            yield from self.faults(self._resolve(schema["$ref"]), value, place)
        yield from _value_faults(schema, value, name)
        if isinstance(value, Mapping):
            yield from self._object_faults(schema, value, place)
        elif isinstance(value, list | tuple):
            yield from self._list_faults(schema, value, place)
        yield from self._combined_faults(schema, value, place, name)

    def _keeps(self, schema: Schema | bool, value: Any) -> bool:
        return next(self.faults(schema, value, ""), None) is None

    def _resolve(self, reference: str) -> Schema:
        found: Any = self._root
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        return found  # type: ignore[no-any-return]

    def _object_faults(self, schema: Schema, value: Mapping[str, Any], place: str) -> Iterator[str]:
        yield from _size_faults(schema, "Properties", "members", value, place)
        for key in schema.get("required", ()):
            if key not in value:
                yield f"{_within(place, key)} is missing"
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        for key, item in value.items():
            inner = _within(place, key)
            if key not in known and other is False:
                yield f"{inner} is not a member here"
            else:
                yield from self.faults(known.get(key, other), item, inner)
            yield from self.faults(schema.get("propertyNames", True), key, f"the name {inner}")

    def _list_faults(self, schema: Schema, value: Sequence[Any], place: str) -> Iterator[str]:
        yield from _size_faults(schema, "Items", "items", value, place)
        for index, item in enumerate(value):
            yield from self.faults(schema.get("items", True), item, _within(place, index))
            if schema.get("uniqueItems") and any(same(item, earlier) for earlier in value[:index]):
                yield f"{_within(place, index)} is there twice"

    def _combined_faults(self, schema: Schema, value: Any, place: str, name: str) -> Iterator[str]:
        for part in schema.get("allOf", ()):
            yield from self.faults(part, value, place)
        comment = schema.get("$comment")
        if "anyOf" in schema and not any(self._keeps(part, value) for part in schema["anyOf"]):
            yield f"{name} {comment or 'has none of the allowed forms'}"
        if "oneOf" in schema and sum(self._keeps(part, value) for part in schema["oneOf"]) != 1:
            yield f"{name} {comment or 'must have exactly one of the allowed forms'}"
        if "not" in schema and self._keeps(schema["not"], value):
            yield f"{name} {comment or 'has a form that is not allowed'}"
        if "if" in schema:
            branch = "then" if self._keeps(schema["if"], value) else "else"
            yield from self.faults(schema.get(branch, True), value, place)


def _value_faults(schema: Schema, value: Any, name: str) -> Iterator[str]:
    """What concerns the value alone: its type, the values that are allowed, text and number."""
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_TYPES[kind][1](value) for kind in kinds):
            yield f"{name} must be {' or '.join(_TYPES[kind][0] for kind in kinds)}"
    if "enum" in schema and not any(same(value, allowed) for allowed in schema["enum"]):
        yield f"{name} must be one of {', '.join(map(str, schema['enum'][:20]))}"
    if "const" in schema and not same(value, schema["const"]):
        yield f"{name} must be {schema['const']}"
    if isinstance(value, str):
        if "pattern" in schema and re.search(schema["pattern"], value) is None:
            yield f"{name} must match {schema['pattern']}"
        yield from _size_faults(schema, "Length", "characters", value, name)
    elif _is_finite(value):
        for keyword, (words, keeps) in _BOUNDS.items():
            if keyword in schema and not keeps(value, schema[keyword]):
                yield f"{name} must be {words} {schema[keyword]:g}"


def _size_faults(
    schema: Schema, what: str, unit: str, value: Sequence[Any] | Mapping[str, Any], place: str
) -> Iterator[str]:
    name, size = place or "the value", len(value)
    if size < schema.get(f"min{what}", 0):
        yield f"{name} must have at least {schema[f'min{what}']} {unit}"
    if size > schema.get(f"max{what}", math.inf):
        yield f"{name} must have at most {schema[f'max{what}']} {unit}"


def _within(place: str, step: object) -> str:
    return f"{place}.{step}" if place else str(step)


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)
