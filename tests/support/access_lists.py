"""Access lists of files (acl(5)), as systemd gives them to credentials."""

import os
import struct
from pathlib import Path

import pytest

OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
# One user besides the owner may read; the mode is then 0440.
AS_CREDENTIALS = ((OWNER, 4), (USER, 4, 12345), (GROUP, 0), (MASK, 4), (OTHER, 0))


def access_list(path: Path, *entries: tuple[int, ...]) -> None:
    """Give a file an access list: `(tag, rights, user or group)`."""
    nobody = 0xFFFFFFFF
    packed = [struct.pack("<HHI", tag, rights, *who or (nobody,)) for tag, rights, *who in entries]
    try:
        os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(packed))
    except OSError:
        pytest.skip("this file system has no access lists")
