"""The limit of the outbox on disk: which queue gives way, by which rule, and that a gap reports it."""

from typing import Any

import pytest

from device_agent.store.outbox import crash_records, overflow
from device_agent.store.outbox.loss import Loss, losses_in
from device_agent.store.outbox.overflow import DiskOverflow, drop_order
from support.outbox_account import account, stood_for
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


def losses(machine: Machine) -> list[Loss]:
    """What is to be told: the queue's part of the crash log."""
    records = [record for record in machine.queue.snapshot() if record[0] == crash_records.LOST]
    return [loss for record in records for loss in losses_in(record[3], same_boot=True)]


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
    assert drop_order([refusing, small, large], 0) == [large, small, refusing]


async def test_who_has_less_than_its_share_gives_way_after_all_others(machines: Machines) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(3)
    refusing = await machine.outbox.open("refusing", "events", "refuse")
    small, machine.queue = machine.queue, refusing
    machine.append(10)
    assert drop_order([small, refusing], 1000) == [refusing, small]


async def test_the_oldest_on_disk_are_dropped_with_a_gap(machines: Machines) -> None:
    machine = await full(machines, "drop-oldest")
    before = machine.outbox.used_bytes
    step = DiskOverflow(machine.outbox)
    assert await step.free_a_step([machine.queue])
    assert before - machine.outbox.used_bytes >= step.step_bytes * 0.9
    (loss,) = losses(machine)
    assert loss.reason == "overflow"
    assert loss.to_seq - loss.from_seq + 1 == loss.count


async def test_a_queue_in_memory_gives_way_in_memory(machines: Machines) -> None:
    machine: Machine = machines(max_bytes=50_000)
    await machine.boot(Rule())
    machine.append(100)
    before = machine.queue.pending_bytes
    assert await DiskOverflow(machine.outbox).free_a_step([machine.queue])
    assert machine.queue.pending_bytes < before
    assert [loss.from_seq for loss in losses(machine)] == [1]


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
    assert {loss.reason for loss in losses(machine)} == {"thinned"}


async def test_when_thinning_ends_the_oldest_are_dropped(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overflow, "WINDOW_MAX", 1)
    machine = await full(machines, "thin")
    assert await DiskOverflow(machine.outbox).free_a_step([machine.queue])
    assert [loss.reason for loss in losses(machine)] == ["overflow"]


async def test_of_what_a_failing_disk_cannot_read_nothing_is_lost(machines: Machines) -> None:
    machine = await full(machines, "drop-oldest")
    await machine.thread.run(machine.outbox._file.close)
    spilled = machine.queue.spilled_ids
    await DiskOverflow(machine.outbox).free_a_step([machine.queue])
    assert machine.queue.spilled_ids == spilled
    assert losses(machine) == []
    assert machine.outbox.figures()["disk_failures"] == 1
    await machine.thread.run(machine.outbox._file.open)


@pytest.mark.parametrize("rule", ["drop-oldest", "thin"])
async def test_what_a_failing_disk_cannot_write_is_lost_and_told_once(machines: Machines, rule: str) -> None:
    machine = await full(machines, rule)
    assert await DiskOverflow(machine.outbox).free_a_step([machine.queue])
    await machine.thread.run(lambda: machine.outbox._file.db.execute("PRAGMA query_only = 1"))
    await machine.tick()
    assert machine.outbox.figures()["disk_failures"] == 1
    machine.append(10)
    await machine.send(delivered=True, acknowledged=True)
    await machine.thread.run(lambda: machine.outbox._file.db.execute("PRAGMA query_only = 0"))
    await machine.drain()
    assert account(machine.caller.events) > 100
    if rule == "thin":
        assert stood_for(machine.caller.events) == machine.made


async def test_a_neighbours_flood_costs_a_stream_that_refuses_nothing(machines: Machines) -> None:
    """A reading a second beside a thousand: all of the first come, and the flood gives way."""
    machine = machines(max_bytes=100_000)
    await machine.boot(Rule())
    flooded = machine.queue
    quiet = await machine.outbox.open("quiet", "events", "refuse")
    for _ in range(100):
        machine.queue = flooded
        machine.append(100)
        machine.queue = quiet
        machine.append(1)
        machine.clock.step(1)
        await machine.tick()
    assert quiet.next_seq == 101
    assert quiet.pending_events == 100
    assert machine.outbox.used_bytes < 110_000


async def test_a_stream_that_refuses_gives_back_what_is_its_neighbours(machines: Machines) -> None:
    machine = machines(max_bytes=100_000)
    await machine.boot(Rule("refuse"))
    refusing = machine.queue
    machine.append(1000)
    neighbour = machine.queue = await machine.outbox.open("neighbour", "events", "drop-oldest")
    for _ in range(40):
        machine.append(5)
        machine.clock.step(6)
        await machine.tick()
    assert neighbour.pending_events == 200
    assert refusing.pending_bytes > 40_000
