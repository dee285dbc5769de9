"""A caller's account closes to the last number, whatever was lost before, between and after what went out."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.messages import events
from device_agent.records import DeviceState, Status
from support.outbox_account import account, stood_for
from support.outbox_machine import Machine, Rule

Machines = Callable[..., Machine]
RULES = ["drop-oldest", "thin", "refuse"]


async def check(machine: Machine, overflow: str) -> None:
    """The account of numbers, and that of readings where they are all that was refused."""
    await machine.drain()
    seen = machine.caller.events
    account(seen)
    gaps = [event for event in seen if event["kind"] == "gap"]
    if overflow == "refuse" and not any(gap["from_seq"] for gap in gaps):
        assert stood_for(seen) + sum(gap["count"] for gap in gaps) == machine.made
    assert machine.outbox.figures()["events"] == 0
    assert machine.outbox.used_bytes == machine.outbox.memory_bytes == 0


async def a_life(machine: Machine, rng: random.Random, rule: Rule, folder: Path, kinds: str) -> None:
    for _ in range(rng.randrange(30, 70)):
        match rng.choice(kinds):
            case "a":
                machine.append(rng.choice([1, 3, 40, 300]))
            case "o":
                status = Status("d", machine.clock.now_ms(), DeviceState.OFFLINE, "unplugged")
                machine.queue.append(events.status(status))
            case "s":
                delivered = rng.random() < 0.8
                await machine.send(
                    delivered=delivered, acknowledged=rng.random() < 0.8, limit_bytes=rng.choice([300, 3000])
                )
            case "t":
                await machine.tick()
            case "m":
                machine.queue.free_memory(rng.choice([500, 5000]))
            case "w":
                machine.clock.step(rng.choice([0.1, 4, 30]))
            case "k":
                await machine.kill(folder)
                await machine.boot(rule, again=True)
            case "r":
                await machine.outbox.close()
                await machine.thread.close()
                await machine.boot(rule, again=True)


@pytest.mark.parametrize("overflow", RULES)
@pytest.mark.parametrize("seed", range(12))
async def test_the_account_closes(tmp_path: Path, seed: int, overflow: str, machines: Machines) -> None:
    rng = random.Random(f"{seed} {overflow}")
    machine = machines(max_bytes=rng.choice([20_000, 60_000]))
    rule = Rule(overflow)
    await machine.boot(rule)
    await a_life(machine, rng, rule, tmp_path, "aaaoossstttmwwkr")
    await check(machine, overflow)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(), st.sampled_from(RULES))
async def test_the_account_closes_with_any_seed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, overflow: str
) -> None:
    folder = tmp_path_factory.mktemp("life")
    machine = Machine(folder / "machine", 30_000)
    rule = Rule(overflow)
    await machine.boot(rule)
    try:
        await a_life(machine, random.Random(seed), rule, folder, "aaaosssttmwwk")
        await check(machine, overflow)
    finally:
        await machine.end()


@pytest.mark.parametrize("overflow", ["drop-oldest", "thin"])
async def test_what_went_out_between_is_not_named(machines: Machines, overflow: str) -> None:
    """Live events go first: they leave islands in the backlog, which is dropped around them."""
    machine = machines(max_bytes=60_000)
    await machine.boot(Rule(overflow))
    for _ in range(20):
        machine.append(100)
        machine.clock.step(6)
        await machine.tick()
        machine.append(5)
        await machine.send(delivered=True, acknowledged=True, limit_bytes=800)
    await check(machine, overflow)
    assert account(machine.caller.events) > 500


async def test_a_gap_that_is_lost_itself_is_told_with_what_it_named(machines: Machines) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(30)
    machine.queue.free_memory(2000)
    machine.append(5)
    await machine.send(delivered=True, acknowledged=True, limit_bytes=1)
    machine.append(30)
    machine.queue.free_memory(6000)
    await check(machine, "drop-oldest")


async def test_gaps_are_as_few_as_will_do(machines: Machines) -> None:
    machine = machines(max_bytes=60_000)
    await machine.boot(Rule())
    for _ in range(50):
        machine.append(100)
        machine.clock.step(6)
        await machine.tick()
    await check(machine, "drop-oldest")
    (gap,) = [event for event in machine.caller.events if event["kind"] == "gap"]
    assert gap["from_seq"] == 1


@pytest.mark.parametrize("overflow", ["drop-oldest", "thin"])
async def test_what_was_asked_for_again_is_never_said_to_be_lost(machines: Machines, overflow: str) -> None:
    machine = machines()
    await machine.boot(Rule(overflow))
    machine.append(40)
    await machine.drain()
    assert machine.queue.replay(1) == 1
    machine.append(3)
    machine.queue.free_memory(2000)
    machine.caller.events.clear()
    await machine.drain()
    assert [event["kind"] for event in machine.caller.events].count("gap") == 0


async def test_after_the_loss_of_the_file_the_epoch_is_not_counted(
    tmp_path: Path, machines: Machines
) -> None:
    machine = machines()
    await machine.boot(Rule())
    machine.append(5)
    await machine.drain()
    await machine.kill(tmp_path)
    for path in [*machine.disk.iterdir(), *machine.memory.iterdir()]:
        path.unlink()
    await machine.boot(Rule(), again=True)
    machine.append(1)
    await machine.drain()
    (gap,) = [event for event in machine.caller.events if event["kind"] == "gap"]
    assert (gap["from_seq"], gap["count"]) == (None, None), "nobody knows which, and how many"
    newest: Any = max(event["seq"] for event in machine.caller.events if event["kind"] == "reading")
    assert 5 < gap["to_seq"] < min(gap["seq"], newest)


@pytest.mark.parametrize("overflow", RULES)
async def test_a_power_cut_after_an_overflow_leaves_no_loss_untold(
    tmp_path: Path, overflow: str, machines: Machines
) -> None:
    machine = machines(max_bytes=60_000)
    await machine.boot(Rule(overflow))
    for _ in range(10):
        machine.append(100)
        machine.clock.step(6)
        await machine.tick()
    await machine.tick()
    kept = machine.made
    await machine.kill(tmp_path)
    for path in machine.memory.iterdir():
        path.unlink()
    await machine.boot(Rule(overflow), again=True)
    await machine.drain()
    seen = machine.caller.events
    named = {n for g in seen if g.get("from_seq") for n in range(g["from_seq"], g["to_seq"] + 1)}
    came = {event["seq"] for event in seen}
    assert not named & came
    assert named | came == set(range(1, max(came) + 1))
    lost = sum(g["count"] for g in seen if g["kind"] == "gap" and g["reason"] == "overflow")
    if overflow != "thin":
        assert stood_for(seen) + lost == kept
