"""Which file system holds a path, and whether what is written there outlives a reboot."""

from pathlib import Path

import pytest

from device_agent.store.mounts import in_memory, lasting_places, mount_of

STATE = Path("/var/lib/device-agent")
PI = "tmpfs-root /rw tmpfs rw 0 0\n/dev/mmcblk0p2 /ro ext4 ro 0 0\n"


def root_of(tmp_path: Path, text: str) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/dev/sda1 / ext4 rw 0 0", ""),
        ("tmpfs / tmpfs rw 0 0", "in memory (tmpfs on /)"),
        ("/dev/sda1 / ext4 rw 0 0\n/dev/zram1 /var ext4 rw 0 0", "in memory (ext4 on /var)"),
        (f"{PI}overlayroot / overlay rw,lowerdir=/ro,upperdir=/rw/up 0 0", "in memory (tmpfs on /rw)"),
        ("overlay / overlay rw,lowerdir=/lower,upperdir=/upper/data 0 0", "cannot be seen"),
        ("/dev/sda1 /d ext4 rw 0 0\noverlay / overlay rw,lowerdir=/l,upperdir=/d/up 0 0", ""),
        ("overlay / overlay ro,lowerdir=/a:/b 0 0", ""),
        # A disk of its own below an overlay root lasts.
        (f"{PI}o / overlay rw,upperdir=/rw/up 0 0\n/dev/sda1 /var/lib/device-agent ext4 rw 0 0", ""),
        ("", ""),
    ],
)
def test_what_does_not_outlive_a_reboot(tmp_path: Path, text: str, why: str) -> None:
    found = in_memory(STATE, root_of(tmp_path, text))
    assert (why in found) if why else not found


def test_the_last_mount_at_a_place_holds_it(tmp_path: Path) -> None:
    root = root_of(tmp_path, "/dev/sda1 / ext4 rw 0 0\ntmpfs /var tmpfs rw 0 0\n/dev/sdb /var xfs rw 0 0\n")
    assert mount_of(STATE, root).source == "/dev/sdb"
    assert mount_of(Path("/variable"), root).source == "/dev/sda1"


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert in_memory(STATE, tmp_path) == ""
    assert lasting_places(tmp_path) == []


def test_places_that_last_are_disks_that_take_writes(tmp_path: Path) -> None:
    text = f"{PI}/dev/sda1 /mnt/my\\040disk ext4 rw 0 0\n/dev/mmcblk0p1 /boot/firmware vfat rw 0 0\n"
    assert lasting_places(root_of(tmp_path, text)) == ["/mnt/my disk"]
