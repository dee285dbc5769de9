"""Where the commands look for the daemon: what its service manager told it is not in their environment."""

import argparse
from pathlib import Path
from typing import Any

from device_agent.cli.control import socket_of
from device_agent.cli.scan import running_daemon
from device_agent.config import load
from device_agent.discovery.scan import daemon_buses


def placed(folder: Path, state: str, service: Path) -> Path:
    path = folder / "agent.toml"
    path.write_text(f'[agent]\nname = "x"\n[state]\n{state}\n')
    return socket_of(load(path, environ={}), service)


def test_the_service_s_socket_is_found(tmp_path: Path) -> None:
    service = tmp_path / "service"
    default = Path("/var/lib/device-agent/run/control.sock")
    assert placed(tmp_path, "", service) == default  # no service runs
    service.mkdir()
    assert placed(tmp_path, "", service) == service / "control.sock"
    assert placed(tmp_path, 'runtime_directory = "mine"', service) == tmp_path / "mine/control.sock"
    assert placed(tmp_path, 'directory = "mine"', service) == tmp_path / "mine/run/control.sock"


def test_a_running_daemon_s_buses_are_left_alone(calls: Any) -> None:
    args = argparse.Namespace(config=str(calls.world._folder / "agent.toml"))
    assert daemon_buses(running_daemon(args)) == {"/dev/i2c-1": "the running daemon (bus i2c1)"}
    assert daemon_buses(running_daemon(argparse.Namespace(config="/nowhere/agent.toml"))) == {}
