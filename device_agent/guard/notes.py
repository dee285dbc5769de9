"""What the guard knows, noted beside its socket for the guard that comes after it was killed.

The folder is in memory (/run): a note costs no card and ends with the boot, as the lines do.
"""

from __future__ import annotations

import binascii
import fcntl
import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_agent.guard.actions import ActionData
    from device_agent.guard.bus_workers import GuardedActuator

    Noted = tuple[str, str, list[ActionData]]
    """Device, place, actions."""


class Notes:
    """One file, replaced as a whole. What needs a descriptor that only the daemon can give is left out."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._written = b""

    def write(self, daemon: tuple[int, int], actuators: Iterable[GuardedActuator]) -> None:
        """`daemon` is who handed these over. A full disk costs the note and nothing else."""
        acts = [
            (one.device, one.place, [action.data for action in one.actions if action.is_repeatable])
            for one in actuators
        ]
        noted = marshal.dumps((daemon, acts), 2)
        data = _checksum(noted) + noted
        if data == self._written:
            return
        try:
            fd = os.open(self._path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
            os.rename(self._path + ".new", self._path)
            self._written = data
        except OSError:
            return

    def read(self) -> tuple[tuple[int, int], list[Noted]] | None:
        """What the guard before this one noted last; None if it ended in order, or its note is damaged."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.read(fd, 10_000_000)
        finally:
            os.close(fd)
        # Of anything else `marshal` would make lists of terabytes.
        if _checksum(data[4:]) != data[:4]:
            return None
        return marshal.loads(data[4:])  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Nobody has to go on with it."""
        if os.path.exists(self._path):
            os.unlink(self._path)


def _checksum(noted: bytes) -> bytes:
    # From a number of our own: one byte of ones, or nothing, would be its own checksum.
    return binascii.crc32(noted, 0x6E6F7465).to_bytes(4, "little")


def process_of(pid: int) -> tuple[int, int]:
    """A process, told from a later one with its number by when it began; 0 if it is not there."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return pid, 0
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    finally:
        os.close(fd)
    return pid, 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def lock(path: str) -> None:
    """Show which process is the guard at this socket, for as long as it runs. Raises OSError."""
    fcntl.lockf(os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX)
