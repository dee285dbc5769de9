"""The record of a board: JSON lines of what moved, when, and who did it (design section 7a)."""

import json
from collections import deque
from pathlib import Path
from typing import Any, TextIO

# A test that needs more reads the file; a board that runs for weeks must not grow.
KEPT = 10_000


class Record:
    """Entries in memory (the newest `KEPT`) and, with a path, in a file that is flushed as they happen."""

    def __init__(self, path: Path | None = None) -> None:
        self.entries: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._file: TextIO | None = None if path is None else path.open("a", encoding="utf-8", buffering=1)

    def add(self, t: float, bus: str, by: str, **what: Any) -> None:
        """`t` is CLOCK_MONOTONIC in seconds, `by` daemon, guard, stimulus or reset."""
        entry = {"t": t, "bus": bus, **what, "by": by}
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def as_text(data: bytes) -> str:
    """Bytes as the record writes them: one character each, so that text stays readable."""
    return data.decode("latin-1")
