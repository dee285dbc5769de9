"""What ends a command's right to move: conditions elsewhere, an ended session, a stop, another driver."""

import asyncio
import json
from pathlib import Path

import pytest

from device_agent.errors import Rejected
from device_agent.messages.commands import Do, Stop, parse
from device_agent.store.journal import known_commands
from support.control_side import ALICE, BOB, OWNER, Button, Fan, Ground, Relay, actor, told
from support.waiting import until_async

ALICE_1, BOB_1 = actor(ALICE), actor(BOB)
LID = """
[devices.lid]
driver = "button"
[devices.drum]
driver = "relay"
safe = false
only_while = { lid = { active = false } }
[access]
drive = "anyone"
"""


async def test_only_while_closed(tmp_path: Path) -> None:
    """Before it moves, and as long as it is away: an opened lid stops the drum."""
    async with Ground(tmp_path, LID) as ground:
        Button.pressed = True
        await until_async(lambda: ground.devices["lid"].latest.values["active"] is True)
        refused = await ground.executor.execute(ground.word("drum", on=True), ALICE_1, age_ms=0.0)
        assert told(refused) == "interlocked"
        assert refused.error.message == (
            "drum may leave its safe value only while lid.active is false; it is true"
        )
        assert Relay.told == []
        Button.pressed = False
        await until_async(lambda: ground.devices["lid"].latest.values["active"] is False)
        assert await ground.set(ALICE_1, "drum", on=True) == "done"
        Button.pressed = True
        await until_async(lambda: not ground.safe_states.limits["drum"].away)
        assert Relay.told[-1][1] == {"on": False, "level": 0}
        rows = await ground.journal.actuations()
        assert "only while lid.active is false" in rows[-1]["rule"]
        # Back to safe needs no lid.
        assert await ground.set(ALICE_1, "drum", on=False) == "done"


async def test_what_cannot_be_read_is_not_closed(tmp_path: Path) -> None:
    async with Ground(tmp_path, LID) as ground:
        await until_async(lambda: ground.devices["lid"].latest is not None)
        assert await ground.set(ALICE_1, "drum", on=True) == "done"
        Button.pressed = None
        await until_async(lambda: not ground.safe_states.limits["drum"].away)
        refusal = ground.executor.preview(ground.word("drum", on=True), ALICE_1)
        assert refusal.error.message.endswith("it cannot be read now")


async def test_an_interlock_does_not_name_what_is_hidden(tmp_path: Path) -> None:
    hidden = '[access]\nread = "anyone"\ndrive = "anyone"\n[access.devices.down]\nread = []\ndrive = []\n'
    async with Ground(tmp_path, hidden) as ground:
        assert await ground.set(OWNER, "down", on=True) == "done"
        refused = await ground.executor.execute(ground.word("up", on=True), ALICE_1, age_ms=0.0)
        assert told(refused) == "interlocked"
        assert "down" not in refused.error.message
        assert "down" in ground.executor.preview(ground.word("up", on=True), OWNER).error.message


