"""Where the commands look for the daemon: what its service manager told it is not in their environment."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli.running_daemon import socket_of
from device_agent.cli.scan import running_daemon
from device_agent.config import load
from device_agent.config.reader import load_state
from device_agent.discovery.scan import daemon_buses


def placed(folder: Path, state: str, service: Path) -> Path:
    path = folder / "agent.toml"
    path.write_text(f'[agent]\nname = "x"\n[state]\n{state}\n')
    assert load_state(path, environ={}) == load(path, environ={}).state
    return socket_of(load_state(path, environ={}), service)


def test_the_service_s_socket_is_found(tmp_path: Path) -> None:
    service = tmp_path / "service"
    default = Path("/var/lib/device-agent/run/control.sock")
    assert placed(tmp_path, "", service) == default  # no service runs
    service.mkdir()
    assert placed(tmp_path, "", service) == service / "control.sock"
    assert placed(tmp_path, 'runtime_directory = "mine"', service) == tmp_path / "mine/control.sock"
    assert placed(tmp_path, 'directory = "mine"', service) == tmp_path / "mine/run/control.sock"


@pytest.mark.parametrize(
    "text",
    [
        '[agent]\nname = "no name"\n[state]\ndirectory = "mine"\n[devices.x]\ndriver = "none"\n',
        '[state]\ndirectory = "mine"\nno_such_key = 1\ncounts_every_s = "x"\n',
        '[agent]\nname = \n [ state ] # here\ndirectory = "mine"\n\n[devices.x]\nbus = "i2\n',
        '[state]\ndirectory = "mine"\n[[',
        '\ufeff[state]\r\ndirectory = "mine"\r\n[devices\r\n',
    ],
)
def test_it_is_found_in_a_file_with_faults_elsewhere(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    assert load_state(path, environ={}).runtime_directory == tmp_path / "mine" / "run"


@pytest.mark.parametrize(
    "text", ["", "state = 3", "[state]\ndirectory = 3\n", "[state]\ndirectory = ", "\0", None]
)
def test_a_file_that_does_not_tell_it_leaves_the_default(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "agent.toml"
    if text is not None:
        path.write_text(text)
    assert load_state(path, environ={}).directory == Path("/var/lib/device-agent")
    assert load_state(path, environ={"RUNTIME_DIRECTORY": "/run/mine"}).runtime_directory == Path("/run/mine")


def test_a_running_daemon_s_buses_are_left_alone(calls: Any) -> None:
    args = argparse.Namespace(config=str(calls.owner.file))
    assert daemon_buses(running_daemon(args)) == {"/dev/i2c-1": "the running daemon (bus i2c1)"}
    assert daemon_buses(running_daemon(argparse.Namespace(config="/nowhere/agent.toml"))) == {}
