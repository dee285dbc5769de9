"""No file of the state directory ends a start, whatever is in it: every file that a daemon leaves is tried.

They are found by walking a directory that was in use, so that a new kind of file cannot be forgotten here.
What is taken out of a file with bits turned, a torn end or zeros was in it before, or is not taken.
"""

import asyncio
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from device_agent.devices.kept import newest
from device_agent.network.blocks.identity import Identity, IdentityFile
from device_agent.safety.emergency_stop import StopLatch
from device_agent.store.history.history_file import HistoryReader
from device_agent.store.journal.journal import Journal
from device_agent.store.outbox.crash_log import CrashLog
from device_agent.store.outbox.outbox_file import OutboxFile
from device_agent.store.store_thread import StoreThread
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


def bits_turned(path: Path) -> None:
    data, dice = bytearray(path.read_bytes()), random.Random(path.name)
    for _ in range(3 if data else 0):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


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
    "bits turned": bits_turned,
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
    """Every file in five ways, another one for its neighbour; `make soak` has all of them, and each alone."""
    names = [str(path.relative_to(used)) for path in files(used)]
    assert set(names) >= EXPECTED
    usual_kb = start(world, used, lambda path: None)
    ways = list(GARBAGE.values())
    for turn in range(0, len(ways), 2):

        def damage(path: Path, turn: int = turn) -> None:
            place = names.index(str(path.relative_to(world.folder / "state")))
            ways[(place + turn) % len(ways)](path)

        assert start(world, used, damage) - usual_kb < MEMORY_MAX_KB
    folder = world.folder / "slightly"
    folder.mkdir()
    check_that_nothing_damaged_is_believed(used, folder)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nor_does_one_of_them_alone(world: World, used: Path) -> None:
    for damage in GARBAGE.values():
        start(world, used, damage)
        for path in files(used):
            start(world, used, damage, str(path.relative_to(used)))


# -- damage that leaves a file nearly whole ----------------------------------------

CASES = 40
# Of a file that has no reader: what the guard reads and bounds, and what is only compared, or only there.
OTHERS = {"machine", "clock.json", "guard.sock.lock", "guard.sock.notes", "journal.complete", "0"}


async def in_journal(path: Path) -> set[str]:
    thread = StoreThread()
    journal = Journal(path, thread)
    with closing(sqlite3.connect(f"file:{path.with_name('whole')}?mode=ro", uri=True)) as db:
        keys = db.execute("SELECT caller, id FROM command").fetchall()
    await journal.open()
    found = {f"task {one}" for one in await journal.unfinished_tasks()}
    found |= {f"{key} {await journal.first_answer(*key)}" for key in keys if journal.knows_command(*key)}
    found |= {f"command {one}" for one in await journal.unfinished_commands()}
    found |= {f"transition {one}" for one in await journal.transitions("", 0.0)}
    await journal.close()
    await thread.close()
    return {one for one in found if "the agent stopped while" not in one}


async def in_outbox(path: Path) -> set[str]:
    file = OutboxFile(path)
    contents = file.open()
    try:
        whole = [file.load(row.name, (0, contents.last_id + 1), 10**9, set())[0] for row in contents.rows]
    except sqlite3.DatabaseError as error:
        contents = file.begin_anew(error)  # as who reads it does
        whole = [file.load(row.name, (0, contents.last_id + 1), 10**9, set())[0] for row in contents.rows]
    finally:
        file.close()
    return {f"{event.id} {event.seq} {event.data!r}" for events in whole for event in events}


async def in_history(path: Path) -> set[str]:
    try:
        with HistoryReader(path) as reader:
            blocks = [block for name in reader.devices() for block in reader.blocks(name, 0, 2**53)]
            return {f"{block}" for block in blocks}
    except (sqlite3.Error, UnicodeDecodeError):
        return set()  # the recorder sets it aside


async def in_identity(path: Path) -> set[str]:
    identity = asdict(IdentityFile(path, "greenhouse_7").identity)
    anew = asdict(Identity()) | {"instance_id": identity["instance_id"]}
    return {f"{name} {value}" for name, value in identity.items() if value != anew[name]}


async def in_latch(path: Path) -> set[str]:
    latch = StopLatch(path)
    latch.load()
    return {"released"} if latch.state is None else set()


async def in_counts(path: Path) -> set[str]:
    return {f"{one}" for one in newest(path.parent, path.parent / "run")[2].items()}


async def in_crash_log(path: Path) -> set[str]:
    return {f"{record}" for record in CrashLog(path, "").read() or ()}


READERS: dict[str, Callable[[Path], Coroutine[Any, Any, set[str]]]] = {
    "journal.db": in_journal,
    "outbox.db": in_outbox,
    "history.db": in_history,
    "identity.json": in_identity,
    "emergency_stop": in_latch,
    "counts.json": in_counts,
    "counts-2.json": in_counts,
    "outbox.log": in_crash_log,
    "journal.log": in_crash_log,
}


def slightly(path: Path, dice: random.Random) -> None:
    """A bit turned, mostly; else its end is missing, or zeros."""
    data = bytearray(path.read_bytes())
    at = dice.randrange(len(data))
    match dice.randrange(8):
        case 0:
            del data[at:]
        case 1:
            data[at:] = bytes(len(data) - at)
        case _:
            data[at] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def check_that_nothing_damaged_is_believed(used: Path, folder: Path) -> None:
    """In this process, file by file; what SQLite keeps beside a database has checksums of its own."""
    for path in files(used):
        read = READERS.get(path.name)
        if read is None:
            assert path.name in OTHERS or path.name.endswith(("-wal", "-shm")), f"who reads {path.name}?"
            continue
        intact = folder / path.name
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copyfile(part, folder / part.name)
        if path.suffix == ".db":
            with closing(sqlite3.connect(intact)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copyfile(intact, folder / "intact")
        shutil.copyfile(intact, folder / "whole")
        known = asyncio.run(read(intact))
        for case in range(CASES):
            for left in folder.glob(f"{path.name}*"):
                left.unlink()
            shutil.copyfile(folder / "intact", intact)
            slightly(intact, random.Random(f"{path.name} {case}"))
            believed = asyncio.run(read(intact)) - known
            assert not believed, f"{path.name}, case {case}: {believed}"
