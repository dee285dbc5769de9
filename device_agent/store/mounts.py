"""File systems: which one holds a path, and whether what is written there is still there after a reboot."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

IN_MEMORY = ("tmpfs", "ramfs")
# A disk that exists only while the machine runs, such as log2ram and zram-tools make.
MEMORY_DISKS = ("/dev/zram", "/dev/ram")
ON_DISK = ("ext4", "ext3", "ext2", "btrfs", "f2fs", "xfs")


class Mount(NamedTuple):
    """One line of proc_mounts(5)."""

    source: str = ""
    point: str = ""
    kind: str = ""
    options: frozenset[str] = frozenset()


def mounts(root: Path = Path("/")) -> Iterator[Mount]:
    """All that this process sees; none where /proc hides them."""
    try:
        lines = (root / "proc/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return
    for words in map(str.split, lines):
        if len(words) >= 4:
            yield Mount(words[0], words[1].replace("\\040", " "), words[2], frozenset(words[3].split(",")))


def mount_of(path: Path, root: Path = Path("/")) -> Mount:
    """The mount that holds this path."""
    best = Mount()
    for mount in mounts(root):
        if path.is_relative_to(mount.point) and len(mount.point) >= len(best.point):
            best = mount
    return best


def in_memory(path: Path, root: Path = Path("/")) -> str:
    """Why what is written there is gone after a reboot, or may be; "" if it lasts.

    An overlay, such as the Raspberry Pi's "Overlay File System", lasts as its upper layer does.
    """
    mount = mount_of(path, root)
    if mount.kind in IN_MEMORY or mount.source.startswith(MEMORY_DISKS):
        return f"{path} is in memory ({mount.kind} on {mount.point})"
    uppers = [option.partition("=")[2] for option in mount.options if option.startswith("upperdir=")]
    if mount.kind != "overlay" or not uppers:
        return ""
    if mount_of(Path(uppers[0]), root) == mount:  # it was mounted before this root was
        return f"{path} is on an overlay ({mount.point}) whose upper layer, {uppers[0]}, cannot be seen"
    return (
        f"{path} is on an overlay ({mount.point}): {why}" if (why := in_memory(Path(uppers[0]), root)) else ""
    )


def lasting_places(root: Path = Path("/")) -> list[str]:
    """Where a directory of one's own would last: mounted disks that take writes."""
    return [
        mount.point
        for mount in mounts(root)
        if mount.kind in ON_DISK
        and "rw" in mount.options
        and not mount.source.startswith(MEMORY_DISKS)
        and not mount.point.startswith("/boot")
    ]
