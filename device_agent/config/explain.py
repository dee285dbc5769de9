"""Validation errors as sentences for the person who edits the file: place, value, remedy."""

import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from device_agent.config.types import format_size
from device_agent.registry import nearest

VALUE_SHOWN_MAX = 60

_SECRET = ("key", "token", "password", "secret")
_HEXADECIMAL = ("address", "vid", "pid")

_KINDS = {
    "bool": "true or false",
    "dict": "a table",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "literal": "one of the allowed words",
    "mapping": "a table",
    "model_attributes": "a table",
    "model": "a table",
    "string": "text in quotes",
    "tuple": "a list",
}

_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def show(value: Any, key: str = "") -> str:
    """A value as it stands in a TOML file, cut to a readable length. Bus addresses are hexadecimal too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and key.endswith("_bytes"):
        return format_size(value)
    if isinstance(value, int) and key in _HEXADECIMAL:
        return f"{value:#04x}"
    if isinstance(value, (str, int, float, list)):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = "{…}" if isinstance(value, Mapping) else str(value)
    return text if len(text) <= VALUE_SHOWN_MAX else f"{text[: VALUE_SHOWN_MAX - 1]}…"


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The remedy for a wrong name: the nearest known one, else `otherwise`."""
    guess = nearest(name, list(known))
    return f'did you mean "{guess}"?' if guess else otherwise


def unknown_key(place: str, key: str, known: Iterable[str]) -> str:
    """The sentence for a key that nobody reads. Its value is not repeated: it may be a secret."""
    words = sorted(known)
    where = f"{place}.{key}" if place else key
    if guess := nearest(key, words):
        return f'{where} is not a known key: did you mean "{guess}"?'
    if any(word in key.lower() for word in _SECRET):
        return f"{where} is not a known key: secrets are never in this file; see network.api_key_file"
    return f"{where} is not a known key: remove it, or use one of {', '.join(words) or 'none'}"


def sentences(error: ValidationError, place: str, table: Any, model: type[BaseModel]) -> list[str]:
    """One sentence for each fault in one table. `place` is the table's own, such as "devices.climate"."""
    faults: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        if not _no_number(detail):  # reported once for the whole file, before validation
            faults.setdefault(_without_branches(detail, table), []).append(detail)
    return [
        _sentence(place, path, details, model)
        for path, details in faults.items()
        if not _overshadowed(path, details, faults)
    ]


def _no_number(detail: ErrorDetails) -> bool:
    value = detail["input"]
    return detail["type"] == "finite_number" or (isinstance(value, int) and not -(2**63) <= value < 2**63)


def _without_branches(detail: ErrorDetails, table: Any) -> tuple[str | int, ...]:
    """The path to the fault in the file: pydantic also names the branches of a union, which no file has."""
    path: list[str | int] = []
    here = table
    location = detail["loc"]
    for position, step in enumerate(location):
        last = position == len(location) - 1
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(step, int):
            here = here[step] if step < len(here) else None
        elif not (last and detail["type"] == "missing"):
            continue
        path.append(step)
    return tuple(path)


def _overshadowed(
    path: tuple[str | int, ...],
    details: list[ErrorDetails],
    faults: Mapping[tuple[str | int, ...], list[ErrorDetails]],
) -> bool:
    """Whether a fault further in explains it better: "not a text" does not help if a key is missing."""
    shallow = all(detail["type"].endswith(("_type", "too_short")) for detail in details)
    return shallow and any(len(other) > len(path) and other[: len(path)] == path for other in faults)


def _sentence(
    place: str, path: tuple[str | int, ...], details: list[ErrorDetails], model: type[BaseModel]
) -> str:
    detail = details[0]
    where = ".".join((place, *map(str, path))) if place else ".".join(map(str, path))
    key = str(path[-1]) if path else ""
    parent = _model_at(model, path[:-1])
    fields = parent.model_fields if parent is not None else {}
    described = fields[key].description or "" if key in fields else ""
    if detail["type"] == "missing":
        return f"{where} is missing: add it. {described}".rstrip()
    if detail["type"] == "extra_forbidden":
        return unknown_key(where.rpartition(".")[0], key, fields)
    wish = " or ".join(dict.fromkeys(_wish(one, key) for one in details))
    if detail["type"] == "string_pattern_mismatch" and described:
        wish = f"{wish}. {described}"
    value = "" if isinstance(detail["input"], Mapping) else f" = {show(detail['input'], key)}"
    # A model's own validator may have a whole sentence instead of "must be …".
    return f"{where}{value}{'' if wish.startswith(('must ', 'is ')) else ':'} {wish}"


def _wish(detail: ErrorDetails, key: str) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        bound = context[name]
        return f"must be {words} {show(bound, key) if isinstance(bound, int) else f'{bound:.12g}'}"
    if kind == "literal_error":
        return _choice(detail["input"], str(context["expected"]), key)
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    if kind in ("too_long", "string_too_long"):
        return f"is too long: at most {context['max_length']}"
    if kind in ("too_short", "string_too_short"):
        return f"is too short: at least {context['min_length']}"
    for prefix, name in _KINDS.items():
        if kind.startswith(prefix + "_"):
            quoted = prefix == "int" and str(detail["input"]).isdecimal()
            return f"must be {name}" + (", without quotes" if quoted else "")
    return f"is not allowed: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _choice(value: Any, expected: str, key: str) -> str:
    words = expected.replace("'", '"')
    if key in _HEXADECIMAL:
        words = re.sub(r"[0-9]+", lambda number: show(int(number[0]), key), words)
    plain = [word.strip().strip('"') for part in words.split(",") for word in part.split(" or ")]
    if value in plain:
        return f"must be {words}, without quotes"
    guess = difflib.get_close_matches(value, plain, n=1) if isinstance(value, str) else []
    return f"must be {words}" + (f'; did you mean "{guess[0]}"?' if guess else "")


def _model_at(model: type[BaseModel], path: Iterable[str | int]) -> type[BaseModel] | None:
    """The model that reads the table at a path within `model`'s own table."""
    annotation: Any = model
    for step in path:
        here = next(_models_in(annotation), None)
        if here is not None and step in here.model_fields:
            annotation = here.model_fields[str(step)].annotation
    return next(_models_in(annotation), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    arguments = typing.get_args(annotation)
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in arguments:
        yield from _models_in(argument)
