"""The emergency stop's latch: while it is set, or its line cannot be read, nothing moves.

It lies in a file that always exists and is written in place, so that a full disk cannot keep it from being
set. A damaged file counts as set.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.errors import Rejected

# Well below a sector: it is written whole or not at all.
SIZE_BYTES = 256


class StopLatch:
    """`check` may be called on any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._set: dict[str, Any] | None = None
        self.barred: Callable[[], str] = str
        """Why nothing may move although the latch is not set; "" if it may."""

    def load(self) -> None:
        """Find out what the last process left. Raises OSError where the file cannot be made."""
        if not self.exists():
            self._write(None)
            return
        try:
            stored = json.loads(self._path.read_bytes())
            self._set = stored["set"]
        except (ValueError, KeyError, TypeError):
            self._set = {"who": "a damaged file", "at_ms": None}

    def exists(self) -> bool:
        """Whether a daemon ever ran with this state directory."""
        return self._path.exists()

    @property
    def state(self) -> dict[str, Any] | None:
        """`{"who", "at_ms"}` while it is set."""
        return self._set

    def set(self, who: str, at_ms: int) -> None:
        """In force at once; `save` makes it last."""
        self._set = {"who": who.encode()[:100].decode(errors="ignore"), "at_ms": at_ms}

    def clear(self) -> None:
        self._set = None

    def save(self) -> None:
        """Blocks until it is on the disk. Raises OSError."""
        self._write(self._set)

    def _write(self, state: dict[str, Any] | None) -> None:
        data = json.dumps({"set": state}, ensure_ascii=False).encode().ljust(SIZE_BYTES)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, data, 0)
            os.fsync(file)
        finally:
            os.close(file)

    def check(self) -> None:
        """Raises Rejected `not_allowed` with a sentence while nothing may move."""
        if self._set is not None:
            raise Rejected(
                "not_allowed",
                f"the emergency stop was pressed ({self._set['who']}): everything is safe and stays so until "
                "somebody releases it at the device with `device-agent release`",
            )
        if reason := self.barred():
            raise Rejected("not_allowed", reason)