async def test_a_command_whose_session_ends_before_it_begins_never_moves(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        Relay.hold.clear()
        first = asyncio.ensure_future(ground.set(ALICE_1, "heater", level=10))
        await until_async(Relay.begun.is_set)
        # It is past every check, and waits for the bus only.
        bus = ground.devices["heater"].bus
        second = asyncio.ensure_future(
            bus.run(lambda: None, 5.0)  # so that what comes after stands behind it
        )
        ground.executor.session_ends(ALICE_1.holder)
        ending = asyncio.ensure_future(ground.safe_states.end_of_session(ALICE_1.holder))
        Relay.hold.set()
        await asyncio.gather(first, second, ending)
        assert await ground.set(ALICE_1, "heater", on=True) == "not_allowed"
        assert Relay.told[-1][1] == {"on": False, "level": 0}
        assert not ground.safe_states.limits["heater"].away


async def test_a_command_under_way_when_its_session_ended_leaves_no_lease(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        Relay.hold.clear()
        command = asyncio.ensure_future(ground.set(ALICE_1, "up", level=10))
        await until_async(Relay.begun.is_set)
        ground.executor.session_ends(ALICE_1.holder)
        ending = asyncio.ensure_future(ground.safe_states.end_of_session(ALICE_1.holder))
        Relay.hold.set()
        await asyncio.gather(command, ending)
        assert ground.executor.leases.holder("up", ground.clock.monotonic_s()) is None
        assert await ground.set(BOB_1, "up", level=20) == "done"


async def test_a_cut_off_command_is_in_doubt_and_made_safe(tmp_path: Path) -> None:
    """Its task was cancelled while the bus was at it: it may have moved, and no limit may forget that."""
    async with Ground(tmp_path) as ground:
        Relay.hold.clear()
        command = asyncio.ensure_future(ground.set(ALICE_1, "heater", on=True))
        await until_async(Relay.begun.is_set)
        command.cancel()
        await asyncio.wait([command])
        assert ground.safe_states.limits["heater"].away
        Relay.hold.set()
        await until_async(lambda: not ground.safe_states.limits["heater"].away)
        assert Relay.told[-1][1] == {"on": False, "level": 0}
        rows = await ground.journal.actuations()
        assert [row["result"] for row in rows] == ["unknown", "done"]
        assert await ground.set(ALICE_1, "heater", on=True) == "too_soon"


async def test_nothing_moves_after_the_last_safe_state(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        Relay.hold.clear()
        first = asyncio.ensure_future(ground.set(ALICE_1, "heater", on=True))
        await until_async(Relay.begun.is_set)
        waits = asyncio.ensure_future(ground.set(ALICE_1, "heater", level=5))
        ground.control.permit.stop()
        stop = asyncio.ensure_future(ground.safe_states.all_safe("stop", 5.0))
        Relay.hold.set()
        await stop
        assert (await first, await waits) == ("done", "device_offline")
        assert Relay.told[-1][1] == {"on": False, "level": 0}
        assert ground.executor.preview(ground.word("up", on=True), OWNER).state == "rejected"


async def test_a_lapsed_lease_is_handed_over_by_way_of_safe(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "up", level=80) == "done"
        ground.clock.step(61.0)
        assert ground.executor.preview(ground.word("up", level=40), BOB_1).hand_over is True
        assert await ground.set(BOB_1, "up", level=40) == "done"
        assert [values for _, values in Relay.told] == [
            {"level": 80},
            {"on": False, "level": 0},
            {"level": 40},
        ]
        # Its driver may go on after any pause, and what a request left is nobody's.
        ground.clock.step(61.0)
        assert await ground.set(BOB_1, "up", level=50) == "done"
        ground.executor.request_ends(BOB_1.holder)
        assert await ground.set(ALICE_1, "up", level=60) == "done"
        assert [values for _, values in Relay.told][3:] == [{"level": 50}, {"level": 60}]


async def test_each_step_of_an_action_is_in_the_journal(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        word = Do(kind="do", id="p", device="up", action="pulse")
        assert told(await ground.executor.execute(word, ALICE_1, age_ms=0.0)) == "done"
        await until_async(lambda: not ground.safe_states.limits["up"].away)
        rows = await ground.journal.actuations()
        assert [(row["who"], row["what"]) for row in rows] == [
            ("session alice (user alice, organisation org_a)", "pulse()"),
            ("device-agent", "level=0"),
        ]


@pytest.mark.parametrize(("age_ms", "code"), [(None, "clock_unset"), (5001.0, "expired"), (4000.0, "done")])
async def test_age_is_by_the_transports_clock(tmp_path: Path, age_ms: float | None, code: str) -> None:
    async with Ground(tmp_path) as ground:
        ack = await ground.executor.execute(ground.word("up", on=True), ALICE_1, age_ms=age_ms)
        assert told(ack) == code


async def test_bytes_take_the_lease_and_are_in_the_journal(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        for _ in range(3):
            ground.executor.admit_bytes(ALICE_1, "up", 0.0)
        with pytest.raises(Rejected, match="up is driven by session alice"):
            ground.executor.admit_bytes(BOB_1, "up", 0.0)
        ground.executor.session_ends(ALICE_1.holder)
        ground.executor.admit_bytes(BOB_1, "up", 0.0)
        with pytest.raises(Rejected, match="has ended"):
            ground.executor.admit_bytes(ALICE_1, "up", 0.0)
        rows = await ground.journal.actuations()
        assert [(row["who"], row["what"]) for row in rows] == [
            ("session alice (user alice, organisation org_a)", "bytes"),
            ("session bob (user bob, organisation org_b)", "bytes"),
        ]


@pytest.mark.parametrize("kind", ["set", "do"])
def test_text_that_no_file_and_no_message_can_hold_is_refused(kind: str) -> None:
    """JSON may bring half a character; what cannot be journalled must not get as far as the Journal."""
    event = json.loads(
        '{"id": "1", "device": "d", "values": {"text": "\\ud800"}}'
        if kind == "set"
        else '{"id": "1", "device": "d", "action": "a", "args": {"text": "\\ud800"}}'
    )
    with pytest.raises(Rejected, match="text"):
        parse({"kind": kind, **event})


async def test_a_device_that_gives_up_is_left_safe(tmp_path: Path) -> None:
    """Its chip still obeys: what it was last told must not stay. Opening again makes it safe, too."""
    more = '[devices.fan]\ndriver = "fan"\nsafe = false\n[access]\ndrive = "anyone"\n'
    async with Ground(tmp_path, more) as ground:
        assert await ground.set(actor(ALICE), "fan", on=True) == "done"
        told, fan = len(Relay.told), ground.devices["fan"]
        Fan.broken = True
        await until_async(lambda: not fan.online)
        await until_async(lambda: len(Relay.told) > told)
        assert Relay.told[told] == ("fan", {"on": False, "level": 0})
        Fan.broken = False
        await until_async(lambda: fan.online)
        assert not ground.safe_states.away(["fan"])


async def test_a_day_s_worth_of_ids_is_never_carried_out_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has used up his ids is refused, except for making safe and for a stop; the others are not."""
    monkeypatch.setattr(known_commands, "IDS_MAX", 12)
    monkeypatch.setattr(known_commands, "COMMANDS_MAX", 2)
    async with Ground(tmp_path) as ground:
        words = [ground.word("up", on=number % 2 == 0) for number in range(6)]
        for word in words:
            assert told(await ground.executor.execute(word, ALICE_1, age_ms=0.0)) == "done"
        moved = len(Relay.told)
        for word in words:
            again = await ground.executor.execute(word, ALICE_1, age_ms=0.0)
            assert (again.repeated, len(Relay.told)) == (True, moved)
        refused = await ground.executor.execute(ground.word("up", on=True), ALICE_1, age_ms=0.0)
        assert told(refused) == "too_soon"
        assert "free in 14" in refused.error.message, "after a day, in minutes"
        assert len(Relay.told) == moved
        assert await ground.set(BOB_1, "heater", level=10) == "done"
        assert await ground.set(ALICE_1, "up", on=False) == "done"
        assert told(await ground.executor.stop(Stop(kind="stop", id="halt"), ALICE_1, (), 1.0)) == "done"
