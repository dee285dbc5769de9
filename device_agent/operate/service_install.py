"""The service as a whole: its program, units, user, rules and key, put in place and taken away again.

Everything that is done is yielded as a sentence. Doing it again changes nothing but what has changed.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_agent.config import Config
from device_agent.config.models import STATE_DIRECTORY
from device_agent.config.secret import KEY_FILE
from device_agent.errors import AgentError
from device_agent.operate import service_program
from device_agent.operate.service_program import PROGRAM, Run, run_command, unit_files
from device_agent.store.files import write_atomically

SERVICE, GUARD = "device-agent.service", "device-agent-guard.service"
USER = "device-agent"
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
# A distribution package brings this one.
PACKAGED_COMMAND = "/usr/bin/device-agent"
# How long an actuator that is driven is waited for.
SAFE_MOMENT = "5m"
NOT_NOW = 75
# Serial ports that the units allow by their majors.
ALLOWED = ("ttyUSB", "ttyACM", "ttyAMA", "ttyS")
CAMERA = (
    "SupplementaryGroups=video",
    *(f"DeviceAllow=char-{kind} rw" for kind in ("video4linux", "media", "dma_heap")),
    "MemoryMax=448M",
)


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
class Before:
    """What there was before an installation."""

    place: str
    """Of the program, where it was a copy of ours."""
    texts: dict[str, str | None]
    """By the names of FILES."""
    ran: bool


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
        before = self._before()
        copied = service_program.copy_program(self.root, self.run) if service_program.needs_copy() else ""
        if before.ran:
            self._wait_for_a_safe_moment()
        if copied:
            service_program.use(self.root, copied)
            yield f"the program is copied to {PROGRAM}: the service cannot use it where it lies"
        yield from self._put_in_place(config, key, caller)
        if before.texts[SERVICE] is None:
            self._must("systemctl", "enable", GUARD, SERVICE)
        if self._not_startable(config) or not self._is_booted():
            return
        if not before.ran and self.run(["systemctl", "is-enabled", "--quiet", SERVICE]) != 0:
            yield f"the service stays disabled: sudo systemctl enable --now {SERVICE}"
            return
        yield from self._start(before)

    def _put_in_place(self, config: Config | None, key: str, caller: str) -> Iterator[str]:
        prefix = sys.prefix
        program = PROGRAM if service_program.needs_copy() or prefix in service_program.PLACES else prefix
        yield from self._link(Path(program))
        for name, place in FILES.items():
            text = (unit_files() / name).read_text().replace(f"{PROGRAM}/bin/", f"{program}/bin/")
            if self._write(place, text):
                yield f"{place} is written"
        self._must("systemd-sysusers", "device-agent.conf")
        yield from self._configuration(config)
        if key:
            self._write_key(key)
            yield f"the key is in {KEY}, for the service alone"
        self._must("systemd-tmpfiles", "--create", "device-agent.conf")
        if caller:
            self._must("usermod", "-aG", USER, caller)
            yield f"{caller} is in group {USER}: log in again, then device-agent status works without sudo"
        self._reload()

    def _reload(self) -> None:
        """What runs takes up what was written. In a root that is not booted nothing runs."""
        if self._is_booted():
            for words in ("udevadm control --reload", "udevadm trigger", "systemctl daemon-reload"):
                self._must(*words.split())

    def _is_booted(self) -> bool:
        return self.path("/run/systemd/system").is_dir()

    # -- from one version to the next ----------------------------------------

    def _before(self) -> Before:
        paths = {name: self.path(place) for name, place in FILES.items()}
        texts = {name: path.read_text() if path.exists() else None for name, path in paths.items()}
        ran = self._is_booted() and self.run(["systemctl", "is-active", "--quiet", SERVICE]) == 0
        return Before(service_program.in_use(self.root), texts, ran)

    def _wait_for_a_safe_moment(self) -> None:
        """A restart makes everything safe: not while somebody needs it otherwise. Raises AgentError."""
        ask = [sys.executable, "-P", "-m", "device_agent", "--config", CONFIG, "may-update"]
        if self.run([*ask, "--wait", SAFE_MOMENT]) == NOT_NOW:
            raise AgentError("nothing was changed: try again, or `device-agent safe` first")

    def _start(self, before: Before) -> Iterator[str]:
        """Both units anew; with what was there before if this does not become ready. Raises AgentError."""
        if self._restart():
            yield "the service runs, and starts with the machine"
            return
        why = f"it does not become ready: journalctl -u {SERVICE} says why"
        place = service_program.in_use(self.root)
        if not (before.ran and before.place not in ("", place)):
            raise AgentError(why)
        service_program.use(self.root, before.place)
        for name, text in before.texts.items():
            if text is None:
                self.path(FILES[name]).unlink()
            else:
                self._write(FILES[name], text)
        self._reload()
        back = "the version before runs again" if self._restart() else "nor does the version before"
        raise AgentError(f"{why}; {back}")

    def _restart(self) -> bool:
        """Whether it became ready. The guard first: meanwhile the daemon holds the lines, then the guard."""
        return self.run(["systemctl", "restart", GUARD]) == self.run(["systemctl", "restart", SERVICE]) == 0

    def _link(self, prefix: Path) -> Iterator[str]:
        link, to = self.path(COMMAND), prefix / "bin" / "device-agent"
        link.parent.mkdir(parents=True, exist_ok=True)
        if self.path(PACKAGED_COMMAND).is_symlink():
            return
        if (link.is_symlink() and link.readlink() == to) or (link.exists() and not link.is_symlink()):
            return
        link.unlink(missing_ok=True)
        link.symlink_to(to)
        yield f"{COMMAND} is {to}"

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
        with suppress(OSError):  # drop-ins of somebody else stay
            self.path(EXTRA).parent.rmdir()
        self.run(["systemctl", "daemon-reload"])
        if service_program.remove_programs(self.root):
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
