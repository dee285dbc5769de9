"""Runs the daemon and writes down which of its functions a reading, or a command, passes through.

    walking.py FILE run …

Once FILE exists, each function of the runtime or of a driver that is given the marked value as an argument,
or gives it back, is a line in FILE.seen: its event, its name, and the functions of the runtime that it was
called by, the nearest first. FILE has the marker: a number.
"""

import dataclasses
import inspect
import json
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import device_agent
import device_agent_drivers
from device_agent.cli import main

FOLDERS = tuple(f"{Path(str(package.__file__)).parent}/" for package in (device_agent, device_agent_drivers))
# How far the value is looked for inside what a function is given.
DEPTH = 5


class Marker:
    """A number that nothing else has, as a value and in the text of an event."""

    def __init__(self, number: float) -> None:
        self._number = number
        self._text = re.compile(rf":\s*{re.escape(repr(number))}[,}}]")

    def within(self, item: Any, depth: int = DEPTH) -> bool:
        if isinstance(item, bool) or item is None or depth == 0:
            return False
        if isinstance(item, int | float):
            return abs(item - self._number) < 2e-6
        if isinstance(item, bytes | bytearray):
            return self.within(bytes(item).decode("utf-8", "replace"), depth)
        if isinstance(item, str):
            return self._text.search(item) is not None
        if isinstance(item, Mapping):
            return any(self.within(one, depth - 1) for one in list(item.values())[:64])
        if isinstance(item, tuple | list):
            return any(self.within(one, depth - 1) for one in item[:64])
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            names = [field.name for field in dataclasses.fields(item)]
            return any(self.within(getattr(item, name, None), depth - 1) for name in names)
        if hasattr(item, "model_dump"):
            return self.within(item.model_dump(), depth - 1)
        return False


def name_of(frame: FrameType) -> str:
    """`bus/core.py Bus.run`, or "" for what is not the runtime's or a driver's."""
    code = frame.f_code
    for folder in FOLDERS:
        if code.co_filename.startswith(folder):
            return f"{code.co_filename.removeprefix(folder)} {code.co_qualname}"
    return ""


def callers_of(frame: FrameType) -> list[str]:
    found, at = [], frame.f_back
    while at is not None:
        if name := name_of(at):
            found.append(name)
        at = at.f_back
    return found


def watch(file: Path) -> None:
    seen = file.with_suffix(".seen")
    marker: list[Marker] = []
    busy = threading.local()

    def step(frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("call", "return") or getattr(busy, "now", False) or not (name := name_of(frame)):
            return
        if not marker:
            if not file.exists():
                return
            marker.append(Marker(float(file.read_text())))
        busy.now = True
        try:
            code = frame.f_code
            count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
            given = [frame.f_locals.get(one) for one in code.co_varnames[:count] if one != "self"]
            if marker[0].within(arg if event == "return" else given):
                with seen.open("a") as out:
                    out.write(json.dumps([event, name, callers_of(frame)]) + "\n")
        finally:
            busy.now = False

    threading.setprofile(step)
    sys.setprofile(step)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
