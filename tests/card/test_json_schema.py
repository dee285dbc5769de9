"""The rules of a card, and the small checker that reads them, against the reference checker."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.card import agent_card, json_schema

CARD = json.loads((Path(__file__).parents[2] / "cards" / "greenhouse.card.json").read_text())
REFERENCE = jsonschema.Draft202012Validator(agent_card.rules())
ANNOTATIONS = {"$schema", "$comment", "title", "description", "default", "examples"}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The example's card with one place changed; None removes."""
    made = copy.deepcopy(CARD)
    here = made
    for step in path[:-1]:
        here = here[step]
    if to is None:
        del here[path[-1]]
    else:
        here[path[-1]] = to
    return made


INPUT = ("io", "inputs", 0)
TEXT = {"id": "t", "description": "d", "contentType": "text/plain", "required": True}
BYTES = {"direction": "outbound", "format": "bytes"}


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (changed("identity", to=None), "identity is missing"),
        (changed("skills", to=[]), "skills is not a member here"),
        (changed("identity", "agentName", to="a-b"), "identity.agentName must match ^[a-zA-Z0-9_]+$"),
        (changed("identity", "provider", to={}), "identity.provider.organization is missing"),
        (changed("capabilities", "taskKinds", to=[]), "capabilities.taskKinds must have at least 1 items"),
        (
            changed("capabilities", "taskKinds", to=["pipe", "pipe"]),
            "capabilities.taskKinds.1 is there twice",
        ),
        (changed("capabilities", "taskKinds", to=["request"]), "the name streams.telemetry must be _default"),
        (changed("tags", to=[]), "tags must have at least 1 items"),
        (changed("tags", 0, "name", to=None), "tags.0.name is missing"),
        (changed("runtime", "concurrency", to=0), "runtime.concurrency must be at least 1"),
        (changed("runtime", "concurrency", to=True), "runtime.concurrency must be a whole number"),
        (changed(*INPUT, "example", to=None), "io.inputs.0.example is missing"),
        (changed(*INPUT, "accept", to=["text/*"]), "io.inputs.0.accept is not allowed"),
        (
            changed(*INPUT, "contentType", to="Application/JSON"),
            "io.inputs.0.contentType must be a media type",
        ),
        (changed(*INPUT, "contentType", to="text/plain"), "io.inputs.0.schema is not allowed"),
        (changed(*INPUT, "contentType", to="application/pdf"), "io.inputs.0.schema is not allowed"),
        (changed(*INPUT, "schema", "oneOf", to=[]), "io.inputs.0.schema.oneOf is not a member here"),
        (
            changed(*INPUT, "schema", "properties", "op", to={"enum": ["read"]}),
            "io.inputs.0.schema.properties.op.type is missing",
        ),
        (
            changed(
                *INPUT, "schema", "properties", "devices", "items", to={"type": "string", "pattern": "x"}
            ),
            "io.inputs.0.schema.properties.devices.items.pattern is not a member here",
        ),
        (
            changed("streams", "telemetry", "contentType", to="text/plain"),
            "streams.telemetry.contentType is not",
        ),
        (changed("streams", "telemetry", "outboundSchema", to={}), "streams.telemetry.outboundSchema is not"),
        (changed("streams", "control", "schema", to={}), "streams.control.schema is not allowed"),
        (changed("streams", "control", "inboundSchema", to=None), "streams.control.inboundSchema is missing"),
        (changed("streams", "b", to={**BYTES, "schema": {}}), "streams.b.schema is not allowed"),
        (
            changed("streams", "_default", to={**BYTES, "affinity": "shared"}),
            "streams._default may not be shared",
        ),
    ],
)
def test_each_broken_rule_has_its_sentence(made, sentence):
    assert [fault for fault in agent_card.validate(made) if fault.startswith(sentence)], agent_card.validate(
        made
    )
    assert not REFERENCE.is_valid(made)


@pytest.mark.parametrize(
    "made",
    [
        CARD,
        changed("extensions", to={"anything": [1]}),
        changed("streams", "b", to={**BYTES, "contentType": "text/plain", "own": 1}),
        changed("io", "inputs", to=[TEXT]),
        changed("io", "inputs", to=[{**TEXT, "contentType": "image/svg+xml", "maxSizeBytes": 9}]),
        changed("io", "inputs", to=[{**TEXT, "contentType": "application/pdf", "accept": ["text/*"]}]),
        changed("identity", "webApps", to=[{"url": "http://[::1]:80/"}, {"url": "https://example.org"}]),
        changed("runtime", "concurrency", to=1.0),
    ],
)
def test_what_the_rules_allow(made):
    assert agent_card.validate(made) == []
    REFERENCE.validate(made)


def keywords(schema: Any) -> set[str]:
    """Every keyword of a schema, at any depth."""
    if isinstance(schema, list):
        return set().union(*map(keywords, schema))
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            found |= keywords(list(value.values()))
        elif key not in ("enum", "const", "default", "required"):
            found |= keywords(value)
    return found


def test_the_rules_use_no_keyword_that_the_checker_does_not_know():
    assert keywords(agent_card.rules()) <= json_schema.KEYWORDS | ANNOTATIONS
    jsonschema.Draft202012Validator.check_schema(agent_card.rules())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key not in ("schema", "outboundSchema", "inboundSchema") or path[:1] == ("io",):
            found += places(item, (*path, key))
    return found


PLACES = places(CARD)
VALUES: list[Any] = [
    *(None, True, 0, 1, 1.0, 2.5, -1, "", "x", "shared", "_default", "events", "bytes", "bidirectional"),
    *("outbound", "request", "text/plain", "application/json", "application/pdf", "a/b+xml", "a/b+json"),
    *([], ["request"], ["pipe", "request"], [1, True], {}, {"a": 1}, {"type": "string"}, {"type": ["null"]}),
]


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(VALUES), st.text("ab_", max_size=2)), max_size=4
    )
)
@settings(max_examples=500, deadline=None)
def test_the_checker_agrees_with_the_reference_on_any_card(changes):
    made: Any = copy.deepcopy(CARD)
    for path, value, member in changes:
        here = made
        try:
            for step in path[:-1]:
                here = here[step]
            if member and isinstance(here, dict):
                here[member] = copy.deepcopy(value)
            elif value is None:
                del here[path[-1]]
            else:
                here[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    assert (agent_card.validate(made) == []) == REFERENCE.is_valid(made)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "", "a", "ab"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    options = {
        "type": st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"]),
        "enum": st.lists(values, min_size=1, max_size=3),
        "const": values,
        "pattern": st.sampled_from(["^a", "b$"]),
        **{key: st.integers(-1, 2) for key in ("minimum", "maximum", "exclusiveMinimum")},
        **{f"min{what}": st.integers(0, 2) for what in ("Length", "Items", "Properties")},
        **{f"max{what}": st.integers(0, 2) for what in ("Length", "Items", "Properties")},
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "items": inner,
        "uniqueItems": st.booleans(),
        **dict.fromkeys(("allOf", "anyOf", "oneOf"), several),
        **dict.fromkeys(("not", "if", "then", "else"), inner),
    }
    return st.fixed_dictionaries({}, optional=options)


@given(st.recursive(st.booleans(), schemas, max_leaves=6), values)
@settings(max_examples=500, deadline=None)
def test_the_checker_agrees_with_the_reference_on_any_schema(schema, value):
    if isinstance(schema, dict):
        assert (json_schema.faults(schema, value) == []) == jsonschema.Draft202012Validator(schema).is_valid(
            value
        )
