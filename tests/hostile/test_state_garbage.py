"""No file of the state directory ends a start, whatever is in it: every file that a daemon leaves is tried.

They are found by walking a directory that was in use, so that a new kind of file cannot be forgotten here.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, question, result, stream
from support.deployment import World
from support.processes import high_water_kb
from support.waiting import until

# Of the process at its highest, over a start with the files as they were.
MEMORY_MAX_KB = 40_000
JUNK_BYTES = 2_000_000_000


def sparse(path: Path) -> None:
    """As a fault of a file system leaves it: its beginning, and gigabytes of nothing behind."""
    os.truncate(path, JUNK_BYTES)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeros_behind(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(8))


def filled(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None  # type: ignore[func-returns-value]


GARBAGE: dict[str, Callable[[Path], None]] = {
    "zeros": filled(bytes(4096)),
    "zeros behind": zeros_behind,
    "half of it": half,
    "nothing": filled(b""),
    "deep": filled(b"[" * 100_000),
    "of other types": filled(b'{"set": 7, "identity": [], "boot": {}, "instance_id": 1e999}'),
    "noise": filled(bytes(range(256)) * 64),
    "gigabytes": sparse,
}
# What a daemon at work leaves at least.
EXPECTED = {
    "identity.json",
    "journal.db",
    "outbox.db",
    "history.db",
    "emergency_stop",
    "run/outbox.log",
}


@pytest.fixture
def world(net: NetworkThread, tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, net, more="[history]\nenabled = true\n") as made:
        made.start()
        yield made


@pytest.fixture
def used(world: World, alice: Any) -> Path:
    """A copy of the state directory of a daemon that was stopped, and then killed at work."""
    world.daemon.stop()  # what is written now and then is written at the end too
    world.start()
    session = stream(pipe(alice, {"streams": ["control"], "every_s": 0.1}), "control")
    session.wait("reading", device="climate")
    assert (
        result(question(alice, {"op": "set", "device": "valve", "values": {"on": True}}))["state"] == "done"
    )
    world.daemon.kill()
    folder = world.folder / "state" / "requests" / "0a0b0c0d-36"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0").write_bytes(b"half of a picture")
    kept = world.folder / "used"
    for path in files(world.folder / "state"):
        copy = kept / path.relative_to(world.folder / "state")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    world.start()  # it takes over the guard, which holds the lines
    world.daemon.stop()
    return kept


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def start(world: World, used: Path, damage: Callable[[Path], None], only: str = "") -> int:
    """With every file damaged, or one; the most memory that it had."""
    state = world.folder / "state"
    shutil.rmtree(state)
    shutil.copytree(used, state)
    state.chmod(0o700)
    for path in files(state):
        if only in ("", str(path.relative_to(state))):
            damage(path)
    daemon = world.start(joined=False)
    daemon.wait_logged("ready")
    if daemon.ask("status")["emergency_stop"]["latched"]:
        daemon.ask("release")
    until(lambda: daemon.device("valve")["state"] == "online", "the valve")
    answer = daemon.ask("set", device="valve", values={"on": True})
    assert answer["state"] == "done", answer
    assert not [entry for entry in daemon.events() if "exception" in entry], "nothing of it came unexpected"
    high_kb = high_water_kb(daemon.process.pid)
    daemon.stop()
    return high_kb


@pytest.mark.slow
def test_no_file_of_the_state_directory_ends_a_start(world: World, used: Path) -> None:
    """Every file in four ways, another one for its neighbour; `make soak` has all of them, and each alone."""
    names = [str(path.relative_to(used)) for path in files(used)]
    assert set(names) >= EXPECTED
    usual_kb = start(world, used, lambda path: None)
    ways = list(GARBAGE.values())
    for turn in range(0, len(ways), 2):

        def damage(path: Path, turn: int = turn) -> None:
            place = names.index(str(path.relative_to(world.folder / "state")))
            ways[(place + turn) % len(ways)](path)

        assert start(world, used, damage) - usual_kb < MEMORY_MAX_KB


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nor_does_one_of_them_alone(world: World, used: Path) -> None:
    for damage in GARBAGE.values():
        start(world, used, damage)
        for path in files(used):
            start(world, used, damage, str(path.relative_to(used)))
