"""The machine itself: clock, storage, supply, hardware watchdog, random numbers."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.doctor.buses import config_txt, is_pi
from device_agent.doctor.finding import Finding, Target, ok
from device_agent.doctor.service import UNIT, unit_text
from device_agent.store.mounts import IN_MEMORY, in_memory, lasting_places, mount_of
from device_agent.store.state_directory import complaints, not_mounted

UNDER_VOLTAGE, THROTTLED = 1 << 0, 1 << 2
EVER = 16  # the same bits, shifted: since the start
FREE_MIN_BYTES = 200_000_000
FREE_MIN_SHARE = 0.05
ENTROPY_MIN_BITS = 128
CHMOD = re.compile(r"^run chmod (\d+ \S+)$")
CARD = re.compile(r"/dev/mmcblk\d")


def check(target: Target) -> Iterator[Finding]:
    yield from _clock(target)
    yield from _state(target)
    yield from _supply(target)
    yield from _watchdog(target)
    entropy = target.system.text("/proc/sys/kernel/random/entropy_avail")
    if entropy.isdigit() and int(entropy) < ENTROPY_MIN_BITS:
        why = "TLS and identities wait for random numbers at the start"
        remedy = "sudo apt install rng-tools-debian"
        yield Finding("problem", f"the kernel has {entropy} bits of entropy", "", why, remedy)


def _clock(target: Target) -> Iterator[Finding]:
    system = target.system
    if target.now_ms() < EARLIEST_TRUE_MS:
        why = "readings get wrong times, and TLS refuses every certificate"
        yield Finding(
            "problem", "the clock is not set", "", why, "sudo timedatectl set-ntp true; or add a DS3231"
        )
        return
    kept = system.exists("/run/systemd/timesync/synchronized")
    kept = kept or "NTPSynchronized=yes" in system.run(("timedatectl", "show"))
    if kept:
        yield ok("the clock is kept by NTP")
    else:
        why = "without it the clock drifts by seconds a day, and is wrong after a power cut"
        fix = ("timedatectl", "set-ntp", "true")
        yield Finding("problem", "nobody keeps the clock", "", why, f"sudo {' '.join(fix)}", fix)
    if not system.find("/dev/rtc*") and is_pi(target):
        why = "after a power cut without network the clock stands still until NTP answers"
        remedy = f"a DS3231 on I2C, and dtoverlay=i2c-rtc,ds3231 in {config_txt(target)}"
        yield Finding("note", "this board has no battery-backed clock", "", why, remedy)


# -- storage ------------------------------------------------------------------------------------------------


def _state(target: Target) -> Iterator[Finding]:
    if target.config is None:
        return
    state = target.config.state
    if missing := not_mounted(state.directory, target.system.root):
        what, _, remedy = missing.rpartition(": ")
        yield Finding("problem", what, "state.directory", "the daemon waits for it", f"sudo {remedy}")
        return
    yield from _writable(target, state.directory)
    for complaint in complaints(target.system.path(str(state.directory))):
        what, _, remedy = complaint.partition(": ")
        fix = ("chmod", *chmod[1].split()) if (chmod := CHMOD.search(remedy)) else ()
        yield Finding("problem", what, "state.directory", "the daemon refuses to start", remedy, fix)
    root = target.system.root
    source, point, _, options = mount_of(state.directory, root)
    where = f"{state.directory} on {point or '?'}"
    if volatile := in_memory(state.directory, root):
        why = f"{volatile}: a reboot takes emergency stop, command ids, identity, outbox and history with it"
        yield Finding("problem", "the state directory is in memory", where, why, _elsewhere(root))
    if "ro" in options:
        remedy = f"sudo mount -o remount,rw {point}; and look for the cause with dmesg"
        yield Finding("problem", "the file system is read-only", where, "nothing can be kept", remedy)
    on_card = CARD.match(source) or source == "/dev/root"
    if on_card and not options & {"noatime", "relatime"}:
        remedy = f"add noatime to the options of {point} in /etc/fstab, then sudo mount -o remount {point}"
        yield Finding("problem", "each reading of a file writes to the card", where, "it wears out", remedy)
    if options & {"nobarrier", "barrier=0"}:
        remedy = f"take {', '.join(options & {'nobarrier', 'barrier=0'})} out of /etc/fstab"
        why = "a power cut can destroy the outbox and the journal"
        yield Finding("problem", "flushes do not reach the disk", where, why, remedy)
    given = "RuntimeDirectory=" in unit_text(target.system, UNIT)
    if source and not given and mount_of(state.runtime_directory, root).kind not in IN_MEMORY:
        why = "what is not yet committed wears the card, instead of lying in memory"
        remedy = (
            'set state.runtime_directory = "/run/device-agent", or run it as a service (systemd/README.md)'
        )
        yield Finding("note", "the runtime directory is on a disk", str(state.runtime_directory), why, remedy)
    yield from _room(target, state.directory)


def _elsewhere(root: Path) -> str:
    """Where a state directory that is in memory could be instead."""
    if places := lasting_places(root):
        return f'set state.directory = "{places[0]}/device-agent" (lasting: {", ".join(places)})'
    return (
        "add a partition or a USB disk to /etc/fstab and set state.directory to a folder on it; with the "
        "overlay file system of Raspberry Pi OS write overlayroot=tmpfs:recurse=0 into the kernel's command "
        "line, which leaves that disk out of the overlay"
    )


def _nearest(target: Target, path: Path) -> Path:
    """The path or the nearest folder above it that is there."""
    at = target.system.path(str(path))
    while not at.exists() and at != at.parent:
        at = at.parent
    return at


def _writable(target: Target, path: Path) -> Iterator[Finding]:
    place, user = target.system.path(str(path)), target.user
    if user.uid == 0:
        return
    at = _nearest(target, path)
    status = at.stat()
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid in user.groups else 0
    if status.st_mode >> shift & 0o3 != 0o3:
        remedy = f"sudo install -d -m 700 -o {user.name} {path}; or set state.directory to a folder of yours"
        why = "the daemon cannot start without it"
        fix: tuple[str, ...] = (
            () if at == place else ("install", "-d", "-m", "700", "-o", user.name, str(path))
        )
        yield Finding("problem", f"user {user.name} cannot write {path}", "state.directory", why, remedy, fix)
    elif at == place and status.st_mode & 0o077:
        why = "others can read the identity and the journal"
        fix = ("chmod", "700", str(path))
        yield Finding("problem", f"others may look into {path}", "state.directory", why, " ".join(fix), fix)


def _room(target: Target, path: Path) -> Iterator[Finding]:
    config = target.config
    if config is None:
        return
    disk = os.statvfs(_nearest(target, path))
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    wanted = config.outbox.max_bytes + (config.history.max_bytes if config.history.enabled else 0)
    wanted = max(wanted, FREE_MIN_BYTES)
    if free < wanted or free < size * FREE_MIN_SHARE:
        why = f"outbox and history may take {wanted / 1e6:.0f} MB, and a full disk stops other programs"
        remedy = "sudo apt clean; sudo journalctl --vacuum-size=100M; or lower outbox.max_bytes"
        yield Finding("problem", f"{free / 1e6:.0f} MB are free", str(path), why, remedy)
    else:
        yield ok(f"{free / 1e6:.0f} MB are free", str(path))


# -- supply and watchdog ------------------------------------------------------------------------------------


def _supply(target: Target) -> Iterator[Finding]:
    system = target.system
    text = system.text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    text = text or system.run(("vcgencmd", "get_throttled")).strip().rpartition("=")[2]
    try:
        word = int(text, 16)
    except ValueError:
        return
    why = "sensors give wrong values, USB adapters disappear, and cards get damaged"
    remedy = "the board's own power supply, a short thick cable, fewer USB devices"
    for shift, when in ((0, "now"), (EVER, "since the start")):
        if word >> shift & UNDER_VOLTAGE:
            yield Finding("problem", f"the supply voltage is too low ({when})", "power", why, remedy)
            return
    if word & THROTTLED or word >> EVER & THROTTLED:
        why = "the processor was slowed down because of heat"
        yield Finding("problem", "the processor is throttled", "cooling", why, "a heat sink or a fan")
    else:
        yield ok("supply and temperature are good")


def _watchdog(target: Target) -> Iterator[Finding]:
    system = target.system
    if not system.find("/dev/watchdog*"):
        remedy = (
            f"write dtparam=watchdog=on into {config_txt(target)}"
            if is_pi(target)
            else "enable the board's own in its firmware or device tree (softdog hangs with the kernel)"
        )
        why = "a kernel that hangs stays so, with outputs as they were, until somebody comes"
        yield Finding("problem", "there is no hardware watchdog", "/dev/watchdog", why, remedy)
        return
    texts = [system.text("/etc/systemd/system.conf")]
    for folder in ("/usr/lib/systemd", "/lib/systemd", "/run/systemd", "/etc/systemd"):
        texts += [system.text(path) for path in system.find(f"{folder}/system.conf.d/*.conf")]
    values = re.findall(r"^\s*RuntimeWatchdogSec\s*=\s*(\S+)", "\n".join(texts), re.MULTILINE)
    if values and values[-1] not in ("0", "off", "infinity"):
        yield ok(f"systemd feeds the hardware watchdog (RuntimeWatchdogSec={values[-1]})")
        return
    why = "a kernel that hangs is not reset: outputs keep their last level"
    remedy = (
        "printf '[Manager]\\nRuntimeWatchdogSec=15\\n' | sudo tee /etc/systemd/system.conf.d/watchdog.conf; "
        "sudo systemctl daemon-reexec (make the folder first: sudo mkdir -p /etc/systemd/system.conf.d)"
    )
    yield Finding("problem", "nobody feeds the hardware watchdog", "/etc/systemd/system.conf", why, remedy)
