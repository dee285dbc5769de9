"""The state directory: private to one user, used by one process at a time, and bound to one machine."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from device_agent.errors import AgentError, ConfigError, NotReady
from device_agent.store.files import set_aside, write_atomically
from device_agent.store.mounts import in_memory

log = structlog.get_logger("state_directory")

# Serial numbers of the board and of its SoC: a card that moves to another board does not take them along.
SERIAL_NUMBERS = ("proc/device-tree/serial-number", "sys/devices/soc0/serial_number")
MACHINE_ID = "etc/machine-id"
FIELD_MAX_BYTES = 256
# Who the agent is, and which sessions, commands and questions to an AI agent it has under way: two boards
# that go on with them obey one command twice. The emergency stop's latch stays, and so does the history.
OF_THE_MACHINE = ("identity.json", "journal.db", "outbox.db", "delegations.json", "automation.json")


def prepare(*folders: Path) -> None:
    """Make them, private to this user. Raises OSError; NotReady where their disk is still missing."""
    for folder in folders:
        if why := not_mounted(folder):
            raise NotReady(f"state.directory: {why}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def not_mounted(folder: Path, root: Path = Path("/")) -> str:
    """Why its disk is not there yet, by fstab(5); "" if it is: no second state may begin beside the disk."""
    try:
        lines = (root / "etc/fstab").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    real = Path(os.path.realpath(folder))
    for fields in (line.split() for line in lines if not line.lstrip().startswith("#")):
        if len(fields) < 4 or not fields[1].startswith("/") or "noauto" in fields[3].split(","):
            continue
        point = fields[1].replace("\\040", " ")
        if real.is_relative_to(point) and not os.path.ismount(root / point[1:]):
            return f"{folder} is on {point}, which /etc/fstab names and which is not mounted: mount {point}"
    return ""


def complaints(folder: Path) -> list[str]:
    """Why this directory must not be used, each with its remedy; empty if it may be, or is not there yet.

    Whoever can write into it, or has put a symbolic link there, decides what the daemon reads and overwrites.
    """
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        links = [entry.name for entry in entries if _is_strange_link(entry)]
        closed = [entry.name for entry in entries if entry.name not in links and not _is_open_to_us(entry)]
    except OSError:
        return []  # what is missing is made; what cannot be read is told where it is needed
    found = []
    if status.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        found.append(f"{folder} belongs to another user (uid {status.st_uid}): name a directory of your own")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        found.append(f"others may write into {folder} (mode {mode:04o}): run chmod 700 {folder}")
    found += [f"{folder / name} is a symbolic link: remove it" for name in links]
    if closed and not found:
        names = ", ".join(closed)
        found.append(f"{names} in {folder} cannot be written: run sudo chown -R {status.st_uid} {folder}")
    return found


def _is_strange_link(entry: "os.DirEntry[str]") -> bool:
    """A symbolic link, unless it is the owner's to a directory, such as a RAM disk for `run`."""
    if not entry.is_symlink():
        return False
    return not entry.is_dir() or entry.stat(follow_symlinks=False).st_uid not in (0, os.geteuid())


def _is_open_to_us(entry: "os.DirEntry[str]") -> bool:
    """By its owner and mode; a disk that takes nothing is another matter, and ends no start."""
    read_only = os.statvfs(entry.path).f_flag & os.ST_RDONLY
    return os.access(entry.path, os.R_OK if read_only else os.R_OK | os.W_OK)


def _give_back(folder: Path) -> None:
    """What root has left in somebody's directory is its owner's: the service could not open it."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Hold the directory for this process; it exists. What another machine left in it is set aside.

    Raises AgentError while another process holds it, ConfigError with its complaints, OSError.
    """
    if problems := complaints(folder):
        raise ConfigError("state.directory: " + "; ".join(problems))
    # The directory itself is locked: a file for that cannot be made on a disk that takes nothing.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentError(f"another daemon or command uses {folder}; stop it first") from None
        if volatile := in_memory(folder.resolve()):
            log.warning("state_in_memory", why=volatile, lost_at_reboot="emergency stop, command ids, outbox")
        bind(folder, machine())
        yield
    finally:
        _give_back(folder)
        os.close(descriptor)


def machine(root: Path = Path("/")) -> str:
    """A hash that names this machine: of its serial numbers, else of its machine-id; "" if it has none.

    Hashed, because machine-id(5) must not be shown to others.
    """
    numbers = [number for name in SERIAL_NUMBERS if (number := _field(root / name)).strip(b"0")]
    number = b"\n".join(numbers) or _lasting_id(root / MACHINE_ID)
    if not number or number == b"uninitialized":
        return ""
    return hashlib.sha256(b"device-agent\n" + number).hexdigest()


def _lasting_id(path: Path) -> bytes:
    """The machine-id; not one that systemd mounts over the file for this boot alone, on a read-only root."""
    with suppress(OSError):
        if path.stat().st_dev == path.parent.stat().st_dev:
            return _field(path)
    return b""


def _field(path: Path) -> bytes:
    with suppress(OSError), path.open("rb") as file:
        return file.read(FIELD_MAX_BYTES).strip(b"\0 \n")
    return b""


def bind(folder: Path, name: str) -> None:
    """Set aside what the agent of another machine left here: two boards from one card image are two agents.

    A directory without a name, and a machine without one, are taken as they are; a disk that takes nothing
    keeps no name. Raises OSError.
    """
    path = folder / "machine"
    known = _field(path).decode("ascii", "replace")
    if not name or name == known:
        return
    same = sum(one == other for one, other in zip(known, name, strict=False))
    if known and same < len(name) // 2:  # two hashes have four of 64 digits in common, a damaged one most
        for file in OF_THE_MACHINE:
            if (folder / file).exists():
                aside = str(set_aside(folder / file, "copied"))
                log.warning("state_of_another_machine", file=file, aside=aside, instead="a new identity")
    elif (folder / "identity.json").exists():
        log.warning("state_without_machine", directory=str(folder), taken_as="this machine's own")
    # Last, so that a crash before it repeats all this.
    try:
        write_atomically(path, f"{name}\n".encode())
    except OSError as error:
        log.warning("machine_not_noted", path=str(path), error=str(error))
