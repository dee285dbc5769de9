"""The outbox and what a card does to it: flipped bits, torn pages, foreign files, a disk that hangs."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from device_agent.store.outbox import outbox as outbox_module
from device_agent.store.outbox import outbox_file
from device_agent.store.outbox.event_rows import COLUMNS, PACK_EVENTS, events_of
from support.outbox_machine import Machine, Rule

Machines = Callable[..., Machine]


class Bytes(Rule):
    """A console."""

    format = "bytes"


def readings(machine: Machine) -> list[float]:
    return [event["values"]["v"] for event in machine.caller.events if event["kind"] == "reading"]


def gaps(machine: Machine) -> list[dict[str, Any]]:
    return [event for event in machine.caller.events if event["kind"] == "gap"]


def everything(first: int, last: int) -> list[float]:
    return [float(n) for n in range(first, last + 1)]


async def stored(machine: Machine, count: int) -> None:
    """So many events wait, on disk and not in memory."""
    for _ in range(count // 100):
        machine.append(100)
        machine.clock.step(6)
        await machine.tick()


async def off(machine: Machine, *, keep_memory: bool = False) -> None:
    """An orderly end, with the log of the file written back."""
    await machine.outbox.close()
    await machine.thread.close()
    if not keep_memory:
        shutil.rmtree(machine.memory)
        machine.memory.mkdir()


async def power_cut(machine: Machine, folder: Path) -> None:
    await machine.kill(folder)
    shutil.rmtree(machine.memory)
    machine.memory.mkdir()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def pack_of(machine: Machine, seq: int) -> tuple[int, list[int]]:
    """Where in the file the pack with this number lies, and all its numbers."""
    path = machine.disk / "outbox.db"
    with closing(sqlite3.connect(path)) as db:
        for row in db.execute(f"SELECT {COLUMNS} FROM event"):
            numbers = [event.seq or 0 for event in events_of(row) or []]
            if seq in numbers:
                return path.read_bytes().index(row[2][50:100]), numbers
    raise LookupError(seq)


async def test_a_flipped_bit_costs_one_pack_and_is_said_once(tmp_path: Path, machines: Machines) -> None:
    machine = machines()
    await machine.boot(Rule())
    await stored(machine, 3000)
    await off(machine)
    at, numbers = pack_of(machine, 1500)
    flip(machine.disk / "outbox.db", at)
    await machine.boot(Rule(), again=True)
    await machine.drain()
    assert sorted(readings(machine)) == [v for v in everything(1, 3000) if v not in numbers]
    (gap,) = gaps(machine)
    assert (gap["count"], gap["from_seq"], gap["to_seq"]) == (len(numbers), numbers[0], numbers[-1])
    assert 1 < len(numbers) <= PACK_EVENTS
    await off(machine)
    await machine.boot(Rule(), again=True)
    assert machine.queue.pending_events == 0, "it is told once"
    assert not machine.outbox.figures()["set_aside"]


@pytest.mark.parametrize("at", ["start", "work"])
async def test_of_a_damaged_file_what_is_whole_is_saved(tmp_path: Path, machines: Machines, at: str) -> None:
    machine = machines()
    await machine.boot(Rule())
    await stored(machine, 4000)
    if at == "start":
        await off(machine, keep_memory=True)
    else:
        await machine.thread.run(
            lambda: machine.outbox._file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        )
        await machine.thread.run(lambda: machine.outbox._file.db.execute("PRAGMA cache_size = 0"))
    path = machine.disk / "outbox.db"
    where = pack_of(machine, 2000)[0] // 4096 * 4096
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"\xa5" * 4096)
    if at == "start":
        await machine.boot(Rule(), again=True)
    machine.append(5)
    await machine.drain()
    came = readings(machine)
    assert len(came) == len(set(came))
    assert 3000 < len(came) < 4005, "a block of the disk is a handful of packs"
    assert set(everything(4001, 4005)) <= set(came)
    assert 4005 - len(came) == sum(gap["count"] for gap in gaps(machine))
    assert machine.outbox.figures()["set_aside"] or at == "start"
    if machine.outbox.figures()["set_aside"]:
        assert list(machine.disk.glob("outbox.db.damaged-*"))


@pytest.mark.parametrize("what", ["newer", "foreign", "text"])
async def test_a_file_of_somebody_else_is_set_aside(tmp_path: Path, machines: Machines, what: str) -> None:
    machine = machines()
    path = machine.disk / "outbox.db"
    if what == "text":
        path.write_text("shopping list\n" * 100)
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE channel(colour TEXT)")
            db.execute(f"PRAGMA user_version = {99 if what == 'newer' else 0}")
    await machine.boot(Rule(), again=True)
    assert list(machine.disk.glob("outbox.db.damaged-*"))
    machine.append(3)
    await machine.drain()
    assert readings(machine) == everything(1, 3)


async def test_after_the_loss_of_the_file_no_number_goes_back(tmp_path: Path, machines: Machines) -> None:
    """A reader drops a number that it has had: the session would be mute for ever."""
    machine = machines()
    await machine.boot(Rule())
    for _ in range(50):
        machine.append(1)
        await machine.send(delivered=True, acknowledged=True)
    await power_cut(machine, tmp_path)
    for path in machine.disk.glob("outbox.db*"):
        path.unlink()
    await machine.boot(Rule(), again=True)
    machine.append(3)
    await machine.drain()
    assert readings(machine) == everything(1, 53)
    assert [gap["reason"] for gap in gaps(machine)] == ["power_cut"]


async def test_a_power_cut_is_said_even_if_the_next_start_served_nobody(
    tmp_path: Path, machines: Machines
) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(20)
    machine.clock.step(1)
    await machine.tick()
    machine.append(5)
    await machine.send(delivered=True, acknowledged=True)
    await power_cut(machine, tmp_path)
    machine.thread, machine.outbox = await machine.start(dedicated=["s"])
    await off(machine)
    await machine.boot(Rule(), again=True)
    machine.append(1)
    await machine.drain()
    assert gaps(machine)
    assert 26.0 in readings(machine)


async def test_a_killed_process_loses_nothing_even_if_the_next_one_served_nobody(
    tmp_path: Path, machines: Machines
) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(20)
    await machine.kill(tmp_path)
    # Started and stopped before the network was there; then the machine is switched off.
    machine.thread, machine.outbox = await machine.start(dedicated=["s"])
    await off(machine)
    await machine.boot(Rule(), again=True)
    await machine.drain()
    assert readings(machine) == everything(1, 20)
    assert not gaps(machine)


async def test_the_message_under_way_survives_a_power_cut(tmp_path: Path, machines: Machines) -> None:
    """It may have arrived: under its own number a reader knows it again."""
    machine = machines()
    await machine.boot(Rule())
    machine.append(30)
    await machine.send(delivered=True, acknowledged=False)
    machine.clock.step(1)
    await machine.tick()
    await power_cut(machine, tmp_path)
    await machine.boot(Rule(), again=True)
    await machine.drain()
    assert readings(machine) == everything(1, 30)


async def test_what_was_asked_for_again_survives_a_kill(tmp_path: Path, machines: Machines) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(10)
    await machine.drain()
    assert machine.queue.replay(4) == 4
    await machine.send(delivered=False, acknowledged=False)
    await machine.kill(tmp_path)
    await machine.boot(Rule(), again=True)
    await machine.drain()
    assert readings(machine) == everything(1, 10) + everything(4, 10)


async def test_bytes_keep_their_order_over_a_restart(tmp_path: Path, machines: Machines) -> None:
    machine = machines()
    await machine.boot(Bytes())
    for n in range(200):
        machine.queue.append_bytes(b"%d," % n)
    machine.clock.step(1)
    await machine.tick()
    for n in range(200, 300):
        machine.queue.append_bytes(b"%d," % n)
    await machine.kill(tmp_path)
    await machine.boot(Bytes(), again=True)
    for n in range(300, 400):
        machine.queue.append_bytes(b"%d," % n)
    taken = b""
    while machine.queue.pending_events:
        await asyncio.wait_for(machine.queue.until_ready(), 5)
        cut = machine.queue.next_message(500)
        assert cut is not None
        taken += b"".join(cut.items)
        machine.queue.ack(cut)
    assert taken == b"".join(b"%d," % n for n in range(400))


async def test_bytes_have_no_words_for_a_power_cut(tmp_path: Path, machines: Machines) -> None:
    machine = machines()
    await machine.boot(Bytes())
    machine.queue.append_bytes(b"login: ")
    machine.clock.step(1)
    await machine.tick()
    await power_cut(machine, tmp_path)
    await machine.boot(Bytes(), again=True)
    await asyncio.wait_for(machine.queue.until_ready(), 5)
    cut = machine.queue.next_message(500)
    assert cut is not None
    assert cut.items == (b"login: ",)


async def test_what_was_refused_is_said_even_after_a_kill(tmp_path: Path, machines: Machines) -> None:
    machine = machines(max_bytes=20_000)
    await machine.boot(Rule("refuse"))
    machine.append(500)
    kept = machine.queue.pending_events
    assert kept < 200
    await machine.kill(tmp_path)
    await machine.boot(Rule("refuse"), again=True)
    await machine.drain()
    assert readings(machine) == everything(1, kept)
    (gap,) = gaps(machine)
    assert (gap["count"], gap["reason"], gap["from_seq"]) == (500 - kept, "overflow", None)


async def test_thinning_makes_all_of_the_past_coarser_alike(tmp_path: Path, machines: Machines) -> None:
    machine = machines(max_bytes=400_000)
    await machine.boot(Rule("thin"))
    await stored(machine, 20_000)
    await machine.drain()
    counts = [e.get("thinned", {}).get("count", 1) for e in machine.caller.events if e["kind"] == "reading"]
    assert sum(counts) == 20_000
    assert max(counts) <= 256, "no event stands for most of the past"
    for event in machine.caller.events:
        if "thinned" in event:
            low, high = event["thinned"]["minimum"]["v"], event["thinned"]["maximum"]["v"]
            assert low <= event["values"]["v"] <= high
            assert high - low == event["thinned"]["count"] - 1


@pytest.mark.parametrize("overflow", ["drop-oldest", "thin", "refuse"])
async def test_memory_is_bounded_while_the_disk_hangs(
    tmp_path: Path, machines: Machines, overflow: str
) -> None:
    machine = machines()
    await machine.boot(Rule(overflow))
    release = threading.Event()
    machine.thread.later(lambda: release.wait(60))
    commit = asyncio.ensure_future(machine.tick())
    for _ in range(60):
        machine.append(1000)
        machine.clock.step(0.1)
        await asyncio.sleep(0)
        assert machine.outbox.memory_bytes < 8_100_000
    assert machine.outbox._log._size_bytes < 40_000_000
    release.set()
    await commit
    await machine.tick()
    await machine.drain()
    stood_for = [
        e.get("thinned", {}).get("count", 1) for e in machine.caller.events if e["kind"] == "reading"
    ]
    lost = sum(gap["count"] for gap in gaps(machine) if gap["reason"] == "overflow")
    assert sum(stood_for) + lost == 60_000
    assert gaps(machine)


async def test_a_flood_is_kept_on_the_disk(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """More in a moment than memory may hold, while nothing can be sent."""
    monkeypatch.setattr(outbox_module, "MEMORY_MAX_BYTES", 1_000_000)
    machine = machines()
    await machine.boot(Rule())
    for _ in range(6):
        machine.append(2500)
        assert machine.outbox.crowded
        await machine.outbox.commit(machine.clock.monotonic_s())
        assert not machine.outbox.crowded
    await machine.drain()
    assert sorted(readings(machine)) == everything(1, 15_000)
    assert not gaps(machine)


@pytest.mark.parametrize("end", ["orderly", "killed"])
async def test_a_disk_that_comes_back_gives_what_it_has(tmp_path: Path, machines: Machines, end: str) -> None:
    """Not readable at the start (here: a folder in its place), readable later."""
    machine = machines()
    await machine.boot(Rule())
    await stored(machine, 500)
    await (off(machine) if end == "orderly" else machine.kill(tmp_path))
    path = machine.disk / "outbox.db"
    path.rename(machine.disk / "away")
    path.mkdir()
    await machine.boot(Rule(), again=True)
    machine.append(10)
    machine.clock.step(1)
    await machine.tick()
    assert machine.outbox.figures()["trouble"]
    path.rmdir()
    (machine.disk / "away").rename(path)
    machine.clock.step(6)
    await machine.tick()
    assert not machine.outbox.figures()["trouble"]
    await machine.drain()
    assert sorted(readings(machine)) == everything(1, 510)
    assert not gaps(machine) or end == "orderly"


@pytest.mark.parametrize("cut", ["torn", "garbage", "flipped"])
async def test_a_damaged_crash_log_is_read_as_far_as_it_goes(
    tmp_path: Path, machines: Machines, cut: str
) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(20)
    await machine.kill(tmp_path)
    path = machine.memory / "outbox.log"
    data = path.read_bytes()
    if cut == "torn":
        path.write_bytes(data[:-7])
    elif cut == "garbage":
        path.write_bytes(data + b"\x91\xc0" * 50)
    else:
        flip(path, len(data) - 20)
    await machine.boot(Rule(), again=True)
    machine.append(2)
    await machine.drain()
    came = sorted(readings(machine))
    assert came == everything(1, 20 if cut == "garbage" else 19) + everything(21, 22)


async def test_the_file_shrinks_when_a_long_backlog_is_gone(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_file, "FREE_PAGES_KEPT", 200)
    machine = machines()
    await machine.boot(Rule())
    await stored(machine, 30_000)
    path = machine.disk / "outbox.db"
    assert sum(part.stat().st_size for part in machine.disk.glob("outbox.db*")) > 800_000
    await machine.drain()
    for _ in range(10):
        machine.clock.step(1)
        machine.append(1)
        await machine.tick()
        await machine.drain()
        machine.clock.step(1)
        await machine.tick()
    await off(machine)
    await machine.boot(Rule())
    assert path.stat().st_size < 100_000


async def test_a_stream_that_ends_while_its_backlog_is_read_leaves_no_memory_behind(
    machines: Machines,
) -> None:
    machine = machines()
    await machine.boot(Rule())
    await stored(machine, 3000)
    while (cut := machine.queue.next_message(2000)) is not None:
        machine.queue.ack(cut)
    hung = threading.Event()
    machine.thread.later(hung.wait)
    reading = asyncio.ensure_future(machine.queue.until_ready())
    for _ in range(5):
        await asyncio.sleep(0)  # the writer asks for old events, which are on the disk alone
    reading.cancel()
    machine.outbox.forget(machine.queue.channel)
    hung.set()
    await machine.thread.run(lambda: None)
    await machine.tick()
    assert (machine.outbox.memory_bytes, machine.outbox.used_bytes) == (0, 0)


async def test_a_loop_that_wakes_after_the_close_leaves_the_orderly_end_alone(
    tmp_path: Path, machines: Machines
) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(5)
    loop = asyncio.create_task(machine.outbox.run())
    await asyncio.sleep(0)  # it has begun, and waits for its first interval
    await machine.outbox.close()
    machine.clock.step(60)
    await asyncio.wait_for(loop, 30)
    await machine.thread.close()
    shutil.rmtree(machine.memory)  # as the service manager does with the runtime directory
    machine.memory.mkdir()
    await machine.boot(Rule(), again=True)
    machine.append(1)
    await machine.drain()
    assert [event["seq"] for event in machine.caller.events if event["kind"] == "reading"] == [
        6,
        1,
        2,
        3,
        4,
        5,
    ]
    assert gaps(machine) == []
