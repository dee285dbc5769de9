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
EXPOSURE_MAX = 2.5
LIMIT_S = 60


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: install the package systemd (udevadm: udev)")
    return found


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def settings(name: str) -> list[str]:
    """Every value of one setting of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    # The program is not installed where the unit expects it.
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.M))
    done = run(analyze, "verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_may_do_little(tmp_path: Path) -> None:
    done = run(tool("systemd-analyze"), "security", "--offline=true", "--json=short", "--no-pager", UNIT)
    if done.returncode != 0:
        pytest.skip("this systemd-analyze cannot judge a unit that is not installed: it takes version 250")
    exposed = {
        entry["name"]: float(entry["exposure"]) for entry in json.loads(done.stdout) if not entry["set"]
    }
    threshold = str(round(EXPOSURE_MAX * 10))
    judged = run(
        "systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", "--no-pager", UNIT
    )
    assert judged.returncode == 0, f"exposure above {EXPOSURE_MAX}: {exposed}\n{judged.stdout[-200:]}"


def test_the_buses_stay_reachable() -> None:
    devices = dict(words.split() for words in settings("DeviceAllow"))
    # As /proc/devices names them: spidev is "spi" there.
    assert {"char-gpiochip", "char-i2c", "char-spi", "char-ttyUSB", "char-ttyACM"} <= set(devices)
    assert set(devices.values()) == {"rw"}
    assert settings("PrivateDevices") == []
    groups = set(settings("SupplementaryGroups")[0].split())
    made = set(re.findall(r"^g (\S+)", (FOLDER / "sysusers.conf").read_text(), re.MULTILINE))
    assert groups <= made, "a group that does not exist forbids the start"
    assert settings("User")[0] in re.findall(
        r"^u (\S+)", (FOLDER / "sysusers.conf").read_text(), re.MULTILINE
    )
    rules = (FOLDER / "99-device-agent.rules").read_text()
    assert set(re.findall(r'GROUP="(\w+)"', rules)) <= made


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
    done = run(tool("systemd-tmpfiles"), "--create", f"--root={tmp_path}", FOLDER / "tmpfiles.conf")
    if os.getuid() != 0:
        pytest.skip("only root may make folders of root's")
    assert done.returncode == 0, done.stderr
    assert config.stat().st_mode & 0o777 == 0o755


def test_udev_rules() -> None:
    done = run(tool("udevadm"), "verify", FOLDER / "99-device-agent.rules")
    if "Unknown command" in done.stderr:
        pytest.skip("this udevadm cannot verify rules: it takes version 254")
    assert done.returncode == 0, done.stderr
