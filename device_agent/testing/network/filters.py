"""The subscribe filter language (docs/protocol.md).

``== != < > <= >= LIKE CONTAINS``, ``&& || !``, parentheses, fields ``meta.a.b`` and ``data.a.b`` (a bare
name means ``meta``), strings in either quotes, numbers, ``true`` and ``false``. A comparison with a field
that is not there is false, whatever the operator says, and so is one between a string and a number. ``LIKE``
has ``*`` as wildcard and does not mind case.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Body = Callable[[], Any]
"""Gives a message's decoded body; called only by filters that use it."""

Filter = Callable[[Any, Body], bool]
"""A compiled filter: ``(meta, body) -> wanted``."""

Value = Callable[[Any, Body], Any]

MISSING: Any = object()

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<op>==|!=|<=|>=|&&|\|\||[<>!()])
    | (?P<name>[A-Za-z_][\w.\-]*(?:\[[^\]]*\][\w.\-]*)*)
    )""",
    re.VERBOSE,
)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_COMPARISONS = {"==", "!=", *_ORDER, "LIKE", "CONTAINS"}


class FilterError(ValueError):
    """The expression is not one of the language."""


@lru_cache(maxsize=1024)
def compile_filter(expression: str) -> Filter:
    """Compile an expression; raises :class:`FilterError` with the place of the mistake."""
    return _Parser(expression).parse()


def _tokens(expression: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    end = len(expression.rstrip())
    while at < end:
        match = _TOKEN.match(expression, at)
        if match is None or match.lastgroup is None:
            raise FilterError(f"unexpected text at {at}: {expression[at : at + 20]!r}")
        kind, text = match.lastgroup, match.group(match.lastgroup)
        if kind == "name" and text.upper() in ("LIKE", "CONTAINS"):
            kind, text = "op", text.upper()
        found.append((kind, text))
        at = match.end()
    return found


class _Parser:
    """Recursive descent; ``||`` binds loosest, then ``&&``, then ``!``, then a comparison."""

    def __init__(self, expression: str) -> None:
        self._tokens = _tokens(expression)
        self._at = 0

    def parse(self) -> Filter:
        result = self._any()
        if self._at < len(self._tokens):
            raise FilterError(f"unexpected {self._tokens[self._at][1]!r} after the expression")
        return result

    def _peek(self) -> str:
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "op":
            return self._tokens[self._at][1]
        return ""

    def _take(self, text: str) -> bool:
        if self._peek() == text:
            self._at += 1
            return True
        return False

    def _any(self) -> Filter:
        terms = [self._all()]
        while self._take("||"):
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else lambda meta, data: any(t(meta, data) for t in terms)

    def _all(self) -> Filter:
        terms = [self._not()]
        while self._take("&&"):
            terms.append(self._not())
        return terms[0] if len(terms) == 1 else lambda meta, data: all(t(meta, data) for t in terms)

    def _not(self) -> Filter:
        if self._take("!"):
            inner = self._not()
            return lambda meta, data: not inner(meta, data)
        if self._take("("):
            inner = self._any()
            if not self._take(")"):
                raise FilterError("a parenthesis is not closed")
            return inner
        return self._comparison()

    def _comparison(self) -> Filter:
        left = self._value()
        symbol = self._peek()
        if symbol not in _COMPARISONS:
            # A value alone stands for its truth.
            return lambda meta, data: (value := left(meta, data)) is not MISSING and bool(value)
        self._at += 1
        right = self._value()
        return lambda meta, data: _compare(symbol, left(meta, data), right(meta, data))

    def _value(self) -> Value:
        if self._at >= len(self._tokens):
            raise FilterError("the expression ends where a value is expected")
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "string":
            literal: Any = re.sub(r"\\(.)", r"\1", text[1:-1])
        elif kind == "number":
            literal = float(text)
        elif kind == "name" and text in ("true", "false"):
            literal = text == "true"
        elif kind == "name":
            return _field(text)
        else:
            raise FilterError(f"a value is expected, not {text!r}")
        return lambda meta, data: literal


def _field(path: str) -> Value:
    steps = [s for s in re.split(r"[.\[\]]+", path.replace('"', "").replace("'", "")) if s]
    from_data = steps[0] == "data"
    if steps[0] in ("meta", "data"):
        steps = steps[1:]

    def read(meta: Any, data: Body) -> Any:
        value = data() if from_data else meta
        for step in steps:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                return MISSING
        return value

    return read


def _compare(symbol: str, left: Any, right: Any) -> bool:
    if left is MISSING or right is MISSING or left is None or right is None:
        return False
    if symbol == "CONTAINS":
        return right in left if isinstance(left, (list, dict)) else str(right) in str(left)
    if symbol == "LIKE":
        pattern = ".*".join(re.escape(part) for part in str(right).split("*"))
        return re.fullmatch(pattern, str(left), re.IGNORECASE | re.DOTALL) is not None
    if _kind(left) is not _kind(right):
        return False
    if symbol == "==":
        return bool(left == right)
    if symbol == "!=":
        return bool(left != right)
    return _ORDER[symbol](left, right) if isinstance(left, (str, int, float)) else False


def _kind(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, (int, float)) else type(value)
