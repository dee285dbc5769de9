"""A disk that is full, read-only, and back: the daemon goes on, says so, and loses nothing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_outages import accept, accounted, caught_up, refuse
from world import LIMIT_S, World, pipe, stream, until

from device_agent.testing.network import NetworkThread

pytestmark = [
    pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted for this, which takes root"),
]


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def small(net: NetworkThread, tmp_path: Path) -> Iterator[Any]:
    """A world whose state lies on a disk of 3 MB, and what must be in memory does not."""
    state, memory = tmp_path / "state", tmp_path / "memory"
    state.mkdir(mode=0o700)
    memory.mkdir(mode=0o700)
    try:
        run("mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "disk", str(state))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a disk")
    try:
        (state / "run").symlink_to(memory)
        name = f"device-{tmp_path.name}"
        net.run(net.net.open_link(name))
        with World(tmp_path, net, link=name) as world:
            world.link = name  # type: ignore[attr-defined]
            yield world
            net.call(net.net.heal)
            accept(world)
    finally:
        run("umount", "-l", str(state))


def fill(state: Path) -> Path:
    """Take all of the room that is left."""
    ballast = state / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return ballast


def outbox(world: Any) -> dict[str, Any]:
    return dict(world.daemon.ask("status")["outbox"])


def test_a_disk_that_is_full_and_has_room_again(small: Any, alice: Any) -> None:
    state = small.folder / "state"
    small.start()
    session = pipe(alice, {"streams": ["control"], "every_s": 0.05}, duration=30)
    heard = stream(session, "control")
    heard.wait("reading", device="climate")
    ballast = fill(state)
    refuse(small)
    until(lambda: outbox(small)["trouble"], "the trouble in the status", 60)
    assert small.daemon.logged("outbox_not_written")
    until(lambda: outbox(small)["events"] > 150, "events wait in memory", 60)
    ballast.unlink()
    until(lambda: not outbox(small)["trouble"], "the disk is used again", 60)
    accept(small)
    caught_up(small, heard)
    accounted(heard)
    assert not heard.of("gap")
    session.terminate()
    session.wait_for_terminal(LIMIT_S)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_start_on_a_disk_that_takes_nothing(small: Any, alice: Any, how: str) -> None:
    """What was kept before is not set aside for it, and goes out."""
    state = small.folder / "state"
    small.start()
    session = pipe(alice, {"streams": ["control"], "every_s": 0.05}, duration=30)
    heard = stream(session, "control")
    heard.wait("reading", device="climate")
    refuse(small)
    until(lambda: outbox(small)["events"] > 60, "a backlog")
    small.daemon.kill()
    ballast = fill(state)
    if how == "read-only":
        ballast.unlink()
        run("mount", "-o", "remount,ro", str(state))
    small.start(joined=False)
    small.daemon.wait_logged("ready", 60)
    until(lambda: outbox(small)["trouble"], "the trouble in the status", 60)
    if how == "read-only":
        run("mount", "-o", "remount,rw", str(state))
    else:
        ballast.unlink()
    # What is on the disk is older than all that came since; it goes first once it can be read.
    until(lambda: not outbox(small)["trouble"], "the disk is used again", 60)
    accept(small)
    small.daemon.wait_logged("joined", 60)
    caught_up(small, heard)
    accounted(heard)
    assert not list(state.glob("outbox.db.damaged-*"))
    session.terminate()
    session.wait_for_terminal(LIMIT_S)
