"""`doctor` on machines made of files: each fault is named with its place, its reason and its remedy."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli import doctor as command
from device_agent.cli import main
from device_agent.config import Config, load
from device_agent.discovery.system import SystemUser
from device_agent.doctor import actuators, devices, service
from device_agent.doctor.checks import examine
from device_agent.doctor.finding import Finding, Target
from device_agent.doctor.service import user_of_the_service
from support.machine_tree import HEADER, Tree

NOW_MS = 1_800_000_000_000
# Not the test's own user, whoever that is: what he may do follows from the mode bits alone.
NOBODY = SystemUser("agent", 12_345)
CONFIG = """
[agent]
name = "house"
[state]
directory = "{state}"
runtime_directory = "/run/device-agent"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2711"
[buses.meter]
kind = "serial"
port = "/dev/ttyAMA0"
[devices.climate]
driver = "bme280"
bus = "i2c1"
[devices.lamps]
driver = "pca9685"
bus = "i2c1"
safe = 0
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 17
active_low = true
safe = false
[devices.console]
driver = "serial-bytes"
bus = "meter"
[access]
drive = ["user:me"]
"""
UNIT = (
    "[Service]\nUser=agent\nSupplementaryGroups=i2c\nWatchdogSec=30\nLoadCredential=blocks_api_key:/etc/key\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    return load(path)


@pytest.fixture
def pi(tree: Tree) -> Tree:
    """A Pi that is as it should be."""
    tree.i2c(1, "bcm2835 (i2c@7e804000)")
    for node in ("/dev/i2c-1", "/dev/gpiochip0", "/dev/ttyAMA0"):
        tree.file(node, mode=0o666)
    tree.file("/sys/class/tty/ttyAMA0/device/x")
    tree.chips["/dev/gpiochip0"] = HEADER
    tree.file("/run/systemd/timesync/synchronized")
    tree.file("/dev/rtc0")
    tree.file("/dev/watchdog")
    tree.file("/etc/systemd/system.conf.d/watchdog.conf", "[Manager]\nRuntimeWatchdogSec=15\n")
    tree.file("/proc/mounts", "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\ntmpfs /run tmpfs rw 0 0\n")
    tree.file("/sys/devices/platform/soc/soc:firmware/get_throttled", "0\n")
    tree.file("/proc/sys/kernel/random/entropy_avail", "256")
    tree.file("/etc/passwd", f"agent:x:12345:{12_345}::/:/bin/false\n")
    tree.file("/etc/group", f"i2c:x:998:\nroot:x:0:\nmine:x:{os.getgid()}:\n")
    for unit in ("device-agent", "device-agent-guard"):
        tree.file(f"/etc/systemd/system/{unit}.service", UNIT)
        tree.file(f"/etc/systemd/system/multi-user.target.wants/{unit}.service")
    tree.file("/etc/key", "secret", mode=0o600)
    return tree


@pytest.fixture
def findings(pi: Tree, config: Config) -> Callable[..., list[Finding]]:
    def look(**options: Any) -> list[Finding]:
        ask = options.pop("ask", None)
        user = options.pop("user", SystemUser("agent", 0))
        told: dict[str, Any] = {"config": config, "now_ms": lambda: NOW_MS, "daemon_runs": True, **options}
        return list(examine(Target(pi.system, user, **told), ask))

    return look


def problem(findings: list[Finding], words: str) -> Finding:
    fits = [one for one in findings if one.level != "ok" and words in one.what]
    assert len(fits) == 1, [one.what for one in findings if one.level != "ok"]
    assert fits[0].why
    assert fits[0].remedy
    return fits[0]


def test_a_machine_that_is_right_has_only_questions(findings: Callable[..., list[Finding]]) -> None:
    assert [one.what for one in findings() if one.level not in ("ok", "question")] == []
    assert [one.where for one in findings() if one.level == "question"] == ["devices.lamps", "devices.valve"]


def test_a_group_that_is_missing_is_named(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    pi.file("/dev/i2c-1", mode=0o660)
    found = findings(user=NOBODY)
    denied = problem([one for one in found if one.where == "buses.i2c1"], "user agent may not use /dev/i2c-1")
    group = pi.system.group_of("/dev/i2c-1")
    assert f"usermod -aG {group if group != 'root' else 'i2c'} agent" in denied.remedy
    assert denied.fix == (() if "udev" in denied.remedy else ("usermod", "-aG", group, "agent"))


def test_a_rule_that_is_missing_is_written_out(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    pi.file("/dev/gpiochip0", mode=0o600)
    remedy = problem(findings(user=NOBODY), "may not use /dev/gpiochip0").remedy
    assert "groupadd --system gpio" in remedy
    assert "tee -a /etc/udev/rules.d/99-device-agent.rules" in remedy  # what is there already stays
    assert 'SUBSYSTEM=="gpio", KERNEL=="gpiochip[0-9]*", GROUP="gpio", MODE="0660"' in remedy


def test_an_interface_that_is_off_names_its_overlay(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    pi.file("/boot/firmware/config.txt")
    (pi.root / "dev/i2c-1").unlink()
    remedy = problem(findings(), "/dev/i2c-1 is not there").remedy
    assert "raspi-config nonint do_i2c 0" in remedy
    assert "dtparam=i2c_arm=on into /boot/firmware/config.txt" in remedy


def test_a_line_in_use_names_its_holder(findings: Callable[..., list[Finding]]) -> None:
    found = problem(findings(daemon_runs=False), "line 17 of pinctrl-bcm2711 is held by door-watch")
    assert found.where == "devices.valve"


def test_a_chip_of_another_label_names_those_there(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    pi.chips["/dev/gpiochip0"] = type(HEADER)("pinctrl-rp1", ())
    assert "there are: pinctrl-rp1 (/dev/gpiochip0)" in problem(findings(), "there is no GPIO chip").what


def test_the_console_on_the_port(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    pi.link("/dev/serial0", "/dev/ttyAMA0")
    pi.file("/boot/firmware/cmdline.txt", "console=serial0,115200 console=tty1 root=PARTUUID=1 rootwait")
    remedy = problem(findings(), "the system console is on /dev/ttyAMA0").remedy
    assert "take console=serial0,115200 out of /boot/firmware/cmdline.txt" in remedy
    (pi.root / "boot/firmware/cmdline.txt").unlink()
    pi.file("/proc/cmdline", "console=serial0,115200")
    remedy = problem(findings(), "the system console is on /dev/ttyAMA0").remedy
    assert "boot loader" in remedy
    assert "/proc" not in remedy
    pi.file("/etc/systemd/system/getty.target.wants/serial-getty@ttyAMA0.service")
    assert "mask serial-getty@ttyAMA0" in problem(findings(), "a login prompt is on").remedy


def test_somebody_on_the_port_and_a_modem_manager(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    pi.process(77, "ModemManager", "/dev/ttyAMA0")
    found = findings(daemon_runs=False)
    problem(found, "/dev/ttyAMA0 is in use by ModemManager (process 77)")
    problem(found, "ModemManager runs")


def test_the_clock_of_i2c(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    node = pi.file("/sys/bus/i2c/devices/i2c-1/of_node/clock-frequency")
    node.write_bytes(struct.pack(">I", 1_000_000))
    assert "i2c_arm_baudrate=100000" in problem(findings(), "its clock is 1000 kHz").remedy


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        (
            "/dev/mmcblk0p2 / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0",
            "each reading of a file writes to the card",
        ),
        ("/dev/mmcblk0p2 / ext4 ro,noatime 0 0\ntmpfs /run tmpfs rw 0 0", "the file system is read-only"),
        ("tmpfs / tmpfs rw 0 0", "the state directory is in memory"),
        (
            "/dev/sda1 / ext4 rw,relatime,nobarrier 0 0\ntmpfs /run tmpfs rw 0 0",
            "flushes do not reach the disk",
        ),
        ("/dev/sda1 / ext4 rw,relatime 0 0", "the runtime directory is on a disk"),
    ],
)
def test_mount_options(pi: Tree, findings: Callable[..., list[Finding]], mounts: str, words: str) -> None:
    pi.file("/proc/mounts", mounts)
    problem(findings(), words)


OVERLAY = (
    "/dev/mmcblk0p2 /media/root-ro ext4 ro,relatime 0 0\n"
    "tmpfs-root /media/root-rw tmpfs rw,relatime 0 0\n"
    "overlayroot / overlay rw,relatime,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay 0 0\n"
    "tmpfs /run tmpfs rw 0 0\n/dev/mmcblk0p1 /boot/firmware vfat rw 0 0\n"
)


def test_an_overlay_root_is_in_memory_and_places_that_last_are_offered(
    pi: Tree, findings: Callable[..., list[Finding]]
) -> None:
    pi.file("/proc/mounts", OVERLAY)
    found = problem(findings(), "the state directory is in memory")
    assert "emergency stop" in found.why
    assert "/media/root-rw" in found.why
    assert "overlayroot=tmpfs:recurse=0" in found.remedy
    pi.file("/proc/mounts", f"{OVERLAY}/dev/sda1 /mnt/usb ext4 rw,noatime 0 0\n")
    assert '"/mnt/usb/device-agent"' in problem(findings(), "the state directory is in memory").remedy


def test_the_runtime_directory_of_a_service_is_in_memory(
    pi: Tree, findings: Callable[..., list[Finding]]
) -> None:
    pi.file("/proc/mounts", "/dev/sda1 / ext4 rw,relatime 0 0")
    pi.file("/etc/systemd/system/device-agent.service", f"{UNIT}RuntimeDirectory=device-agent\n")
    assert not [one for one in findings() if "runtime directory" in one.what]


def test_a_state_directory_that_others_may_write(
    pi: Tree, config: Config, findings: Callable[..., list[Finding]]
) -> None:
    folder = pi.system.path(str(config.state.directory))
    folder.mkdir(mode=0o700, parents=True)
    (folder / "journal.db").symlink_to("/etc/passwd")
    folder.chmod(0o777)
    open_to_all = problem(findings(), f"others may write into {folder} (mode 0777)")
    assert open_to_all.remedy == f"run chmod 700 {folder}"
    assert problem(findings(), "is a symbolic link").remedy == "remove it"


def test_a_disk_that_is_not_mounted(pi: Tree, config: Config, findings: Callable[..., list[Finding]]) -> None:
    disk = config.state.directory.parent
    pi.file("/etc/fstab", f"UUID=1 {disk} ext4 nofail 0 2\n")
    assert problem(findings(), "which is not mounted").remedy == f"sudo mount {disk}"


def test_a_state_directory_that_cannot_be_made(findings: Callable[..., list[Finding]]) -> None:
    (remedy,) = {one.remedy for one in findings(user=NOBODY) if "cannot write" in one.what}
    assert remedy.startswith("sudo install -d -m 700 -o agent ")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("0x1", "too low (now)"),
        ("50000", "too low (since the start)"),
        ("0x40004", "the processor is throttled"),
    ],
)
def test_the_supply(pi: Tree, findings: Callable[..., list[Finding]], word: str, words: str) -> None:
    pi.file("/sys/devices/platform/soc/soc:firmware/get_throttled", word)
    problem(findings(), words)
    (pi.root / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink()
    pi.programs["vcgencmd"] = f"throttled={word}\n"
    problem(findings(), words)


def test_clock_watchdog_entropy(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    (pi.root / "run/systemd/timesync/synchronized").unlink()
    problem(findings(), "nobody keeps the clock")
    pi.programs["timedatectl"] = "NTPSynchronized=yes\n"
    assert not [one for one in findings() if "clock" in one.what and one.level != "ok"]
    problem(findings(now_ms=lambda: 0), "the clock is not set")
    (pi.root / "dev/rtc0").unlink()
    problem(findings(), "no battery-backed clock")
    pi.file("/etc/systemd/system.conf.d/watchdog.conf", "[Manager]\n#RuntimeWatchdogSec=15\n")
    problem(findings(), "nobody feeds the hardware watchdog")
    (pi.root / "dev/watchdog").unlink()
    assert "dtparam=watchdog=on" in problem(findings(), "no hardware watchdog").remedy
    pi.file("/proc/sys/kernel/random/entropy_avail", "12")
    problem(findings(), "12 bits of entropy")


def test_the_service(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    for unit in ("device-agent", "device-agent-guard"):
        (pi.root / f"etc/systemd/system/multi-user.target.wants/{unit}.service").unlink()
    found = findings()
    problem(found, "the service is not enabled")
    problem(found, "the guard has no unit of its own")
    pi.file("/etc/systemd/system/device-agent.service", UNIT.replace("WatchdogSec=30", ""))
    problem(findings(), "no watchdog is set")
    (pi.root / "etc/systemd/system/device-agent.service").unlink()
    problem(findings(), "the service is not installed")


def test_the_service_s_user_has_the_groups_of_its_unit(pi: Tree) -> None:
    assert user_of_the_service(pi.system) == SystemUser("agent", 12_345, frozenset({12_345, 998}))


def test_the_key(pi: Tree, findings: Callable[..., list[Finding]]) -> None:
    (pi.root / "etc/key").chmod(0o640)
    assert problem(findings(), "others may read the API key").remedy == "sudo chmod 600 /etc/key"
    (pi.root / "etc/key").unlink()
    problem(findings(), "not joined: no API key")
    told = findings(environ={"BLOCKS_API_KEY": "bk_x"})
    assert not [one for one in told if "API key" in one.what]
    assert "secret" not in repr(findings())


def test_the_network(findings: Callable[..., list[Finding]]) -> None:
    problem(findings(reach=lambda url, proxy: "its name is not found (DNS)"), "its name is not found")
    assert "the network answers" in [one.what for one in findings(reach=lambda url, proxy: "")]
    assert service.reach("http://127.0.0.1:9/").startswith("it cannot be reached: ")
    assert "DNS" in service.reach("http://nobody.invalid/") or "reached" in service.reach(
        "http://nobody.invalid/"
    )


def test_answers_are_kept_until_the_device_changes(
    config: Config, findings: Callable[..., list[Finding]], tmp_path: Path
) -> None:
    asked: list[str] = []

    def person(question: str) -> bool | None:
        asked.append(question)
        return "line 17" in question

    found = findings(ask=person)
    assert "devices.valve: Does a resistor hold line 17 at its high level" in asked[1]
    assert (
        problem(found, "you said no: Does something reset the chip of address 0x40").where == "devices.lamps"
    )
    again = findings()
    assert [one.level for one in again if one.where == "devices.valve"] == ["ok"]
    assert (config.state.directory / actuators.FILE).stat().st_mode & 0o777 == 0o600
    path = tmp_path / "agent.toml"
    path.write_text(path.read_text().replace("active_low = true", "active_low = false"))
    changed = list(actuators.check(load(path), None))
    assert [one.level for one in changed if one.where == "devices.valve"] == ["question"]
    assert changed[-1].remedy == "10 kOhm from the pin to ground"


def test_answers_that_cannot_be_kept_are_said(config: Config) -> None:
    config.state.directory.write_text("a file where the folder should be")
    found = list(actuators.check(config, lambda question: True))
    assert found[-1].what == "the answers could not be kept"


def test_the_command_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On whatever machine this is: JSON, and an exit code that follows from it."""
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    code = main(["--config", str(path), "doctor", "--json", "--offline"])
    told = json.loads(capsys.readouterr().out)
    assert code == any(one["level"] == "problem" for one in told)
    assert {"level", "what", "where", "why", "remedy", "fix"} == set(told[0])
    path.write_text("[agent]\n")
    assert main(["--config", str(path), "doctor", "--offline"]) == 1
    assert "agent.name" in capsys.readouterr().out


def test_what_is_wrong_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    command.show([Finding("problem", "bad", "x", "because", "mend"), Finding("ok", "fine")], everything=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("fine")
    assert lines[1:4] == ["  !!  bad (x)", "      why: because", "      do:  mend"]


def test_a_guard_that_has_to_wait_its_turn_is_told() -> None:
    slow = "no real-time priority (Operation not permitted)"
    (found,) = devices.check({"guard": {"up": True, "slow": slow}, "devices": []})
    assert (found.level, found.what) == ("note", f"the guard has to wait its turn: {slow}")
    assert "LimitRTPRIO=10" in found.remedy
    assert not list(devices.check({"guard": {"up": True, "slow": ""}, "devices": []}))
