"""The outbox against a model: random work, kills, power cuts, a failing disk; every event accounted for."""

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.store.outbox import crash_log
from device_agent.store.outbox.outbox import QUIET_LOOKS
from device_agent.store.outbox.outbox_file import Commit
from support.outbox_machine import Machine, Rule, accounted, on_disk
from support.waiting import until_async

SEEDS = range(80)


@pytest.mark.parametrize("seed", SEEDS)
async def test_killed_processes_lose_nothing_and_repeat_nothing(
    tmp_path: Path, seed: int, machines: Callable[..., Machine]
) -> None:
    rng = random.Random(seed)
    machine = machines()
    await machine.boot(Rule())
    for _ in range(rng.randrange(30, 90)):
        match rng.choice("aaacssstkw"):
            case "a":
                machine.append(rng.choice([1, 3, 40, 400]))
            case "c":
                machine.answer()
            case "s":
                delivered = rng.random() < 0.7
                await machine.send(delivered=delivered, acknowledged=rng.random() < 0.7)
            case "t":
                await machine.tick()
            case "w":
                machine.clock.step(rng.choice([0.1, 4, 30]))
            case "k":
                await machine.kill(tmp_path)
                await machine.boot(Rule(), again=True)
    await machine.drain()
    accounted(machine.caller, machine.made)
    assert machine.outbox.figures()["events"] == 0
    assert machine.outbox.used_bytes == 0


@pytest.mark.parametrize("seed", range(15))
async def test_orderly_restarts_lose_nothing_even_without_the_memory(
    tmp_path: Path, seed: int, machines: Callable[..., Machine]
) -> None:
    rng = random.Random(seed)
    machine = machines()
    await machine.boot(Rule())
    for _ in range(12):
        machine.append(rng.choice([1, 50, 300]))
        await machine.send(delivered=rng.random() < 0.5, acknowledged=rng.random() < 0.5)
        machine.clock.step(rng.choice([0.1, 10]))
        await machine.tick()
        if rng.random() < 0.5:
            await machine.outbox.close()
            await machine.thread.close()
            shutil.rmtree(machine.memory)
            machine.memory.mkdir()
            await machine.boot(Rule(), again=True)
    await machine.drain()
    accounted(machine.caller, machine.made)


@pytest.mark.parametrize("seed", range(15))
async def test_a_power_cut_costs_one_interval_and_is_said(
    tmp_path: Path, seed: int, machines: Callable[..., Machine]
) -> None:
    rng = random.Random(seed)
    machine = machines()
    await machine.boot(Rule())
    machine.append(100)
    await machine.send(delivered=True, acknowledged=True)
    machine.clock.step(1)
    await machine.tick()
    fresh = rng.randrange(0, 30)
    machine.append(fresh)
    await machine.kill(tmp_path)
    shutil.rmtree(machine.memory)
    machine.memory.mkdir()
    await machine.boot(Rule(), again=True)
    machine.append(5)
    await machine.drain()
    seen = machine.caller.events
    values = {e["values"]["v"] for e in seen if e["kind"] == "reading"}
    assert {float(n + 1) for n in range(100)} <= values
    assert {float(n + 1) for n in range(100 + fresh, 105 + fresh)} <= values
    gap = next(e for e in seen if e["kind"] == "gap")
    assert gap["reason"] == "power_cut"
    assert gap["from_seq"] <= 101
    assert gap["to_seq"] >= 100 + fresh
    seqs = [e["seq"] for e in seen if e["kind"] == "reading" and e["values"]["v"] > 100 + fresh]
    assert min(seqs) > gap["to_seq"]


async def test_what_is_acknowledged_in_time_never_touches_the_disk(
    tmp_path: Path, machines: Callable[..., Machine]
) -> None:
    machine = machines()
    await machine.boot(Rule())
    await machine.tick()
    before = machine.outbox.figures()["written_bytes"]
    for _ in range(50):
        machine.append(2)
        await machine.send(delivered=True, acknowledged=True)
        await machine.tick()
    figures = machine.outbox.figures()
    assert figures["written_bytes"] == before
    assert figures["written_bytes_per_day"] == before * 24, "the first hour counts as a whole one"
    accounted(machine.caller, 100)


