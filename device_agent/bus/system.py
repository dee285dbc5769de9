"""What the operating system knows about a refused device: which group is missing, which process holds it."""

import grp
import os
import pwd
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from device_agent.errors import BusDenied


def denied(path: str) -> BusDenied:
    """The sentence for EACCES and EPERM on a device node: names the user and the group that owns the node, or
    the unit of the service, where the node's mode would let the user in."""
    group = "the group that owns it"
    with suppress(OSError, KeyError):
        node = os.stat(path)
        if os.access(path, os.R_OK | os.W_OK) and stat.S_ISCHR(node.st_mode):
            return BusDenied(
                f"{path}: refused to {_user()}, whom its mode lets in: the service's unit does not; add "
                f"DeviceAllow=char-{os.major(node.st_rdev)} rw with `systemctl edit` (systemd/README.md)"
            )
        group = f"its group {grp.getgrgid(node.st_gid).gr_name!r}"
    return BusDenied(f"{path}: permission denied for {_user()}; add the user to {group} and start again")


def _user() -> str:
    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name!r}"
    except KeyError:
        return f"user id {os.geteuid()}"


def holder(path: str) -> str:
    """Who else has this device node open, as " by screen (process 812)"; "" where the kernel hides it."""
    real = os.path.realpath(path)
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            if any(os.readlink(process / "fd" / number) == real for number in os.listdir(process / "fd")):
                return f" by {(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
    return ""


def listed(names: Sequence[str], nothing: str) -> str:
    """For the end of a sentence: "there are a, b", or `nothing`."""
    return f"there are {', '.join(names)}" if names else nothing
