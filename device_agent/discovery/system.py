"""The machine as `scan` and `doctor` read it: files below a root, users, and what only a kernel can answer.

A test builds a tree of files and passes its folder as `root`; everything else has a default that is real.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.bus.i2c import I2cBus

RUN_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class SystemUser:
    """A user of the machine, with the ids of his groups."""

    name: str
    uid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class LineInfo:
    """One GPIO line as the kernel describes it."""

    offset: int
    name: str
    consumer: str
    """Who holds it; "" for nobody."""


@dataclass(frozen=True, slots=True)
class ChipInfo:
    """One GPIO chip."""

    label: str
    lines: tuple[LineInfo, ...]


def open_i2c(node: str) -> I2cBus:
    """The adapter, opened; the caller closes it. Raises BusError."""
    from device_agent.bus.config import I2cBusConfig
    from device_agent.bus.i2c_linux import LinuxI2c

    # A stuck bus costs a quarter of this for each question.
    bus = LinuxI2c(node.rpartition("/")[2], I2cBusConfig(kind="i2c", device=node, timeout_s=1.0))
    bus.open()
    return bus


def gpio_chip(node: str) -> ChipInfo:
    """Label and lines of a chip; claims none. Raises OSError."""
    import gpiod

    with gpiod.Chip(node) as chip:
        info = chip.get_info()
        lines = []
        for offset in range(info.num_lines):
            line = chip.get_line_info(offset)
            holder = line.consumer or ("a kernel driver" if line.used else "")
            lines.append(LineInfo(offset, line.name or "", holder if line.used else ""))
        return ChipInfo(info.label, tuple(lines))


def run_program(words: Sequence[str]) -> str:
    """What a program prints; "" where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


@dataclass(frozen=True, slots=True)
class System:
    """Paths are absolute, as the machine itself has them; `root` is put in front of them here alone."""

    root: Path = Path("/")
    open_i2c: Callable[[str], I2cBus] = field(default=open_i2c)
    gpio_chip: Callable[[str], ChipInfo] = field(default=gpio_chip)
    run: Callable[[Sequence[str]], str] = field(default=run_program)

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        """A small file's text without white space around it; "" where it cannot be read."""
        try:
            return self.path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.path(path))

    def find(self, pattern: str) -> list[str]:
        """Paths that fit, in natural order: ttyUSB2 before ttyUSB10."""
        found = ["/" + str(path.relative_to(self.root)) for path in self.root.glob(pattern.lstrip("/"))]
        return sorted(found, key=natural)

    def link(self, path: str) -> str:
        """The last part of where a symbolic link points; "" for none."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return ""

    def real(self, path: str) -> str:
        """The path with its links followed, inside the root."""
        resolved = os.path.realpath(self.path(path))
        root = os.path.realpath(self.root)
        return resolved[len(root) :] if root != "/" and resolved.startswith(root) else resolved

    def groups(self) -> dict[str, int]:
        """The machine's groups by name."""
        return {name: gid for name, gid, _ in self._group_lines()}

    def user(self, name: str) -> SystemUser | None:
        """A user of the machine with all his groups."""
        for line in self.text("/etc/passwd").splitlines():
            parts = line.split(":")
            if len(parts) >= 4 and parts[0] == name:
                groups = {gid for _, gid, members in self._group_lines() if name in members}
                return SystemUser(name, int(parts[2]), frozenset(groups | {int(parts[3])}))
        return None

    def _group_lines(self) -> Iterator[tuple[str, int, list[str]]]:
        for line in self.text("/etc/group").splitlines():
            parts = line.split(":")
            if len(parts) >= 4 and parts[2].isdigit():
                yield parts[0], int(parts[2]), parts[3].split(",")

    def may_use(self, path: str, user: SystemUser) -> bool:
        """Whether the user may read and write the node, by its owner, group and mode."""
        try:
            status = self.path(path).stat()
        except OSError:
            return False
        if user.uid == 0:
            return True
        shift = 6 if status.st_uid == user.uid else 3 if status.st_gid in user.groups else 0
        return status.st_mode >> shift & 0o6 == 0o6

    def group_of(self, path: str) -> str:
        """The group that owns a node, by its name or else its number."""
        try:
            gid = self.path(path).stat().st_gid
        except OSError:
            return ""
        return next((name for name, number in self.groups().items() if number == gid), str(gid))

    def holders(self) -> dict[str, str]:
        """Who has what below /dev open, as far as the kernel shows it: "screen (process 812)" by node."""
        held: dict[str, str] = {}
        own = str(os.getpid())
        for process in self.find("/proc/[0-9]*"):
            number = process.rpartition("/")[2]
            if number == own:
                continue
            try:
                names = os.listdir(self.path(f"{process}/fd"))
            except OSError:
                continue  # it ended meanwhile, or belongs to somebody else
            for name in names:
                try:
                    target = os.readlink(self.path(f"{process}/fd/{name}"))
                except OSError:
                    continue
                if target.startswith("/dev/"):
                    held.setdefault(target, f"{self.text(f'{process}/comm') or '?'} (process {number})")
        return held


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts numbers by their value."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for letter in text + "\0":
        if letter.isdigit():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts
