"""Commands to a running daemon while its configuration file is in the middle of an edit, as processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.owner import Owner


@pytest.fixture(params=["an unknown bus", "no TOML", "a key that is no key"])
def owner(calls: Any, request: pytest.FixtureRequest) -> Iterator[Owner]:
    made = calls.owner
    before = made.file.read_text()
    faults = {
        "an unknown bus": before.replace('bus = "', 'bus = "no_', 1),
        "no TOML": before + '[devices.half]\ndriver = "gpio-',
        "a key that is no key": "colour = 1\n" + before,
    }
    made.file.write_text(faults[request.param])
    yield made
    made.file.write_text(before)


def test_what_moves_can_be_stopped(owner: Owner) -> None:
    assert owner("check").returncode == 78
    assert owner.says("set", "valve", "on", "true")["state"] == "done"
    assert owner("may-update").returncode == 75
    assert owner.says("safe") == {"valve": True}
    assert owner.says("set", "valve", "on", "true")["state"] == "done"
    assert owner.says("estop") == {"valve": True}
    assert owner.says("read", "valve")["values"] == {"on": False}
    assert owner.says("status")["emergency_stop"]["latched"]
    assert owner.says("release")["latched"] is False


def test_what_is_measured_can_be_read(owner: Owner) -> None:
    status = owner.says("status")
    assert status["units"]["climate"]["temperature"] == "Cel"
    assert [reading["units"] for reading in owner.says("read", "valve", "door")] == [
        {"on": ""},
        {"active": ""},
    ]
    assert "\u00b0C" in owner("read", "climate").stdout
    assert "climate" in owner("monitor", "--times", "1").stdout
    assert owner("history", "climate", "--from", "1m").stdout.startswith("time")
    assert owner.says("journal")


def test_buses_of_a_daemon_whose_file_does_not_name_them_are_not_scanned(owner: Owner) -> None:
    done = owner("scan")
    assert (done.returncode, done.stdout) == (78, "")


def test_without_a_daemon_the_fault_is_told(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'[state]\ndirectory = "{tmp_path}"\n')
    for word in ("status", "estop", "safe", "release", "read", "monitor"):
        done = Owner(file)(word)
        assert (done.returncode, done.stdout) == (78, ""), word
        assert "agent.name is missing" in done.stderr
