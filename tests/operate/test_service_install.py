"""The service is put in place, found as it is, brought up to date and taken away, below another root."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from device_agent.cli import main, parser
from device_agent.cli import service as command
from device_agent.config import Config, load
from device_agent.operate import service_install, service_program
from device_agent.operate.service_install import FILES, Service

CONFIG = """
[agent]
name = "a"
[buses.gsm]
kind = "serial"
port = "/dev/ttymxc2"
[buses.meter]
kind = "serial"
port = "/dev/ttyUSB0"
[devices.console]
driver = "serial-bytes"
bus = "gsm"
"""


class Machine:
    """What would have been run; making and compiling a virtual environment is all that is."""

    def __init__(self, root: Path) -> None:
        self.ran: list[str] = []
        self.codes: dict[str, list[int]] = {}
        """By how a command begins, or its option `-m`: its next exit codes."""
        self.service = Service(root, self._run)
        self.root = root
        (root / "run" / "systemd" / "system").mkdir(parents=True)

    def _run(self, words: Sequence[str]) -> int:
        if "venv" in words or "compileall" in words:
            return subprocess.run(words, check=False).returncode
        command = " ".join(words).removeprefix(f"{sys.executable} -P -m ")
        self.ran.append(command)
        return next(
            (codes.pop(0) for told, codes in self.codes.items() if command.startswith(told) and codes), 0
        )

    def program(self) -> str:
        """Where the service's program lies."""
        return service_program.in_use(self.root)

    def install(self, config: Config | None = None, key: str = "", caller: str = "") -> list[str]:
        self.ran.clear()
        return list(self.service.install(config, key, caller))

    def text(self, absolute: str) -> str:
        return self.service.path(absolute).read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "mine.toml"
    path.write_text(CONFIG)
    return load(path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program of one file instead of all its dependencies."""
    package = tmp_path / "home" / "device_agent"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(service_program, "program_files", lambda: [package])


@pytest.mark.usefixtures("small")
def test_everything_is_in_place_and_said(machine: Machine, config: Config) -> None:
    said = machine.install(config, "bk_key", "ann")
    assert all(machine.service.path(place).is_file() for place in FILES.values())
    assert machine.text("/etc/device-agent/agent.toml") == CONFIG
    key = machine.service.path("/etc/device-agent/api_key")
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("bk_key\n", 0o600)
    extra = machine.text("/etc/systemd/system/device-agent.service.d/50-configured.conf")
    assert extra == "[Service]\nDeviceAllow=char-ttymxc rw\n", "ttyUSB is in the unit already"
    assert (
        os.readlink(machine.service.path("/usr/local/bin/device-agent"))
        == "/opt/device-agent/bin/device-agent"
    )
    for words in (
        "systemd-sysusers device-agent.conf",
        "usermod -aG device-agent ann",
    ):
        assert words in machine.ran
    assert machine.ran[-1] == "systemctl restart device-agent.service"
    assert any(line.startswith("ann is in group device-agent") for line in said)
    assert list(machine.service.left(config)) == []


@pytest.mark.usefixtures("small")
def test_again_it_leaves_what_is_right_and_what_is_somebody_s(machine: Machine, config: Config) -> None:
    machine.install(config)
    machine.service.path("/etc/device-agent/agent.toml").write_text("# mine\n")
    unit = machine.service.path(FILES["device-agent.service"])
    unit.write_text("[Service]\n# of an older version\n")
    said = machine.install(config)
    assert machine.text("/etc/device-agent/agent.toml") == "# mine\n"
    assert [line for line in said if "is written" in line] == [f"{FILES['device-agent.service']} is written"]
    assert any("is left as it is; it differs" in line for line in said)


@pytest.mark.usefixtures("small")
def test_what_is_left_to_do_has_its_command(machine: Machine, config: Config, tmp_path: Path) -> None:
    machine.install(None)
    assert "systemctl restart device-agent.service" not in machine.ran, "there is nothing to start yet"
    assert [line.partition(":")[0] for line in machine.service.left(None)] == [
        "make a configuration", "give a key, once you have one",
    ]  # fmt: skip
    machine.install(config)
    (tmp_path / "other.toml").write_text(f'{CONFIG}[network]\nkind = "none"\n[state]\ndirectory = "~/x"\n')
    other = load(tmp_path / "other.toml")
    machine.install(other)
    assert "systemctl restart device-agent.service" not in machine.ran, "it would not come up"
    (left,) = machine.service.left(other)
    assert "the service writes /var/lib/device-agent alone" in left


@pytest.mark.usefixtures("small")
def test_a_step_that_fails_is_named(machine: Machine, config: Config) -> None:
    machine.codes["systemd-sysusers"] = [1]
    with pytest.raises(service_install.AgentError, match=r"`systemd-sysusers .*` ended with 1"):
        machine.install(config)


@pytest.mark.usefixtures("small")
def test_it_is_taken_away_and_state_stays_unless_purged(machine: Machine, config: Config) -> None:
    machine.install(config, "bk_key")
    state = machine.service.path("/var/lib/device-agent")
    state.mkdir(parents=True)
    said = list(machine.service.uninstall(purge=False))
    assert machine.ran[-2:] == [
        "systemctl disable --now device-agent.service device-agent-guard.service", "systemctl daemon-reload",
    ]  # fmt: skip
    assert not any(machine.service.path(place).exists() for place in (*FILES.values(), "/opt/device-agent"))
    assert machine.text("/etc/device-agent/api_key")
    assert "/var/lib/device-agent stays (--purge removes it)" in said
    list(machine.service.uninstall(purge=True))
    assert not state.exists()
    assert set(machine.service.state().values()) == {"not installed"}


@pytest.mark.usefixtures("small")
def test_drop_ins_of_somebody_else_stay(machine: Machine, config: Config) -> None:
    machine.install(config)
    other = machine.service.path("/etc/systemd/system/device-agent.service.d/override.conf")
    other.write_text("[Service]\n")
    list(machine.service.uninstall(purge=False))
    assert list(other.parent.iterdir()) == [other]


@pytest.mark.usefixtures("small")
def test_what_a_person_disabled_stays_so(machine: Machine, config: Config) -> None:
    machine.install(config)
    machine.codes |= {"systemctl is-active": [3], "systemctl is-enabled": [1]}
    said = machine.install(config)
    assert not [line for line in machine.ran if " enable " in line or " restart " in line]
    assert any("stays disabled" in line for line in said)


@pytest.mark.usefixtures("small")
def test_a_root_that_is_not_booted_is_prepared(machine: Machine, config: Config) -> None:
    machine.service.path("/run/systemd/system").rmdir()
    machine.install(config)
    assert [line for line in machine.ran if line.startswith(("systemctl", "udevadm"))] == [
        "systemctl enable device-agent-guard.service device-agent.service"
    ]


@pytest.mark.usefixtures("small")
def test_while_something_is_driven_nothing_changes(machine: Machine, config: Config) -> None:
    machine.install(config)
    unit = machine.service.path(FILES["device-agent.service"])
    unit.write_text("# of the version before\n")
    machine.codes["device_agent --config /etc/device-agent/agent.toml may-update --wait"] = [75]
    with pytest.raises(service_install.AgentError, match="nothing was changed"):
        machine.install(config)
    assert (unit.read_text(), machine.program()) == ("# of the version before\n", "/opt/device-agent.a")
    machine.install(config)
    assert machine.program() == "/opt/device-agent.b"
    assert machine.ran[-2:] == [
        "systemctl restart device-agent-guard.service",
        "systemctl restart device-agent.service",
    ]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("also_before", [False, True])
def test_a_version_that_does_not_become_ready_is_put_back(
    machine: Machine, config: Config, *, also_before: bool
) -> None:
    machine.install(config)
    unit = machine.service.path(FILES["device-agent.service"])
    unit.write_text("# of the version before\n")
    machine.codes["systemctl restart device-agent.service"] = [1, int(also_before)]
    said = "nor does the version before" if also_before else "the version before runs again"
    with pytest.raises(service_install.AgentError, match=f"does not become ready.*; {said}"):
        machine.install(config)
    assert (unit.read_text(), machine.program()) == ("# of the version before\n", "/opt/device-agent.a")
    assert machine.ran[-3:] == [
        "systemctl daemon-reload",
        "systemctl restart device-agent-guard.service",
        "systemctl restart device-agent.service",
    ]
    machine.install(config)
    assert machine.program() == "/opt/device-agent.b", "the next try is a whole one"


@pytest.mark.usefixtures("small")
def test_a_service_that_did_not_run_goes_on_with_the_new_version(machine: Machine, config: Config) -> None:
    machine.install(config)
    machine.codes |= {"systemctl is-active": [3], "systemctl restart device-agent.service": [1]}
    with pytest.raises(service_install.AgentError, match="does not become ready: journalctl"):
        machine.install(config)
    assert machine.program() == "/opt/device-agent.b"


@pytest.mark.usefixtures("small")
def test_a_package_is_copied_without_taking_room(
    machine: Machine, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "usr" / "lib" / "device-agent"
    site = prefix / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "library.py").touch()
    (prefix / "lib" / "python3.11").mkdir()
    (prefix / "lib" / "python3.11" / "site-packages").symlink_to("../site-packages")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(sys.executable)
    (prefix / service_program.PACKAGED).touch()
    monkeypatch.setattr(sys, "prefix", str(prefix))
    machine.service.path("/usr/bin").mkdir(parents=True)
    machine.service.path("/usr/bin/device-agent").symlink_to("/opt/device-agent/bin/device-agent")
    machine.install(config)
    copy = machine.service.path("/opt/device-agent.a")
    assert (copy / "lib" / "python3.11" / "site-packages" / "library.py").samefile(site / "library.py")
    assert not (copy / service_program.PACKAGED).exists(), "the copy is used where it lies"
    assert not machine.service.path("/usr/local/bin/device-agent").exists(), "the package has a command"
    assert (prefix / service_program.PACKAGED).exists()
    monkeypatch.setattr(sys, "prefix", "/opt/device-agent.a")
    monkeypatch.setattr(
        service_program, "program_files", lambda: [Path("/opt/device-agent.a/lib/device_agent")]
    )
    machine.install(config)
    assert machine.program() == "/opt/device-agent.a", (
        "what is installed already installs itself without a copy"
    )
    assert "/opt/device-agent/bin/python -m" in machine.text(FILES["device-agent-guard.service"])


@pytest.mark.usefixtures("small")
def test_a_program_that_is_not_ours_is_not_replaced(machine: Machine, config: Config) -> None:
    other = machine.service.path("/opt/device-agent/bin")
    other.mkdir(parents=True)
    with pytest.raises(service_install.AgentError, match="is not a copy of ours"):
        machine.install(config)
    assert other.exists()


@pytest.mark.slow
def test_the_copy_runs_by_itself(machine: Machine) -> None:
    machine.install(None)
    python = machine.service.path("/opt/device-agent/bin/python")
    done = subprocess.run(
        [python, "-I", "-c", "import sys; from device_agent.cli import main; sys.exit(main(['drivers']))"],
        cwd="/", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "bme280" in done.stdout, done.stderr
    where = subprocess.run(
        [python, "-I", "-c", "import device_agent; print(device_agent.__file__)"],
        cwd="/", capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(machine.root))
    start = machine.text("/opt/device-agent/bin/device-agent")
    assert start.startswith("#!/opt/device-agent.a/bin/python\n"), "it finds its own while the link changes"
    assert list(machine.service.path("/opt/device-agent.a").rglob("__pycache__"))


def test_status_says_what_runs(machine: Machine, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["service", "status", "--json", "--config", str(config.path)]
    code = command.run_status(parser(words).parse_args(words), machine.service)
    assert code == 1
    assert '"device-agent.service": "not installed"' in capsys.readouterr().out


@pytest.fixture
def as_ann(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return lambda *words: main(list(words))


def test_it_takes_root(as_ann: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert as_ann("service", "install") == 77
    assert "run it with sudo" in capsys.readouterr().err
