"""A disk that is full, read-only, and back: the daemon goes on, says so, and loses nothing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, stream
from support.deployment import World
from support.outages import accept, accounted, caught_up, refuse
from support.waiting import LIMIT_S, until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted for this, which takes root"),
]


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def small(net: NetworkThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A world whose state lies on a disk of 3 MB, and what must be in memory does not."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
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


def on(world: Any) -> int:
    """How often the daemon switched the valve on."""
    told = [(e["level"], e["by"]) for e in world.board.record() if e.get("line") == 27]
    return told.count((0, "daemon"))


@pytest.mark.parametrize("memory", ["in memory", "on the disk"])
def test_no_command_runs_twice_though_the_disk_is_full_and_the_process_dies(
    small: Any, alice: Any, memory: str
) -> None:
    """Where nothing can take a note of it, it is refused, and making safe is not."""
    state = small.folder / "state"
    if memory == "on the disk":
        (state / "run").unlink()
        (state / "run").mkdir(mode=0o700)
    small.start()
    session = pipe(alice, {"streams": ["control"], "every_s": 1}, duration=30)
    heard = stream(session, "control")
    heard.wait("reading", device="climate")
    assert heard.command(kind="set", id="0", device="valve", values={"on": True})["state"] == "done"
    ballast = fill(state)
    once: dict[str, Any] = {"kind": "set", "device": "valve", "values": {"on": True}, "ttl_ms": 600_000}
    off = {"kind": "set", "device": "valve", "values": {"on": False}}
    assert heard.command(id="off", **off)["state"] == "done"
    if memory == "on the disk":
        # The last block of a file has room for a row or two.
        for number in range(20):
            moved, last = on(small), heard.command(id=f"number {number}", **once)
            if last["state"] != "done":
                break
        assert (last["state"], last["error"]["code"]) == ("failed", "internal"), last
        assert "nothing moved" in last["error"]["message"]
        assert on(small) == moved
        # Those that were done are on record, and the refused one is not: a later process carries out none of
        # them, though the network delivers all of them again.
        small.daemon.kill()
        ballast.unlink()
        small.start()
        refused = f"number {number}"
        until(lambda: len(heard.of("ack", id=refused)) > 1, "the answer to the refused one", 60)
        assert heard.of("ack", id=refused)[-1]["state"] == "unknown"
        for taken in range(number):
            known = len(heard.of("ack", id=f"number {taken}"))
            heard.stream.write({"id": f"number {taken}", **once})
            until(lambda t=taken, k=known: len(heard.of("ack", id=f"number {t}")) > k, "the answer again", 60)
        assert on(small) == moved
    else:
        first = heard.command(id="once", **once)
        assert first["state"] == "done", first
        assert on(small) == 2
        until(lambda: (small.folder / "memory" / "journal.log").exists(), "the note of it")
        for room in (False, True, True):
            small.daemon.kill()
            if room:
                ballast.unlink(missing_ok=True)
            small.start()
            known = len(heard.of("ack", id="once"))
            heard.stream.write({"id": "once", **once})
            until(lambda known=known: len(heard.of("ack", id="once")) > known, "the answer again", 60)
            ack = heard.of("ack", id="once")[-1]
            assert (ack["state"], ack.get("repeated")) == ("done", True), ack
        assert on(small) == 2
        assert not (small.folder / "memory" / "journal.log").exists()
    ballast.unlink(missing_ok=True)
    assert heard.command(id="off again", **off)["state"] == "done"
    session.terminate()
    session.wait_for_terminal(LIMIT_S)
