"""What devices counted, kept over restarts: pulse totals.

In the runtime directory, which is memory, every few seconds, for a crash. In the state directory, for a power
cut, where something was counted, by `state.counts_every_s`: in two files in turn, each overwritten in its
place, which moves no names; a cut tears one of them at most. After an end that was not in order each device
has `unclean`, because its last counts may be missing.
"""

import asyncio
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from device_agent.records import is_number
from device_agent.store.files import overwrite, read_small, write_atomically
from device_agent.store.store_thread import StoreThread

log = structlog.get_logger("kept")

NAMES = ("counts.json", "counts-2.json")
MEMORY_S = 5.0
BLOCK_BYTES = 4096
UNCLEAN = "unclean"

Kept = dict[str, dict[str, float]]


def _seal(version: int, ended: bool, devices: object) -> int:
    return zlib.crc32(json.dumps([version, ended, devices]).encode())


def _read(path: Path) -> tuple[int, bool, Kept]:
    """Its version, whether its process ended in order, the counts; version 0 where it cannot be used."""
    try:
        document = json.loads(read_small(path).partition(b"\n")[0])
        version, ended = int(document["version"]), bool(document.get("ended", True))
        devices: Mapping[str, Mapping[str, Any]] = document["devices"]
        if "seal" in document and document["seal"] != _seal(version, ended, devices):
            raise ValueError("it was written in part")
        return version, ended, {name: _numbers(kept) for name, kept in devices.items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        log.error("counts_not_read", file=str(path), error=str(error)[:200])
    except RecursionError:
        log.error("counts_not_read", file=str(path), error="it is nested too deep")
    return 0, True, {}


def _numbers(kept: Mapping[str, object]) -> dict[str, float]:
    return {name: value for name, value in kept.items() if is_number(value) and math.isfinite(value)}


def newest(state: Path, runtime: Path) -> tuple[int, int, Kept]:
    """The newest counts that are whole: which of `NAMES` to write next, their version, and the counts."""
    found = [_read(path) for path in (*(state / name for name in NAMES), runtime / NAMES[0])]
    version, ended, devices = max(found, key=lambda one: one[0])
    if not ended:
        devices = {name: {**kept, UNCLEAN: 1} for name, kept in devices.items()}
    return int(found[1][0] < found[0][0]), version, devices


class KeptCounts:
    """`values` is by device what its driver keeps; drivers change it, on the event loop."""

    def __init__(self, state: Path, runtime: Path, every_s: float, values: Kept, thread: StoreThread) -> None:
        """`every_s`: to the disk no oftener than that."""
        self._state = state
        self._runtime = runtime
        self._every_s = every_s
        self._values = values
        self._thread = thread
        self._slot = self._version = 0
        self._written: dict[Path, tuple[bool, str]] = {}
        self._failing = False

    async def load(self) -> None:
        """Into `values`, before devices are opened."""
        self._slot, self._version, found = await self._thread.run(lambda: newest(self._state, self._runtime))
        for name, kept in found.items():
            self._values.setdefault(name, {}).update(kept)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        in_memory = await self._thread.run(self._is_memory)
        disk_s = loop.time()  # at once, so that a cut from now on is told from an orderly end
        while True:
            if loop.time() >= disk_s:
                disk_s = loop.time() + self._every_s
                await self._to_disk(ended=False)
            await asyncio.sleep(min(MEMORY_S, self._every_s))
            if in_memory:
                await self._save(self._runtime, NAMES[0], write_atomically)

    def _is_memory(self) -> bool:
        """Whether the runtime directory is on another medium than the state; else it would wear that."""
        return self._runtime.stat().st_dev != self._state.stat().st_dev

    async def close(self) -> None:
        """The last counts, to the disk."""
        await self._to_disk(ended=True)

    async def _to_disk(self, *, ended: bool) -> None:
        if await self._save(self._state, NAMES[self._slot], overwrite, ended=ended):
            self._slot = 1 - self._slot

    async def _save(
        self, folder: Path, name: str, write: Callable[[Path, bytes], None], *, ended: bool = False
    ) -> bool:
        """Whether it was written; not where nothing is new."""
        devices = {device: kept for device, kept in self._values.items() if kept}
        text = json.dumps(devices)
        if (ended, text) == self._written.get(folder) or (not devices and folder not in self._written):
            return False
        version = self._version + 1
        seal = _seal(version, ended, devices)
        head = f'{{"version": {version}, "ended": {json.dumps(ended)}, "seal": {seal}, "devices": {text}}}\n'
        data = head.encode()
        data = data.ljust(-(-len(data) // BLOCK_BYTES) * BLOCK_BYTES)
        try:
            await self._thread.run(lambda: write(folder / name, data))
        except (OSError, TimeoutError) as error:
            if not self._failing:
                log.error("counts_not_written", folder=str(folder), error=str(error))
            self._failing = True
            return False
        self._failing, self._version, self._written[folder] = False, version, (ended, text)
        return True
