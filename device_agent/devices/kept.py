"""What devices counted, kept over restarts: pulse totals.

In two places: in the runtime directory, which is memory, every few seconds, for a crash; in the state
directory seldom and at an orderly stop, for a reboot. A power cut costs what came since the last write there.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import structlog

from device_agent.records import is_number
from device_agent.store.files import read_small, set_aside, write_atomically
from device_agent.store.store_thread import StoreThread

log = structlog.get_logger("kept")

NAME = "counts.json"
MEMORY_S = 5.0
# At most 144 small writes a day, and none while nothing is counted.
DISK_S = 600.0

# What reading a damaged file may raise; JSON has infinities and any depth.
MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

Kept = dict[str, dict[str, float]]


def newest(*paths: Path) -> tuple[int, Kept]:
    """The newest of these files, and its version; a damaged one is set aside."""
    best: tuple[int, Kept] = (0, {})
    for path in paths:
        try:
            document = json.loads(read_small(path))
            version = int(document["version"])
            found = {name: _numbers(kept) for name, kept in document["devices"].items()}
        except FileNotFoundError:
            continue
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            log.error("counts_not_read", file=str(path), error=str(error)[:200])
            with contextlib.suppress(OSError):
                set_aside(path)
            continue
        best = max(best, (version, found), key=lambda one: one[0])
    return best


def _numbers(kept: Mapping[str, object]) -> dict[str, float]:
    return {name: value for name, value in kept.items() if is_number(value) and math.isfinite(value)}


class KeptCounts:
    """`values` is by device what its driver keeps; drivers change it, on the event loop."""

    def __init__(self, state: Path, runtime: Path, values: Kept, thread: StoreThread) -> None:
        self._disk = state / NAME
        self._memory = runtime / NAME
        self._values = values
        self._thread = thread
        self._version = 0
        self._written: dict[Path, str] = {}

    async def load(self) -> None:
        """Into `values`, before devices are opened."""
        self._version, found = await self._thread.run(lambda: newest(self._disk, self._memory))
        for name, kept in found.items():
            self._values.setdefault(name, {}).update(kept)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        in_memory = await self._thread.run(self._is_memory)
        disk_s = loop.time() + DISK_S
        while True:
            await asyncio.sleep(MEMORY_S)
            if in_memory:
                await self._save(self._memory)
            if loop.time() >= disk_s:
                await self._save(self._disk)
                disk_s = loop.time() + DISK_S

    def _is_memory(self) -> bool:
        """Whether the runtime directory is on another medium than the state; else it would wear that."""
        return self._memory.parent.stat().st_dev != self._disk.parent.stat().st_dev

    async def close(self) -> None:
        """The last counts, to the disk."""
        await self._save(self._disk)

    async def _save(self, path: Path) -> None:
        text = json.dumps(self._values)
        if text == self._written.get(path, "{}"):
            return
        self._version += 1
        data = f'{{"version": {self._version}, "devices": {text}}}\n'.encode()
        try:
            await self._thread.run(lambda: write_atomically(path, data))
        except (OSError, TimeoutError) as error:
            log.error("counts_not_written", file=str(path), error=str(error))
        else:
            self._written[path] = text
