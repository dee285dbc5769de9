"""Two daemons with one state: at the same time on one machine, or on two boards from one card image."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.store.state_directory import machine
from device_agent.testing.network import NetworkThread
from support.deployment import World
from support.processes import Daemon
from support.waiting import LIMIT_S, until


def test_a_second_daemon_touches_nothing_of_the_first(new_world: Callable[..., World]) -> None:
    """It ends with a sentence before it opens stores, guard or hardware; the first goes on unharmed."""
    world = new_world()
    first = world.start()
    assert world.board is not None
    state = world.folder / "state"
    # What is written to it after another process has begun it anew is lost.
    log = state / "run" / "outbox.log"
    before = log.stat().st_ino
    second = Daemon(
        world.folder,
        world.config,
        {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(world.board.socket)},
    )
    assert second.process.wait(LIMIT_S) == 1
    said = second.log_path.read_text()
    assert "another daemon or command uses" in said
    assert "Traceback" not in said
    assert [entry["event"] for entry in second.events()] == ["error"]
    assert log.stat().st_ino == before
    assert first.device("valve")["state"] == "online"


def test_nor_does_one_with_sockets_of_its_own(new_world: Callable[..., World]) -> None:
    """Only the state directory is the same: a service, and one by hand with other sockets."""
    world = new_world()
    first = world.start()
    assert world.board is not None
    sockets = world.folder / "other"
    sockets.mkdir(mode=0o700)
    text = world.config.read_text()
    elsewhere = world.folder / "elsewhere.toml"
    elsewhere.write_text(text.replace("[state]\n", f'[state]\nruntime_directory = "{sockets}"\n'))
    environment = {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(world.board.socket)}
    second = Daemon(world.folder, elsewhere, environment)
    assert second.process.wait(LIMIT_S) == 1
    assert "another daemon or command uses" in second.log_path.read_text()
    assert first.device("valve")["state"] == "online"


def test_two_at_once_under_one_instance_say_so_both(net: NetworkThread, tmp_path: Path) -> None:
    """A card image that was copied from a board without a name of its own, say."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with World(folders[0], net) as one, World(folders[1], net) as two:
        one.start()
        state = two.folder / "state"
        state.mkdir(mode=0o700)
        shutil.copy(one.folder / "state" / "identity.json", state)
        two.start()
        for world in (one, two):
            until(lambda world=world: world.daemon.ask("status")["link"]["trouble"], "the other", 180)
            assert "another process" in world.daemon.ask("status")["link"]["trouble"]
            world.daemon.wait_logged("instance_runs_twice")


def test_that_two_could_not_be_noticed_is_told(new_world: Callable[..., World]) -> None:
    """A token need not allow to read the presence, and then nobody sees the other one."""
    world = new_world()
    daemon = world.start()
    instance = daemon.ask("status")["instance"]
    body = {"status": 403, "message": "Forbidden", "error": True, "service": "Access Manager", "payload": {}}
    refusal = {"path": f"*/uuid/{instance}", "status": 403, "body": body}
    rule = world.net.call(lambda: world.net.net.add_fault("status", **refusal))
    until(lambda: daemon.ask("status")["link"]["blind"], "it is told", 60)
    assert rule.hits
    assert daemon.logged("presence_not_read")
    assert daemon.ask("status")["link"]["up"], "and nothing else is the matter"
    for words in (("status",), ("doctor", "--offline")):
        command = [sys.executable, "-m", "device_agent", "--config", str(world.config), *words]
        said = subprocess.run(command, capture_output=True, text=True, timeout=3 * LIMIT_S, check=False)
        assert "two boards under one instance id cannot be noticed" in said.stdout, said
    world.net.call(world.net.net.heal)


@pytest.mark.skipif(not machine(), reason="this machine has neither a serial number nor a lasting machine-id")
def test_on_another_machine_a_copied_state_is_a_new_agent(new_world: Callable[..., World]) -> None:
    world = new_world()
    first = world.start()
    instance = first.ask("status")["instance"]
    first.stop()
    again = world.start()
    assert again.ask("status")["instance"] == instance
    again.stop()
    (world.folder / "state" / "machine").write_text("another board\n")
    copy = world.start()
    assert copy.logged("state_of_another_machine")
    assert copy.ask("status")["instance"] != instance


def test_the_guard_is_not_told_the_key(new_world: Callable[..., World]) -> None:
    daemon = new_world().start()
    daemon.wait_logged("guard_started")
    pid = next(entry["pid"] for entry in daemon.events() if entry["event"] == "guard_started")
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"bk_device" not in environment