async def test_a_long_backlog_is_on_disk_and_not_in_memory(
    tmp_path: Path, machines: Callable[..., Machine]
) -> None:
    machine = machines()
    await machine.boot(Rule())
    for _ in range(40):
        machine.append(500)
        machine.clock.step(6)
        await machine.tick()
    queue = machine.queue
    assert queue.pending_events == 20_000
    assert len(queue._live) + sum(1 for _ in queue._late.in_memory()) < 2_000
    machine.append(1)
    await machine.send(delivered=True, acknowledged=True)
    first = machine.caller.events[0]
    assert first["values"]["v"] == 20_001.0, "live first"
    await machine.drain()
    accounted(machine.caller, machine.made)


@pytest.mark.parametrize("overflow", ["drop-oldest", "thin", "refuse"])
async def test_the_cap_holds_and_every_loss_is_said(
    tmp_path: Path, overflow: str, machines: Callable[..., Machine]
) -> None:
    machine = machines(max_bytes=400_000)
    await machine.boot(Rule(overflow))
    for _ in range(30):
        machine.append(400)
        machine.clock.step(6)
        await machine.tick()
        assert machine.outbox.used_bytes <= 500_000
    assert machine.outbox.figures()["dropped"] > 0
    await machine.drain()
    seen = machine.caller.events
    values = [e["values"]["v"] for e in seen if e["kind"] == "reading"]
    gaps = [e for e in seen if e["kind"] == "gap"]
    assert len(values) == len(set(values))
    came = {e["seq"] for e in seen}
    said = {n for g in gaps if g["from_seq"] is not None for n in range(g["from_seq"], g["to_seq"] + 1)}
    assert came | said == set(range(1, max(came) + 1)), "a number is missing without a gap"
    unnumbered = sum(g["count"] for g in gaps if g["from_seq"] is None)
    readings = sum(e.get("thinned", {}).get("count", 1) for e in seen if e["kind"] == "reading")
    if overflow == "thin":
        assert {g["reason"] for g in gaps} == {"thinned"}
        assert readings == machine.made, "thinned readings stand for all"
        assert any(e["thinned"]["count"] > 4 for e in seen if "thinned" in e), "windows widen"
    else:
        lost = sum(g["count"] for g in gaps)
        assert readings + lost == machine.made
    assert (unnumbered > 0) == (overflow == "refuse")


async def test_a_damaged_file_is_set_aside_and_the_start_goes_on(
    tmp_path: Path, machines: Callable[..., Machine]
) -> None:
    machine = machines()
    (machine.disk / "outbox.db").write_bytes(b"this is no database" * 100)
    await machine.boot(Rule())
    assert list(machine.disk.glob("outbox.db.damaged-*"))
    machine.append(3)
    await machine.drain()
    assert len(machine.caller.events) == 3


async def test_a_full_disk_is_survived_in_memory(tmp_path: Path, machines: Callable[..., Machine]) -> None:
    machine = machines()
    await machine.boot(Rule())
    await machine.thread.run(lambda: machine.outbox._file.db.execute("PRAGMA max_page_count = 20"))
    for _ in range(5):
        machine.append(200)
        machine.clock.step(6)
        await machine.tick()
    assert machine.outbox.figures()["disk_failures"] > 0
    await machine.drain()
    accounted(machine.caller, machine.made)


async def test_while_messages_are_accepted_only_what_waits_too_long_is_written(
    machines: Callable[..., Machine],
) -> None:
    """A flood: what is young when an old event must be written goes out before it gets old itself."""
    machine = machines()
    await machine.boot(Rule())
    await machine.tick()
    machine.append(3)
    machine.clock.step(0.2)
    await machine.send(delivered=True, acknowledged=True, limit_bytes=1)
    machine.clock.step(0.1)
    machine.append(50)
    await machine.outbox.commit(machine.clock.monotonic_s() - 0.25)
    assert [event.seq for event in on_disk(machine.outbox._file)] == [2, 3]
    machine.clock.step(0.3)
    machine.append(20)
    await machine.outbox.commit(machine.clock.monotonic_s() - 0.25)
    assert len(on_disk(machine.outbox._file)) == 72, "nothing was accepted since: one commit for many"


