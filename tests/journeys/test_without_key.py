"""Without an account: the device works for its owner, says once why it is not joined, and takes up a key."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agent.testing.network import NetworkThread
from support.deployment import CONFIG, World
from support.processes import Daemon
from support.waiting import until


@pytest.fixture
def keyless(new_world: Callable[..., World]) -> Iterator[Callable[..., Daemon]]:
    """Starts the daemon without a key in its environment."""

    def start(**options: str) -> Daemon:
        world = new_world(**options)
        assert world.board is not None
        environment = {"DEVICE_AGENT_BOARD": str(world.board.socket), "BLOCKS_API_KEY": ""}
        daemon = Daemon(world.folder, world.config, environment)
        world.daemons.append(daemon)
        daemon.wait_logged("ready")
        return daemon

    return start


def cli(config: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "--config", str(config), *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def works_for_its_owner(daemon: Daemon, config: Path) -> None:
    until(lambda: daemon.device("climate")["state"] == "online", "sampling")
    until(lambda: daemon.ask("status")["history"]["readings"] > 0, "recording")
    assert daemon.device("valve")["at_safe"] is True
    cli(config, "set", "valve", "on", "on")
    assert daemon.device("valve")["at_safe"] is False
    cli(config, "safe")
    assert daemon.device("valve")["at_safe"] is True


def test_a_key_that_comes_later_is_taken_up(keyless: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon, config = keyless(), tmp_path / "agent.toml"
    works_for_its_owner(daemon, config)
    places = f"(looked for the systemd credential blocks_api_key, $BLOCKS_API_KEY, {tmp_path}/api_key)"
    assert f"not joined: no API key {places}: write it to {tmp_path}/api_key, mode 600" in cli(
        config, "status"
    )
    key = tmp_path / "api_key"
    key.touch(mode=0o644)
    until(lambda: "run chmod 600" in daemon.ask("status")["link"]["trouble"], "the file is refused")
    key.chmod(0o600)
    key.write_text("bk_device\n")
    daemon.wait_logged("joined")
    assert "joined, link up" in cli(config, "status")
    why = [entry["error"] for entry in daemon.events() if entry["event"] == "not_joined"]
    assert len(why) == len(set(why)), "each reason is said once"
    assert why[0].startswith("no API key")
    assert daemon.stop() == 0


def test_a_revoked_key_that_is_replaced_is_taken_up(
    keyless: Callable[..., Daemon], tmp_path: Path, net: NetworkThread
) -> None:
    key = tmp_path / "api_key"
    key.touch(mode=0o600)
    key.write_text("bk_old\n")
    net.call(net.net.revoke_api_key, "bk_old")
    daemon = keyless()
    daemon.wait_logged("not_joined")
    key.write_text("bk_device\n")
    daemon.wait_logged("joined")
    assert daemon.stop() == 0


def test_without_a_network_nothing_is_asked_of_it(
    keyless: Callable[..., Daemon], tmp_path: Path, net: NetworkThread
) -> None:
    before = len(net.net.requests())
    daemon = keyless(config=CONFIG.replace("[network]", '[network]\nkind = "none"'))
    works_for_its_owner(daemon, tmp_path / "agent.toml")
    assert 'greenhouse_7  no network (network.kind = "none")' in cli(tmp_path / "agent.toml", "status")
    assert daemon.stop() == 0
    assert len(net.net.requests()) == before
    assert not daemon.log_path.read_text().count("not_joined")
