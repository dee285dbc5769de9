"""Access, rank, the emergency stop, dry runs and races, under the executor that everybody drives through."""

import asyncio
from pathlib import Path

import pytest

from device_agent.errors import Rejected
from device_agent.network import Caller
from device_agent.safety.emergency_stop import StopLatch
from support.control_side import ALICE, BOB, LIMIT_S, OWNER, Button, Ground, Relay, actor, told
from support.waiting import until_async

RULES = """
[access]
read = ["user:alice", "user:bob"]
drive = ["user:alice", "org:org_b"]
preempt = {preempt}
[access.request]
drive = ["user:alice"]
[access.devices.heater]
read = ["user:alice"]
drive = ["user:alice"]
[access.devices.up.points.level]
drive = ["user:alice"]
minimum = 0
maximum = 50
"""
ALICE_1, BOB_1 = actor(ALICE), actor(BOB)


def rules(preempt: bool = False) -> str:
    return RULES.format(preempt=str(preempt).lower())


async def test_points_and_ranges_are_bound_to_callers(tmp_path: Path) -> None:
    async with Ground(tmp_path, rules()) as ground:
        assert await ground.set(BOB_1, "up", on=True) == "done"
        assert await ground.set(BOB_1, "up", level=10) == "not_allowed"
        assert await ground.pulse(BOB_1, "up") == "not_allowed"
        assert await ground.set(BOB_1, "up", on=False) == "done"
        ground.executor.session_ends(BOB_1.holder)
        assert await ground.set(ALICE_1, "up", level=50) == "done"
        assert await ground.set(ALICE_1, "up", level=51) == "not_allowed"
        # The step to 80 is beyond what callers may, whoever thought of it.
        assert await ground.pulse(ALICE_1, "up") == "not_allowed"
        ground.executor.session_ends(ALICE_1.holder)
        assert await ground.set(OWNER, "up", level=90) == "done"


async def test_the_kind_of_task_counts(tmp_path: Path) -> None:
    async with Ground(tmp_path, rules()) as ground:
        assert await ground.set(actor(BOB, kind="request"), "down", on=True) == "not_allowed"
        assert await ground.set(actor(ALICE, kind="request"), "down", on=True) == "done"


async def test_refusals_leak_nothing(tmp_path: Path) -> None:
    async with Ground(tmp_path, rules()) as ground:
        sentences = []
        for name in ("heater", "nothing"):
            ack = await ground.executor.execute(ground.word(name, on=True), BOB_1, age_ms=0.0)
            assert told(ack) == "unknown_device"
            sentences.append(ack.error.message.replace(name, "X"))
        assert sentences[0] == sentences[1]
        assert "there are: down, up" in sentences[0]
        ack = await ground.executor.execute(
            ground.word("up", on=True), actor(Caller("", "mallory")), age_ms=0.0
        )
        assert (told(ack), "none" in ack.error.message) == ("unknown_device", True)


async def test_a_lower_rank_waits_and_a_higher_one_takes_over_by_way_of_safe(tmp_path: Path) -> None:
    async with Ground(tmp_path, rules(preempt=True)) as ground:
        assert await ground.set(BOB_1, "down", on=True, level=30) == "done"
        dry = ground.executor.preview(ground.word("down", level=20), ALICE_1)
        assert (dry.state, dry.hand_over) == ("done", True)
        assert await ground.set(ALICE_1, "down", level=20) == "done"
        written = [values for _, values in Relay.told]
        assert written[-2:] == [{"on": False, "level": 0}, {"level": 20}]
        assert await ground.set(BOB_1, "down", level=40) == "leased"
        assert await ground.set(OWNER, "down", level=5) == "done"
        assert await ground.set(ALICE_1, "down", level=6) == "leased"
        rows = await ground.journal.actuations()
        assert any(row["rule"] == "handed over to session alice" for row in rows)


