"""The service as a whole: its program, units, user, rules and key, put in place and taken away again.

Everything that is done is yielded as a sentence. Doing it again changes nothing but what has changed.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import device_agent
from device_agent.config import Config
from device_agent.config.models import STATE_DIRECTORY
from device_agent.config.secret import KEY_FILE
from device_agent.errors import AgentError
from device_agent.store.files import write_atomically

SERVICE, GUARD = "device-agent.service", "device-agent-guard.service"
USER = "device-agent"
PROGRAM = "/opt/device-agent"
CONFIG = "/etc/device-agent/agent.toml"
KEY = f"/etc/device-agent/{KEY_FILE}"
COMMAND = "/usr/local/bin/device-agent"
EXTRA = f"/etc/systemd/system/{SERVICE}.d/50-configured.conf"
# Where they go, from `systemd/`.
FILES = {
    SERVICE: f"/etc/systemd/system/{SERVICE}",
    GUARD: f"/etc/systemd/system/{GUARD}",
    "sysusers.conf": "/etc/sysusers.d/device-agent.conf",
    "tmpfiles.conf": "/etc/tmpfiles.d/device-agent.conf",
    "99-device-agent.rules": "/etc/udev/rules.d/99-device-agent.rules",
}
# What the units hide from the service.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
# A copy of ours has this file; nothing else is ever removed.
MARK = "device-agent-service"
# Serial ports that the units allow by their majors.
ALLOWED = ("ttyUSB", "ttyACM", "ttyAMA", "ttyS")
CAMERA = (
    "SupplementaryGroups=video",
    *(f"DeviceAllow=char-{kind} rw" for kind in ("video4linux", "media", "dma_heap")),
    "MemoryMax=448M",
)

Run = Callable[[Sequence[str]], int]


def run_command(words: Sequence[str]) -> int:
    """Its exit code; 127 where there is no such command."""
    try:
        return subprocess.run(words, check=False).returncode
    except FileNotFoundError:
        return 127


def unit_files() -> Path:
    """The folder `systemd`: in the package, or beside it in a checkout."""
    package = Path(device_agent.__file__).parent
    inside = package / "systemd"
    return inside if inside.is_dir() else package.parent / "systemd"


def program_files() -> list[Path]:
    """What a copy of this program's site-packages consists of, its own two packages first."""
    site = Path(sysconfig.get_path("purelib"))
    own = [Path(device_agent.__file__).parent]
    if own[0].parent != site:  # a checkout; what leads there is left out below
        own.append(own[0].parent / "drivers" / "device_agent_drivers")
    names = {path.name for path in own}
    return own + [path for path in site.iterdir() if path.name not in names and path.suffix != ".pth"]


def device_lines(config: Config) -> list[str]:
    """Unit lines for what this configuration needs beyond the unit's own list."""
    lines = [
        line
        for name in config.devices
        if getattr(config.devices[name], "driver", "") == "camera"
        for line in CAMERA
    ]
    for bus in config.buses.values():
        port = getattr(bus, "port", None)
        kind = Path(port).name.rstrip("0123456789") if isinstance(port, str) else ""
        if kind == "rfcomm" or (kind.startswith("tty") and kind not in ALLOWED):
            lines.append(f"DeviceAllow=char-{kind} rw")
    return list(dict.fromkeys(lines))


