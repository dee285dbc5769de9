"""Where the commands look for the daemon: what its service manager told it is not in their environment."""

from pathlib import Path

from device_agent.cli.control import socket_of
from device_agent.config import load


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