async def test_without_preempt_who_came_first_keeps_it(tmp_path: Path) -> None:
    async with Ground(tmp_path, rules()) as ground:
        assert await ground.set(BOB_1, "down", on=True) == "done"
        assert await ground.set(ALICE_1, "down", on=True) == "leased"
        assert await ground.set(OWNER, "down", on=False) == "leased"


async def test_a_dry_run_moves_nothing_and_names_the_rule(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        assert ground.executor.preview(ground.word("up", on=True), OWNER).state == "done"
        assert Relay.told == []
        # It held no interlock either.
        assert await ground.set(OWNER, "down", on=True) == "done"
        refusal = ground.executor.preview(ground.word("up", on=True), OWNER)
        assert refusal.error.code == "interlocked"
        assert "down" in refusal.error.message


async def test_a_dry_run_is_in_the_journal_and_a_flood_of_them_is_not(tmp_path: Path) -> None:
    async with Ground(tmp_path, rules()) as ground:
        word, mallory = ground.word("up", on=True), actor(Caller("", "mallory"))
        assert ground.executor.dry_run(word, mallory).state == "rejected"
        for _ in range(100):
            assert ground.executor.dry_run(word, ALICE_1, for_s=2).state == "done"
        ground.clock.step(60)
        assert ground.executor.dry_run(word, ALICE_1).state == "done"
        said = [row["what"] for row in await ground.journal.actuations()]
        tried = [what for what in said if what.startswith("dry run")]
        assert tried == ["dry run: on=True for 2 s", "dry run: on=True"]
        assert Relay.told == []


async def test_two_commands_at_once_cannot_both_pass_an_interlock(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        Relay.hold.clear()
        first = asyncio.ensure_future(ground.set(ALICE_1, "up", on=True))
        await until_async(Relay.begun.is_set)
        assert await ground.set(BOB_1, "down", on=True) == "interlocked"
        Relay.hold.set()
        assert await first == "done"
        # What never began holds nothing.
        assert await ground.set(ALICE_1, "up", on=False) == "done"
        assert await ground.set(BOB_1, "down", on=True) == "done"


async def test_a_command_in_doubt_keeps_its_interlock_until_it_is_safe(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        Relay.hold.clear()
        assert await ground.set(ALICE_1, "up", on=True) == "bus_timeout"
        assert ground.safe_states.limits["up"].away
        assert await ground.set(BOB_1, "down", on=True) == "interlocked"
        Relay.hold.set()
        await until_async(lambda: not ground.safe_states.limits["up"].away)
        assert await ground.set(BOB_1, "down", on=True) == "done"


async def test_a_jump_of_the_wall_clock_moves_no_limit_and_no_lease(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "heater", on=True) == "done"
        assert await ground.set(ALICE_1, "heater", on=False) == "done"
        for jump_ms in (10 * 365 * 86_400_000, -20 * 365 * 86_400_000):
            ground.clock.set_wall(ground.clock.now_ms() + jump_ms)
            assert await ground.set(ALICE_1, "heater", on=True) == "too_soon"
            assert await ground.set(BOB_1, "heater", on=False) == "leased"
        ground.clock.step(59.0)
        assert await ground.set(ALICE_1, "heater", on=True) == "too_soon"
        ground.clock.step(1.1)
        assert await ground.set(ALICE_1, "heater", on=True) == "done"


async def test_a_rest_goes_on_over_a_restart(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "heater", on=True) == "done"
        assert await ground.set(ALICE_1, "heater", on=False) == "done"
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "heater", on=True) == "too_soon"
        ground.clock.step(61)
        assert await ground.set(ALICE_1, "heater", on=True) == "done"
    # Killed while it was on: opening made it safe, and the rest counts from there.
    async with Ground(tmp_path) as ground:
        ground.clock.step(61)
        assert not ground.safe_states.limits["heater"].away
        assert await ground.set(ALICE_1, "heater", on=True) == "done"


async def test_the_emergency_stop_latches_over_restarts(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "up", on=True) == "done"
        assert await ground.pulse(BOB_1, "heater") == "done"
        assert await ground.stop.press("the owner") == {"up": True, "down": True, "heater": True}
        assert not any(limits.away for limits in ground.safe_states.limits.values())
        for who in (ALICE_1, OWNER):
            assert await ground.set(who, "up", on=False) == "not_allowed"
        with pytest.raises(Rejected, match="emergency stop"):
            ground.executor.admit_bytes(ALICE_1, "up", 0.0)
    async with Ground(tmp_path) as ground:
        ack = await ground.executor.execute(ground.word("up", on=True), ALICE_1, age_ms=0.0)
        assert "device-agent release" in ack.error.message
        assert ground.stop.status()["latched"]
        await ground.stop.release("the owner")
        assert await ground.set(ALICE_1, "up", on=True) == "done"
    async with Ground(tmp_path) as ground:
        assert not ground.stop.status()["latched"]


async def test_a_command_under_way_is_stopped(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        Relay.hold.clear()
        first = asyncio.ensure_future(ground.set(ALICE_1, "up", level=10))
        await until_async(Relay.begun.is_set)
        second = asyncio.ensure_future(ground.set(ALICE_1, "up", level=20))
        pressing = asyncio.ensure_future(ground.stop.press("the owner"))
        await until_async(lambda: ground.latch.state is not None)
        Relay.hold.set()
        assert await first == "done"
        assert await second == "not_allowed"
        await pressing
        assert [values for _, values in Relay.told][-1] == {"on": False, "level": 0}
        assert not ground.safe_states.limits["up"].away


async def test_a_damaged_latch_counts_as_set(tmp_path: Path) -> None:
    (tmp_path / "emergency_stop").write_bytes(b"\0" * 256)
    latch = StopLatch(tmp_path / "emergency_stop")
    latch.load()
    assert latch.state is not None


LINE = """
[devices.button]
driver = "button"
[safety]
stop_device = "button"
[access]
drive = "anyone"
"""


async def test_a_line_presses_the_stop_and_must_be_released_first(tmp_path: Path) -> None:
    async with Ground(tmp_path, LINE) as ground:
        await until_async(lambda: ground.devices["button"].latest)
        assert await ground.set(ALICE_1, "up", on=True) == "done"
        Button.pressed = True
        ground.devices["button"].demand("test", 0.05)
        await until_async(lambda: ground.latch.state is not None)
        await until_async(lambda: not ground.safe_states.limits["up"].away)
        refusal = await asyncio.wait_for(_release(ground), LIMIT_S)
        assert "still active" in refusal
        Button.pressed = False
        await until_async(lambda: ground.devices["button"].latest.values["active"] is False)
        assert await ground.set(ALICE_1, "up", on=True) == "not_allowed"
        assert await _release(ground) == ""
        assert await ground.set(ALICE_1, "up", on=True) == "done"


async def test_a_line_that_cannot_be_read_bars_everything(tmp_path: Path) -> None:
    async with Ground(tmp_path, LINE) as ground:
        await until_async(lambda: ground.devices["button"].latest)
        Button.pressed = None
        await until_async(lambda: ground.devices["button"].latest.values["active"] is None)
        assert await ground.set(ALICE_1, "up", on=True) == "not_allowed"
        assert "cannot be read" in ground.stop.status()["barred"]
        assert not ground.stop.status()["latched"]


async def _release(ground: Ground) -> str:
    from device_agent.errors import Rejected

    try:
        await ground.stop.release("the owner")
    except Rejected as refusal:
        return refusal.message
    return ""


@pytest.mark.parametrize("state", [None, {"who": "x" * 100, "at_ms": 2**53}])
def test_the_latch_fits_its_place(tmp_path: Path, state: dict[str, int] | None) -> None:
    latch = StopLatch(tmp_path / "emergency_stop")
    latch.load()
    if state is not None:
        latch.set("ü" * 500, 2**53)
    latch.save()
    assert (tmp_path / "emergency_stop").stat().st_size == 256
    again = StopLatch(tmp_path / "emergency_stop")
    again.load()
    assert again.state == latch.state
