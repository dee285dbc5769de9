"""The files below systemd/: systemd understands them, the sandbox is tight, none contradicts another."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.config.secret import CREDENTIAL

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "device-agent.service"
GUARD = FOLDER / "device-agent-guard.service"
UNITS = pytest.mark.parametrize("unit", [UNIT, GUARD], ids=lambda unit: unit.stem)
EXPOSURE_MAX = 2.5
LIMIT_S = 60


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: install the package systemd (udevadm: udev)")
    return found


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def settings(name: str, unit: Path = UNIT) -> list[str]:
    """Every value of one setting of a unit."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    copies = []
    for unit in (UNIT, GUARD):
        copies.append(tmp_path / unit.name)
        # The program is not installed where the unit expects it.
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.MULTILINE)
        copies[-1].write_text(text)
    done = run(analyze, "verify", "--man=no", *copies)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@UNITS
def test_it_waits_neither_for_the_time_nor_for_the_network(unit: Path) -> None:
    """With a service that waits for the time, and no network, it would never start."""
    waited = {word for name in ("After", "Requires", "Wants", "BindsTo") for word in settings(name, unit)}
    assert not {"time-sync.target", "network-online.target"} & {
        one for line in waited for one in line.split()
    }


@UNITS
def test_the_service_may_do_little(unit: Path) -> None:
    words = ["security", "--offline=true", "--no-pager"]
    done = run(tool("systemd-analyze"), *words, "--json=short", unit)
    if done.returncode != 0:
        pytest.skip("this systemd-analyze cannot judge a unit that is not installed: it takes version 250")
    judged = run("systemd-analyze", *words, f"--threshold={round(EXPOSURE_MAX * 10)}", unit)
    exposed = {entry["name"]: entry["exposure"] for entry in json.loads(done.stdout) if not entry["set"]}
    assert judged.returncode == 0, f"{judged.stdout[-200:]}\n{exposed}"


@UNITS
def test_the_buses_stay_reachable(unit: Path) -> None:
    devices = dict(words.split() for words in settings("DeviceAllow", unit))
    # Majors that the kernel has given away for good: by its name a driver that is loaded later is refused.
    # GPIO has no such number; its driver is always there. I2C, SPI, ttyUSB, ttyACM, ttyAMA, ttyS.
    fixed = {f"char-{major}" for major in (89, 153, 188, 166, 204, 4)}
    assert {"char-gpiochip", *fixed} == set(devices)
    assert set(devices.values()) == {"rw"}
    assert settings("PrivateDevices", unit) == []
    users = (FOLDER / "sysusers.conf").read_text()
    made = set(re.findall(r"^g (\S+)", users, re.MULTILINE))
    groups = set(settings("SupplementaryGroups", unit)[0].split())
    assert groups <= made, "a group that does not exist forbids the start"
    assert settings("User", unit)[0] in re.findall(r"^u (\S+)", users, re.MULTILINE)
    assert set(re.findall(r'GROUP="(\w+)"', (FOLDER / "99-device-agent.rules").read_text())) <= made


def test_both_units_name_the_same_socket() -> None:
    (place,) = [value for value in settings("Environment") if value.startswith("DEVICE_AGENT_GUARD=")]
    socket_path = place.partition("=")[2]
    assert f" --socket {socket_path} " in settings("ExecStart", GUARD)[0]
    assert socket_path.startswith(f"%t/{settings('RuntimeDirectory', GUARD)[0]}/")
    assert GUARD.name in settings("Wants")


def test_the_unit_keeps_the_contract() -> None:
    assert settings("LoadCredential") == [f"{CREDENTIAL}:/etc/device-agent/api_key"]
    assert settings("RestartPreventExitStatus") == ["78"]
    assert settings("RuntimeDirectoryPreserve") == ["restart"]
    assert settings("WorkingDirectory") == ["%t/device-agent"]
    assert "LG_WD=%t/device-agent" in settings("Environment")


def test_the_stop_order_fits_in_the_stop_limit() -> None:
    from device_agent import agent

    limits_s = [
        value for name, value in vars(agent).items() if name.endswith("_LIMIT_S") and name != "READY_LIMIT_S"
    ]
    assert limits_s
    assert sum(limits_s) < float(settings("TimeoutStopSec")[0])


def test_users_and_groups(tmp_path: Path) -> None:
    done = run(tool("systemd-sysusers"), "--dry-run", FOLDER / "sysusers.conf")
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-sysusers has no --dry-run: it takes version 250")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    made = run(tool("systemd-sysusers"), f"--root={root}", FOLDER / "sysusers.conf")
    if os.getuid() != 0 and made.returncode != 0:
        pytest.skip("only root may make users below another root")
    assert "device-agent:" in (root / "etc" / "passwd").read_text(), made.stderr
    assert "gpio:" in (root / "etc" / "group").read_text()


def test_folders(tmp_path: Path) -> None:
    config = tmp_path / "etc" / "device-agent"
    config.mkdir(parents=True)
    (config.parent / "passwd").write_text("root:x:0:0::/:/bin/sh\ndevice-agent:x:997:996::/:/bin/false\n")
    (config.parent / "group").write_text("root:x:0:\ndevice-agent:x:996:\n")
    (config / "api_key").touch(0o644)
    done = run(tool("systemd-tmpfiles"), "--create", f"--root={tmp_path}", FOLDER / "tmpfiles.conf")
    if os.getuid() != 0:
        pytest.skip("only root may make folders of root's")
    assert done.returncode == 0, done.stderr
    assert config.stat().st_mode & 0o777 == 0o755
    key = (config / "api_key").stat()
    assert (key.st_mode & 0o777, key.st_uid, key.st_gid) == (0o600, 997, 996)


def test_udev_rules() -> None:
    done = run(tool("udevadm"), "verify", FOLDER / "99-device-agent.rules")
    if "Unknown command" in done.stderr:
        pytest.skip("this udevadm cannot verify rules: it takes version 254")
    assert done.returncode == 0, done.stderr
