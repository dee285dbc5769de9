"""A file beside the Journal that is there while the Journal has every command of the last day.

It is deleted at the first note that the disk refuses, which takes no room. A process that finds none cannot
tell a new command from one that was answered, or done, before it began.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from device_agent.store.files import sync_folder

# As long as the longest `ttl_ms`: what is older moves nothing anyway.
ABSENT_S = 86_400.0


class CompleteMark:
    """Its methods but `covers` block, and belong to the Journal's thread."""

    def __init__(self, path: Path, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic_s = monotonic_s
        self._began_s = self._absent_since_s = monotonic_s()
        self._complete = False
        self._there = True

    def open(self, *, first_start: bool) -> None:
        """Whether notes of earlier processes are missing; of none before a `first_start`."""
        self._there = self._exists()
        self._complete = self._there or first_start
        if first_start:
            self._set()

    def covers(self, age_s: float) -> bool:
        """Whether a command that was sent so long ago is new if the Journal does not know it."""
        return self._complete or self._monotonic_s() - age_s >= self._began_s

    def note_lost(self) -> None:
        """The disk refused a note."""
        self._absent_since_s = self._monotonic_s()
        if self._there:
            # On a disk that has turned read-only it stays.
            with contextlib.suppress(OSError):
                self._path.unlink()
                sync_folder(self._path.parent)
            self._there = self._exists()

    def note_written(self) -> None:
        """The disk has all notes: after a day without a lost one, the mark is set again."""
        if not self._there and self._monotonic_s() - self._absent_since_s >= ABSENT_S:
            self._set()

    def _exists(self) -> bool:
        """False where a failing disk does not say so."""
        return os.access(self._path, os.F_OK)

    def _set(self) -> None:
        with contextlib.suppress(OSError):
            self._path.touch(0o600)
        self._there = self._exists()
