"""Files that are replaced in one step, and set aside when they are damaged."""

import contextlib
import errno
import glob
import json
import os
import stat
import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A file of ours that is no database; what is larger is none of ours.
SMALL_MAX_BYTES = 1_000_000
SQLITE_PARTS = ("-wal", "-shm", "")
# Damaged files of one name; a disk that goes on damaging them must not be filled with them.
ASIDE_MAX = 5
# Tags of an access list (acl(5)): the file's group and named groups, the mask that bounds them, all others.
_ACL_GROUPS, _ACL_MASK = (0x04, 0x08), 0x10
_ACL_OTHERS = (*_ACL_GROUPS, 0x20)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole: after a crash or a power cut it has the old content or the new one.

    Blocks until it is on the disk. Raises OSError, and then leaves nothing behind.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def overwrite(path: Path, data: bytes) -> None:
    """Write over the beginning of a file, in its place: one that is there has room on a full disk too.

    Blocks until it is on the disk; a power cut may leave a part of it. Raises OSError.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.pwrite(file, data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fdatasync(file)
    finally:
        os.close(file)


def read_small(path: Path, most_bytes: int = SMALL_MAX_BYTES) -> bytes:
    """A file's content, of at most 1 MB. Raises OSError, and ValueError for a larger one."""
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes")
    return data


def sealed(members: Mapping[str, Any]) -> bytes:
    """A JSON object with its checksum, `seal`, by which a bit that was turned on the disk shows."""
    return json.dumps({**members, "seal": zlib.crc32(json.dumps(members).encode())}).encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """What was sealed, or has no seal, as of an earlier version. Raises ValueError for what is damaged."""
    try:
        members = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"it is nested too deep ({error})") from error
    if not isinstance(members, dict):
        raise ValueError("it is no JSON object")
    if "seal" in members and members.pop("seal") != zlib.crc32(json.dumps(members).encode()):
        raise ValueError("its checksum does not fit")
    return members


def open_to_others(path: Path, descriptor: int | None = None) -> str:
    """That others than its owner may use this file, with the remedy, as the end of a sentence; "" if not.

    A user whom an access list names was chosen by the owner; systemd lets the service in so (mode 0440, where
    the group's bits are the list's mask). `descriptor` is the file, where it is open. Raises OSError.
    """
    file = path if descriptor is None else descriptor
    mode = stat.S_IMODE(os.stat(file).st_mode)
    try:
        entries = list(struct.iter_unpack("<HHI", os.getxattr(file, "system.posix_acl_access")[4:]))
    except OSError:  # it has no access list
        shared = mode & 0o077
    else:
        mask = next((rights for tag, rights, _ in entries if tag == _ACL_MASK), 0o7)
        shared = any(
            rights & (mask if tag in _ACL_GROUPS else 0o7) for tag, rights, _ in entries if tag in _ACL_OTHERS
        )
    return f"may be used by others than its owner (mode {mode:04o}): run chmod 600 {path}" if shared else ""


def sync_folder(folder: Path) -> None:
    """Block until the names in this folder are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Rename a damaged file, and the logs that SQLite keeps beside it.

    Returns the new path, `<path>.<why>-<epoch ms>`. Of more than `ASIDE_MAX` the oldest are deleted. Raises
    OSError.
    """
    aside = Path(f"{path}.{why}-{time.time_ns() // 1_000_000}")
    for suffix in SQLITE_PARTS:
        part = Path(f"{path}{suffix}")
        if part.exists():
            part.replace(f"{aside}{suffix}")
    known = sorted(path.parent.glob(f"{glob.escape(path.name)}.{why}-*[0-9]"))
    for old in known[:-ASIDE_MAX]:
        for suffix in SQLITE_PARTS:
            Path(f"{old}{suffix}").unlink(missing_ok=True)
    return aside