@pytest.mark.parametrize("round_trip_s", [0.1, 0.2, 0.4, 0.8])
async def test_a_slow_link_does_not_cost_a_commit_for_each_event(
    machines: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch, round_trip_s: float
) -> None:
    """100 events a second; what waits for 0.4 s is written, as with the usual interval."""
    machine = machines()
    await machine.boot(Rule())
    await machine.tick()
    file, commits = machine.outbox._file, 0
    plain = file.commit

    def counted(work: Commit) -> list[str]:
        nonlocal commits
        commits += 1
        return plain(work)

    monkeypatch.setattr(file, "commit", counted)
    sent_s, message = float("-inf"), None
    for _ in range(400):
        machine.clock.step(0.01)
        now_s = machine.clock.monotonic_s()
        machine.append(1)
        if message is not None and now_s >= sent_s + round_trip_s:
            machine.caller.deliver(message)
            machine.queue.ack(message)
            message = None
        if message is None:
            sent_s, message = now_s, machine.queue.next_message(20_000)
        await machine.outbox.commit(now_s - 0.4)
        on_file = {event.seq for event in on_disk(file)}
        waiting = [event for event in machine.queue.in_memory if event.appended_s <= now_s - 0.4]
        assert on_file >= {event.seq for event in waiting}
    assert commits <= 16, "each 0.4 s, and for each message that is under way for longer"
    assert commits == 0 or round_trip_s >= 0.2
    accounted(machine.caller, machine.caller.events[-1]["seq"])


async def test_it_is_looked_when_the_oldest_is_due_and_not_at_all_while_nothing_is_new(
    monkeypatch: pytest.MonkeyPatch, machines: Callable[..., Machine]
) -> None:
    machine = machines()
    await machine.boot(Rule())
    outbox, looks = machine.outbox, 0
    plain = outbox.commit

    async def counted(older_than_s: float, *, clean: bool = False) -> None:
        nonlocal looks
        looks += 1
        await plain(older_than_s, clean=clean)

    monkeypatch.setattr(outbox, "commit", counted)
    assert outbox._rest_s() == pytest.approx(0.4)
    machine.append(1)
    machine.clock.step(0.25)
    machine.append(1)
    assert outbox._rest_s() == pytest.approx(0.15)
    machine.clock.step(0.05)
    await machine.send(delivered=False, acknowledged=False, limit_bytes=1)
    assert outbox._rest_s() == pytest.approx(0.1), "a message is on its way"
    await plain(float("inf"))
    monkeypatch.setattr(outbox, "_interval_s", 0.01)
    loop = asyncio.create_task(outbox.run())
    await asyncio.sleep(0.5)
    assert looks <= QUIET_LOOKS + 2
    machine.append(1)
    machine.clock.step(1)
    inf = float("inf")
    await until_async(lambda: machine.queue.unstored_since_s(inf) == inf, "what came after it is on the disk")
    loop.cancel()
    await asyncio.wait([loop])


async def test_the_crash_log_is_written_once_for_a_chunk_and_before_what_is_sent(
    monkeypatch: pytest.MonkeyPatch, machines: Callable[..., Machine]
) -> None:
    machine = machines()
    await machine.boot(Rule())
    written: list[int] = []
    real = crash_log.os.write
    monkeypatch.setattr(
        crash_log.os, "write", lambda file, data: written.append(len(data)) or real(file, data)
    )
    machine.append(100)
    assert written == []
    await asyncio.sleep(0)
    assert len(written) == 1
    machine.append(1)
    machine.queue.next_message(1000)
    assert len(written) == 2, "a number is in the log before it can be on its way"


async def test_a_disk_that_takes_all_is_not_written_for_want_of_losses(
    machines: Callable[..., Machine],
) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(1)
    machine.clock.step(1)
    await machine.tick()
    assert machine.outbox._file.db.execute("SELECT count(*) FROM loss").fetchone() == (0,)
