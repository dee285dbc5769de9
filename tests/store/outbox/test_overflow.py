"""The limit of the outbox on disk: which queue gives way, by which rule, and that a gap reports it."""

import json
from typing import Any

import pytest

from device_agent.store.outbox import overflow
from device_agent.store.outbox.overflow import DiskOverflow, drop_order
from support.outbox_machine import Machine, Rule

Machines = Any


async def full(machines: Machines, rule: str) -> Machine:
    """2000 events, all but the ends of the queue on disk only."""
    machine: Machine = machines(max_bytes=500_000)
    await machine.boot(Rule(rule))
    for _ in range(10):
        machine.append(200)
        machine.clock.step(6)
        await machine.tick()
    assert machine.queue.spilled_ids is not None
    return machine


def gaps(machine: Machine) -> list[dict[str, Any]]:
    found = [json.loads(event.data) for event in machine.queue.in_memory if event.kind == "gap"]
    return sorted(found, key=lambda gap: gap["seq"])


async def test_the_largest_queue_gives_way_first_and_one_that_refuses_last(machines: Machines) -> None:
    machine = machines()
    await machine.boot(Rule())
    small = machine.queue
    machine.append(1)
    large = await machine.outbox.open("large", "events", "thin")
    refusing = await machine.outbox.open("refusing", "events", "refuse")
    for queue, count in ((large, 5), (refusing, 10)):
        machine.queue = queue
        machine.append(count)
    assert drop_order([refusing, small, large]) == [large, small, refusing]


async def test_the_oldest_on_disk_are_dropped_with_a_gap(machines: Machines) -> None:
    machine = await full(machines, "drop-oldest")
    before = machine.outbox.used_bytes
    step = DiskOverflow(machine.outbox)
    assert await step.free_a_step([machine.queue])
    assert before - machine.outbox.used_bytes >= step.step_bytes * 0.9
    (gap,) = gaps(machine)
    assert gap["reason"] == "overflow"
    assert gap["to_seq"] - gap["from_seq"] + 1 == gap["count"]


async def test_a_queue_in_memory_gives_way_in_memory(machines: Machines) -> None:
    machine: Machine = machines(max_bytes=50_000)
    await machine.boot(Rule())
    machine.append(100)
    before = machine.queue.pending_bytes
    assert await DiskOverflow(machine.outbox).free_a_step([machine.queue])
    assert machine.queue.pending_bytes < before
    assert [gap["from_seq"] for gap in gaps(machine)] == [1]


async def test_nobody_has_anything_to_give(machines: Machines) -> None:
    machine: Machine = machines()
    await machine.boot(Rule())
    assert not await DiskOverflow(machine.outbox).free_a_step([machine.queue])


async def test_thinning_goes_through_the_backlog_before_it_widens(machines: Machines) -> None:
    machine = await full(machines, "thin")
    step = DiskOverflow(machine.outbox)
    places = []
    for _ in range(3):
        assert await step.free_a_step([machine.queue])
        places.append((machine.queue.thinning.window, machine.queue.thinning.done_to_id))
    assert places == sorted(places)
    assert len(set(places)) == 3
    assert {gap["reason"] for gap in gaps(machine)} == {"thinned"}


async def test_when_thinning_ends_the_oldest_are_dropped(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overflow, "WINDOW_MAX", 1)
    machine = await full(machines, "thin")
    assert await DiskOverflow(machine.outbox).free_a_step([machine.queue])
    assert [gap["reason"] for gap in gaps(machine)] == ["overflow"]


async def test_a_failing_disk_frees_nothing_and_loses_nothing(machines: Machines) -> None:
    machine = await full(machines, "drop-oldest")
    await machine.thread.run(lambda: machine.outbox._file.db.execute("PRAGMA query_only = 1"))
    spilled = machine.queue.spilled_ids
    await DiskOverflow(machine.outbox).free_a_step([machine.queue])
    assert machine.queue.spilled_ids == spilled
    assert machine.outbox.figures()["disk_failures"] == 1
