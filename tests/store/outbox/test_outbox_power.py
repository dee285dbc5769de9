"""Power cuts at any instant of any write: what was synced stays, what was not is there, torn or gone.

The disk is modelled beneath the real code. After each transaction both files are as the disk has them; the
bytes that the next one changes are the writes of that moment. SQLite syncs the log before it touches the
database, and the database before it uses the log again (synchronous=FULL), so a cut within a transaction
leaves either the old database with some of the log's new sectors, or the whole log with some of the
database's.
"""

import copy
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_agent.store.outbox.outbox_file import OutboxFile
from support.outbox_machine import Caller, Machine, Rule, on_disk

SECTOR_BYTES = 512
SEED = int(os.environ.get("DEVICE_AGENT_SEED", "1"))
Files = tuple[bytes, bytes]


@dataclass(slots=True)
class Moment:
    """One transaction: the disk before and after it, and what was true when it began."""

    before: Files
    after: Files
    kept_before: set[float]
    kept_after: set[float]
    caller: Caller
    made: int


class Recorder:
    """Notes each transaction of an outbox."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.moments: list[Moment] = []
        self.watch()

    def watch(self) -> None:
        file = self._machine.outbox._file
        self._files, self._kept = self._read(), _kept(file)
        plain = file._transaction

        @contextmanager
        def noted() -> Iterator[None]:
            caller, made = copy.deepcopy(self._machine.caller), self._machine.made
            self._files = self._read()
            with plain():
                yield
            files, kept = self._read(), _kept(file)
            self.moments.append(Moment(self._files, files, self._kept, kept, caller, made))
            self._files, self._kept = files, kept

        file._transaction = noted  # type: ignore[method-assign]

    def _read(self) -> Files:
        path = self._machine.disk / "outbox.db"
        return path.read_bytes(), Path(f"{path}-wal").read_bytes()


def _kept(file: OutboxFile) -> set[float]:
    return {json.loads(e.data)["values"]["v"] for e in on_disk(file) if e.kind == "reading"}


def torn(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """Some of the sectors that differ are written, some are not, one only in part."""
    share = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    result = bytearray(old)
    if len(new) > len(old):
        result += bytes(rng.choice([0, len(new) - len(old), rng.randrange(len(new) - len(old))]))
    elif rng.random() < 0.5:
        del result[len(new) :]
    for at in range(0, min(len(new), len(result)), SECTOR_BYTES):
        end = min(at + SECTOR_BYTES, len(result), len(new))
        if rng.random() < share:
            if rng.random() < 0.02:
                end = rng.randrange(at, end)
            result[at:end] = new[at:end]
    return bytes(result)


async def a_life(machine: Machine, rng: random.Random, overflow: str) -> list[Moment]:
    """Random work with a bad network, every transaction noted."""
    await machine.boot(Rule(overflow))
    recorder = Recorder(machine)
    for _ in range(rng.randrange(25, 60)):
        match rng.choice("aaasssttw"):
            case "a":
                machine.append(rng.choice([1, 3, 40, 300]))
            case "s":
                delivered = rng.random() < 0.7
                await machine.send(delivered=delivered, acknowledged=rng.random() < 0.7)
            case "t":
                await machine.tick()
            case "w":
                machine.clock.step(rng.choice([0.1, 4, 30]))
    return recorder.moments


async def after_a_cut(moment: Moment, rng: random.Random, machine: Machine, rule: Rule) -> None:
    """Boot from what a cut in this moment has left, and account for everything."""
    (db, wal), (new_db, new_wal) = moment.before, moment.after
    if rng.random() < 0.5:
        wal, kept = torn(wal, new_wal, rng), moment.kept_before & moment.kept_after
    else:
        db, wal, kept = torn(db, new_db, rng), new_wal, moment.kept_after
    (machine.disk / "outbox.db").write_bytes(db)
    (machine.disk / "outbox.db-wal").write_bytes(wal)
    machine.caller, machine.made = copy.deepcopy(moment.caller), moment.made
    await machine.boot(rule, again=True)
    try:
        assert not machine.outbox.figures()["set_aside"], "a cut is no damage"
        machine.append(3)
        await machine.drain()
        check(machine, kept)
    finally:
        await machine.end()


def check(machine: Machine, kept: set[float]) -> None:
    seen = machine.caller.events
    readings = [event for event in seen if event["kind"] == "reading"]
    came = [(event["seq"], event["seq"]) for event in seen]
    # Without the first number: all that did not come.
    said = [(event["from_seq"] or 1, event["to_seq"]) for event in seen if event.get("to_seq")]
    known = 0
    for first, last in sorted(came + said):
        assert first <= known + 1, f"number {known + 1} is missing without a gap"
        known = max(known, last)
    by_seq: dict[int, float] = {}
    for event in readings:
        if "thinned" not in event:
            value = event["values"]["v"]
            assert by_seq.setdefault(event["seq"], value) == value, "one number twice"
    whole = {event["values"]["v"] for event in readings}
    spans = [event["thinned"] for event in readings if "thinned" in event]
    missing = {v for v in kept - whole if not any(t["minimum"]["v"] <= v <= t["maximum"]["v"] for t in spans)}
    assert not missing, f"was on the disk and did not come: {sorted(missing)[:5]}"
    fresh = {float(machine.made - n) for n in range(3)}
    assert fresh <= whole, "what came after the cut did not arrive"
    if machine.made - 3 > len(whole):
        assert any(event["kind"] == "gap" for event in seen)


async def cuts(tmp_path: Path, seed: int, count: int) -> int:
    """One life, so many cuts in it; how many there were."""
    rng = random.Random(seed)
    max_bytes = rng.choice([50_000_000, 100_000])
    overflow = rng.choice(["drop-oldest", "thin"])
    machine = Machine(tmp_path / "life", max_bytes)
    moments = await a_life(machine, rng, overflow)
    await machine.end()
    for _ in range(count if moments else 0):
        machine = Machine(tmp_path / "cut", max_bytes)
        await after_a_cut(rng.choice(moments), rng, machine, Rule(overflow))
        shutil.rmtree(tmp_path / "cut")
    return count if moments else 0


@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
async def test_power_cuts(tmp_path: Path, seed: int) -> None:
    assert await cuts(tmp_path, seed, 8)


@pytest.mark.soak
async def test_ten_thousand_power_cuts(tmp_path: Path) -> None:
    done, seed = 0, SEED
    while done < 10_000:
        try:
            done += await cuts(tmp_path / str(seed), seed, 40)
        except BaseException:
            print(f"seed {seed}; repeat with DEVICE_AGENT_SEED={seed}")
            raise
        shutil.rmtree(tmp_path / str(seed))
        seed += 1
    print(f"{done} power cuts in {seed - SEED} background, SQLite {sqlite3.sqlite_version}")


def test_the_model_tears(tmp_path: Path) -> None:
    """It would be no test if nothing was ever torn: half of what differs is there, half is not."""
    rng = random.Random(1)
    old, new = bytes(100 * SECTOR_BYTES), b"\1" * (100 * SECTOR_BYTES)
    results = [torn(old, new, rng).count(1) for _ in range(50)]
    assert min(results) == 0
    assert max(results) == len(new)
    assert any(0 < result < len(new) for result in results)
