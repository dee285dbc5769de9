"""What must be known after a crash or a reboot, by name: one small JSON file, replaced as a whole.

A damaged file is set aside and logged, and a new one begun: the start never fails.
"""

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import structlog

from device_agent.records import is_number
from device_agent.store.files import read_small, sealed, set_aside, unsealed, write_atomically
from device_agent.store.store_thread import StoreThread
from device_agent.triggers.schedule import TriggerMemory
from device_agent.triggers.timestamps import Stamp

log = structlog.get_logger("triggers")

FILE_MAX_BYTES = 8_000_000
T = TypeVar("T", bound=TriggerMemory)


class StateFile(Generic[T]):
    """`rules` is what the file holds, or will hold after `save`. Belongs to the event loop."""

    def __init__(self, path: Path, thread: StoreThread, kind: type[T]) -> None:
        """`kind`: the dataclass of what is kept under each name; one without members for a new name."""
        self.rules: dict[str, T] = {}
        self.failures = 0
        self._path = path
        self._kind = kind
        self._thread = thread

    async def load(self, names: Iterable[str]) -> None:
        """Read what is there; rules that are not configured any more are forgotten."""
        try:
            found = await self._thread.run(self._read)
        except (OSError, TimeoutError, ValueError) as error:
            name, file = self._path.stem, str(self._path)
            try:
                aside = str(await self._thread.run(lambda: set_aside(self._path)))
                log.error(f"{name}_set_aside", file=file, aside=aside, error=str(error)[:300])
            except (OSError, TimeoutError) as why:
                log.error(f"{name}_not_set_aside", file=file, error=str(error)[:300], why=str(why))
            found = {}
        self.rules = {name: found.get(name) or self._kind() for name in names}

    def _read(self) -> dict[str, T]:
        try:
            rules = unsealed(read_small(self._path, FILE_MAX_BYTES)).get("rules", {})
            return {name: _taken(self._kind, members) for name, members in rules.items()}
        except FileNotFoundError:
            return {}
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    async def save(self) -> bool:
        """Whether it is on the disk now; a full or broken disk is counted and logged."""
        rules = {name: asdict(state) for name, state in self.rules.items()}
        data = sealed({"rules": rules})
        try:
            await self._thread.run(lambda: write_atomically(self._path, data))
        except (OSError, TimeoutError) as error:
            self.failures += 1
            if self.failures == 1 or self.failures % 100 == 0:
                log.error(
                    f"{self._path.stem}_not_written",
                    file=str(self._path),
                    error=str(error),
                    failures=self.failures,
                )
            return False
        self.failures = 0
        return True


def _taken(kind: Any, value: Any) -> Any:
    """What `asdict` and JSON made of a value of this type. Raises ValueError, TypeError."""
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _taken(hints[name], one) for name, one in value.items() if name in hints})
    if kind is Stamp:
        return Stamp(*(_taken(*pair) for pair in zip((str, float, int), value, strict=True)))
    if origin is list:
        return [_taken(inner[0], one) for one in _taken(list, value)]
    if type(None) in inner:
        return None if value is None else _taken(inner[0], value)
    if origin is Literal:
        if value in inner:
            return value
    elif kind is float and is_number(value):
        return float(value)
    elif isinstance(value, origin or kind) and (kind is not int or is_number(value)):
        return value
    raise ValueError(f"{value!r:.60} is no {kind}")