@dataclass(frozen=True, slots=True)
class Service:
    """`root` and `run` are others in tests."""

    root: Path = Path("/")
    run: Run = run_command

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    # -- install ----------------------------------------

    def install(self, config: Config | None, key: str, caller: str) -> Iterator[str]:
        """`config` is the one to take over; `key` may be empty; `caller` is the person's login, or empty.

        Raises AgentError, OSError.
        """
        program = yield from self._program()
        yield from self._units(program)
        self._must("systemd-sysusers", "device-agent.conf")
        yield from self._configuration(config)
        if key:
            self._write_key(key)
            yield f"the key is in {KEY}, for the service alone"
        self._must("systemd-tmpfiles", "--create", "device-agent.conf")
        for words in (("udevadm", "control", "--reload"), ("udevadm", "trigger")):
            self._must(*words)
        if caller:
            self._must("usermod", "-aG", USER, caller)
            yield f"{caller} is in group {USER}: log in again, then device-agent status works without sudo"
        self._must("systemctl", "daemon-reload")
        self._must("systemctl", "enable", GUARD, SERVICE)
        if not self._not_startable(config):
            self._must("systemctl", "restart", SERVICE)
            yield "the service runs, and starts with the machine"

    def _program(self) -> Generator[str, None, str]:
        """Where the program lies. One in somebody's home is copied: the service cannot look in there."""
        prefix = Path(sys.prefix)
        if not str(prefix).startswith(HIDDEN) and program_files()[0].is_relative_to(prefix):
            yield from self._link(prefix)
            return str(prefix)
        target, fresh = self.path(PROGRAM), self.path(f"{PROGRAM}.new")
        if target.exists() and not (target / MARK).exists():
            raise AgentError(
                f"{PROGRAM} is not a copy of ours: run {PROGRAM}/bin/device-agent service install"
            )
        shutil.rmtree(fresh, ignore_errors=True)
        base = getattr(sys, "_base_executable", sys.executable)
        if self.run([base, "-m", "venv", "--without-pip", str(fresh)]) != 0:
            raise AgentError(f"{fresh} could not be made: install python3-venv")
        site = next(fresh.glob("lib/python3*/site-packages"))
        for path in program_files():
            if path.is_dir():
                shutil.copytree(path, site / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(path, site / path.name)
        if not (site / "device_agent" / "systemd").exists():
            shutil.copytree(unit_files(), site / "device_agent" / "systemd")
        start = f"#!{PROGRAM}/bin/python\nimport sys\nfrom device_agent.cli import main\nsys.exit(main())\n"
        (fresh / "bin" / "device-agent").write_text(start)
        (fresh / "bin" / "device-agent").chmod(0o755)
        (fresh / MARK).touch()
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        yield f"the program is copied to {PROGRAM}: the service cannot look into anybody's home"
        yield from self._link(Path(PROGRAM))
        return PROGRAM

    def _link(self, prefix: Path) -> Iterator[str]:
        link, to = self.path(COMMAND), prefix / "bin" / "device-agent"
        link.parent.mkdir(parents=True, exist_ok=True)
        if (link.is_symlink() and link.readlink() == to) or (link.exists() and not link.is_symlink()):
            return
        link.unlink(missing_ok=True)
        link.symlink_to(to)
        yield f"{COMMAND} is {to}"

    def _units(self, program: str) -> Iterator[str]:
        for name, place in FILES.items():
            text = (unit_files() / name).read_text().replace(f"{PROGRAM}/bin/", f"{program}/bin/")
            if self._write(place, text):
                yield f"{place} is written"

    def _write(self, place: str, text: str) -> bool:
        path = self.path(place)
        if path.exists() and path.read_text() == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(), mode=0o644)
        return True

    def _configuration(self, config: Config | None) -> Iterator[str]:
        if config is None:
            return
        target = self.path(CONFIG)
        if not target.exists():
            self._write(CONFIG, config.path.read_text())
            yield f"{CONFIG} is a copy of {config.path}"
        elif target.read_text() != config.path.read_text():
            yield f"{CONFIG} is left as it is; it differs from {config.path}"
        if lines := device_lines(config):
            self._write(EXTRA, "\n".join(("[Service]", *lines, "")))
            yield f"{EXTRA} lets the service use what the configuration names"
        elif self.path(EXTRA).exists():
            self.path(EXTRA).unlink()

    def _write_key(self, key: str) -> None:
        path = self.path(KEY)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{key}\n".encode())
        self._must("chown", f"{USER}:{USER}", str(path))

    def _must(self, *words: str) -> None:
        if code := self.run(words):
            raise AgentError(
                f"`{' '.join(words)}` ended with {code}: see what it says above, and run this again"
            )

    # -- what is left, and the way back ----------------------------------------

    def left(self, config: Config | None) -> Iterator[str]:
        """What a person still has to do, each with its command."""
        if reason := self._not_startable(config):
            yield reason
        needs_key = config is None or config.network.kind != "none"
        if needs_key and not self.path(KEY).exists():
            yield f"give a key, once you have one: sudo install -m 600 -o {USER} /dev/stdin {KEY}"

    def _not_startable(self, config: Config | None) -> str:
        """Why the service is not to be started yet; "" if it may be."""
        if not self.path(CONFIG).exists():
            return f"make a configuration: sudo device-agent init --out {CONFIG}, then install again"
        if config is not None and str(config.state.directory) != STATE_DIRECTORY:
            where = f"state.directory = {config.state.directory} from {CONFIG}"
            return f"remove {where} and install again: the service writes {STATE_DIRECTORY} alone"
        return ""

    def uninstall(self, *, purge: bool) -> Iterator[str]:
        """Configuration, key and state stay unless `purge`. The user stays: files may be his."""
        self.run(["systemctl", "disable", "--now", SERVICE, GUARD])
        for place in (*FILES.values(), EXTRA, COMMAND):
            path = self.path(place)
            if path.is_symlink() or path.exists():
                path.unlink()
                yield f"{place} is removed"
        if self.path(EXTRA).parent.exists():
            shutil.rmtree(self.path(EXTRA).parent)
        self.run(["systemctl", "daemon-reload"])
        if (self.path(PROGRAM) / MARK).exists():
            shutil.rmtree(self.path(PROGRAM))
            yield f"{PROGRAM} is removed"
        for place in (str(Path(CONFIG).parent), STATE_DIRECTORY):
            if self.path(place).exists():
                if purge:
                    shutil.rmtree(self.path(place))
                yield f"{place} {'is removed' if purge else 'stays (--purge removes it)'}"

    def state(self) -> dict[str, str]:
        """What systemd says of each unit: its state, or `not installed`."""
        return {unit: self._state(unit) for unit in (SERVICE, GUARD)}

    def _state(self, unit: str) -> str:
        if not self.path(FILES[unit]).exists():
            return "not installed"
        active = "active" if self.run(["systemctl", "is-active", "--quiet", unit]) == 0 else "not active"
        enabled = self.run(["systemctl", "is-enabled", "--quiet", unit]) == 0
        return f"{active}, {'starts' if enabled else 'does not start'} with the machine"
