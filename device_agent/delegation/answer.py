"""Answers are untrusted text: they are shown, and may choose one command of the owner's list.

An answer chooses if it ends with a JSON object with the one member `command`, a name of the list or "none",
alone on a line or in a fenced block. Anything else is only text.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from device_agent.config.trigger import AllowedCommand
from device_agent.text.printable import printable

# Beyond this an answer is cut: it must fit one event of a stream, escaped, with room for what goes with it.
ANSWER_MAX_BYTES = 12_000
NONE = "none"
TAIL = 600

_LAST_OBJECT = re.compile(r"\n(?:```(?:json)?[ \t]*\n)?[ \t]*(\{[^{}]{1,300}\})[ \t]*(?:\n```)?\s*$")


class Choice(NamedTuple):
    """`command` is a name of the list, or empty; `unclear` says why an answer chooses nothing."""

    command: str = ""
    unclear: str = ""


def choice(answer: str, commands: Collection[str]) -> Choice:
    """The command that an answer chooses from the list."""
    found = _LAST_OBJECT.search(f"\n{answer}"[-TAIL:])
    if found is None:
        return Choice(unclear="the answer does not end with the JSON object that was asked for")
    try:
        named: Any = json.loads(found[1], object_pairs_hook=_unique)
    except ValueError:
        return Choice(unclear="the answer ends with something that is not the JSON object asked for")
    if not isinstance(named, dict) or set(named) != {"command"} or not isinstance(named["command"], str):
        return Choice(unclear="the JSON object at the end has not exactly one member `command` with a text")
    name = named["command"]
    if name == NONE:
        return Choice()
    if name not in commands:
        return Choice(unclear=f"the answer names a command that is not on the list: {printable(name, 100)}")
    return Choice(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member is there twice")
    return dict(pairs)


def form(commands: Mapping[str, AllowedCommand]) -> str:
    """The part of a question that lists the commands and the form of the answer."""
    lines = ["You can have the device do one of these, and nothing else:"]
    for name, command in commands.items():
        lines.append(f"- {name}: {command.description or _description(command)}")
    lines += [
        f'End your answer with one line, {{"command": "…"}}, with one of these names, or "{NONE}".',
        "Only that line is looked at. The device checks it against its own limits before anything moves.",
    ]
    return "\n".join(lines)


def _description(command: AllowedCommand) -> str:
    if command.action:
        return f"{command.action} of {command.device}"
    values = ", ".join(f"{name} = {json.dumps(value)}" for name, value in command.values.items())
    return f"sets {values} of {command.device}" + (f" for {command.for_s:g} s" if command.for_s else "")


def presentable(text: str) -> tuple[str, bool]:
    """The answer without control characters but line breaks, and whether it had to be cut."""
    lines = text.replace("\r\n", "\n").replace("\t", " ")
    plain = "".join(c for c in lines[: ANSWER_MAX_BYTES + 1] if c == "\n" or c.isprintable()).strip()
    cut = len(lines) > ANSWER_MAX_BYTES
    while (excess := _size(plain) - ANSWER_MAX_BYTES) > 0:
        # A character is at least one byte, at most twelve as an escaped pair.
        plain, cut = plain[: -max(1, excess // 12)], True
    return plain, cut


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))
