"""An actuator finds its way to safe whatever goes wrong on the way: foreign faults, races, silence."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_agent.bus.core import Bus, Urgency
from device_agent.driver import Action, DriverError, Flag, Flagged
from device_agent.messages.commands import Do
from device_agent.safety import safe_states
from support.control_side import ALICE, LIMIT_S, OWNER, Button, Fan, Ground, Relay, actor, told
from support.waiting import until_async

ALICE_1 = actor(ALICE)
SAFE = {"on": False, "level": 0}
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
FAN = """
[devices.fan]
driver = "fan"
safe = false
[access]
drive = "anyone"
"""
STOP = """
[devices.stop]
driver = "button"
[safety]
stop_device = "stop"
stop_point = "active"
[access]
drive = "anyone"
"""


@contextmanager
def occupied(bus: Bus) -> Iterator[None]:
    """The bus is busy meanwhile; what is asked of it stands in a queue."""
    gate = threading.Event()
    job = asyncio.ensure_future(bus.run(lambda: gate.wait(5.0), 5.0, urgency=Urgency.SAFE))
    try:
        yield
    finally:
        gate.set()
        job.add_done_callback(lambda done: done.exception())


async def test_a_driver_with_a_fault_is_told_again(tmp_path: Path) -> None:
    """What `safe` raises by mistake is no reason to leave the heater on."""
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "heater", on=True) == "done"
        Relay.faults = [ValueError("a bug"), OSError(5, "Input/output error")]
        await ground.safe_states.end_of_session(ALICE_1.holder)
        assert Relay.told[-1][1] == SAFE
        assert not ground.safe_states.limits["heater"].away


async def test_one_that_does_not_obey_keeps_no_session_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_states, "LEAVE_LIMIT_S", 0.3)
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "heater", on=True) == "done"
        Relay.faults = [DriverError("jammed")] * 1000
        async with asyncio.timeout(LIMIT_S):
            await ground.safe_states.end_of_session(ALICE_1.holder)
        assert ground.safe_states.limits["heater"].away
        Relay.faults = []
        await until_async(lambda: not ground.safe_states.limits["heater"].away)
        assert Relay.told[-1][1] == SAFE


async def test_one_that_was_opened_again_is_not_made_safe_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not obey and was lost. Opening it made it safe, and what is commanded after that stays."""
    monkeypatch.setattr(safe_states, "AGAIN_S", 100 * LIMIT_S)
    monkeypatch.setattr(safe_states, "AGAIN_MAX_S", 100 * LIMIT_S)
    async with Ground(tmp_path, FAN) as ground:
        assert await ground.set(ALICE_1, "fan", on=True) == "done"
        Relay.faults = [DriverError("jammed")]
        safe = asyncio.ensure_future(ground.safe_states.make_safe("fan", "session ended"))
        await until_async(lambda: "fan" in ground.safe_states.unreached)
        Fan.broken = True
        await until_async(lambda: not ground.devices["fan"].online)
        Fan.broken = False
        assert await asyncio.wait_for(safe, LIMIT_S)
        assert ground.safe_states.unreached == {}
        assert (await ground.journal.actuations())[-1]["what"] == "safe"
        await until_async(lambda: ground.devices["fan"].online)
        assert await ground.set(ALICE_1, "fan", on=True) == "done"
        assert Relay.told[-1] == ("fan", {"on": True})
        assert ground.safe_states.driven_by(ALICE_1.holder) == ["fan"]


async def test_nothing_moves_one_that_did_not_obey_before_it_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try would undo it: nobody is told `done` of what does not last."""
    monkeypatch.setattr(safe_states, "AGAIN_S", 0.5)
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "up", level=80) == "done"
        Relay.faults = [DriverError("jammed")]
        safe = asyncio.ensure_future(ground.safe_states.make_safe("up", "session ended"))
        await until_async(lambda: "up" in ground.safe_states.unreached)
        refusal = ground.executor.preview(ground.word("up", level=40), ALICE_1)
        assert "does not obey (jammed)" in refusal.error.message
        assert await ground.set(ALICE_1, "up", level=40) == "too_soon"
        assert await ground.set(ALICE_1, "down", level=0) == "done", "another one"
        assert await ground.set(ALICE_1, "up", on=False, level=0) == "done", "what makes it safe"
        assert await asyncio.wait_for(safe, LIMIT_S)
        assert await ground.set(ALICE_1, "up", level=40) == "done"


async def test_a_plan_that_meets_a_fault_ends_safe(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        assert await ground.pulse(ALICE_1, "up") == "done"
        Relay.faults = [ValueError("a bug")]
        await until_async(lambda: not Relay.faults)
        await until_async(lambda: not ground.safe_states.limits["up"].away)
        assert Relay.told[-1][1] == SAFE


async def test_who_drives_after_a_safe_state_is_remembered(tmp_path: Path) -> None:
    """A command that stood in the queue behind a safe state: the end of its session still undoes it."""
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "up", level=80) == "done"
        bus = ground.devices["up"].bus
        with occupied(bus):
            safe = asyncio.ensure_future(ground.safe_states.make_safe("up", "max_on_s"))
            await until_async(lambda: bus.waiting == 2)
            command = asyncio.ensure_future(ground.set(ALICE_1, "up", level=40))
            await until_async(lambda: bus.waiting == 3)
        assert (await safe, await command) == (True, "done")
        assert ground.safe_states.driven_by(ALICE_1.holder) == ["up"]
        await ground.safe_states.end_of_session(ALICE_1.holder)
        assert Relay.told[-1][1] == SAFE
        assert not ground.safe_states.limits["up"].away


async def test_a_doubt_right_after_a_safe_state_is_made_safe_again(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "up", level=80) == "done"
        bus = ground.devices["up"].bus
        with occupied(bus):
            ground.safe_states.spawn_safe("up", "max_on_s")
            await until_async(lambda: bus.waiting == 2)
            command = asyncio.ensure_future(ground.set(ALICE_1, "up", level=40))
            await until_async(lambda: bus.waiting == 3)
            Relay.faults = [None, ValueError("a bug")]
        time.sleep(0.2)  # noqa: ASYNC251 - the loop hears of both at once: it is safe, the command failed
        assert await command == "internal"
        await until_async(lambda: not ground.safe_states.limits["up"].away)
        assert Relay.told[-1][1] == SAFE


async def test_nothing_moves_while_the_configuration_changes(tmp_path: Path) -> None:
    """Its neighbour takes its time to become safe; what is safe already stays so until it is closed."""
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "up", level=80) == "done"
        with occupied(ground.devices["heater"].bus):
            leaving = asyncio.ensure_future(
                ground.safe_states.leave(["up", "heater"], "configuration changed")
            )
            await until_async(lambda: not ground.safe_states.limits["up"].away)
            assert await ground.set(ALICE_1, "up", level=40) == "device_offline"
        await leaving
        assert await ground.set(ALICE_1, "up", level=40) == "device_offline"
        assert Relay.told[-1][1] == SAFE
        for name in ("up", "heater"):
            ground.safe_states.adopt(ground.devices[name])
        assert await ground.set(ALICE_1, "up", level=40) == "done"


async def test_what_was_not_heard_for_too_long_is_not_closed(tmp_path: Path) -> None:
    """A lid whose far end fell silent says `closed` for ever."""
    async with Ground(tmp_path, LID) as ground:
        await until_async(lambda: ground.devices["lid"].latest is not None)
        assert await ground.set(ALICE_1, "drum", on=True) == "done"
        Button.pressed = Flagged(False, Flag.STALE)
        await until_async(lambda: not ground.safe_states.limits["drum"].away)
        refusal = ground.executor.preview(ground.word("drum", on=True), ALICE_1)
        assert refusal.error.message.endswith("it cannot be read now")


@pytest.mark.parametrize("said", [None, Flagged(False, Flag.STALE)])
async def test_a_stop_line_that_cannot_be_believed_stops(tmp_path: Path, said: Flagged | None) -> None:
    async with Ground(tmp_path, STOP) as ground:
        await until_async(lambda: ground.devices["stop"].latest is not None)
        assert await ground.set(ALICE_1, "up", level=80) == "done"
        Button.pressed = said
        await until_async(lambda: not ground.safe_states.limits["up"].away)
        assert Relay.told[-1][1] == SAFE
        assert await ground.set(ALICE_1, "up", level=80) == "not_allowed"
        assert not ground.stop.status()["latched"]
        Button.pressed = False
        await until_async(lambda: "barred" not in ground.stop.status())
        assert await ground.set(ALICE_1, "up", level=80) == "done"


class Broken:
    """A delegation with a fault."""

    name = "expert"
    action = Action("ask", moves=False)

    def check(self) -> None: ...

    async def ask(self, args: object, who: str, id_: str) -> None:
        raise OSError("no process could be begun")


async def test_what_nobody_expected_is_not_called_done(tmp_path: Path) -> None:
    """Neither to who asked, nor to who asks again, nor in the Journal."""
    async with Ground(tmp_path) as ground:
        ground.delegation_actions["expert"] = Broken()
        word = Do(kind="do", id="q1", device="expert", action="ask", args={})
        for repeated in (False, True):
            ack = await ground.executor.execute(word, OWNER, age_ms=0.0)
            assert (ack.state, told(ack)) == ("unknown", "internal")
            assert ack.repeated is repeated
        assert (await ground.journal.actuations())[-1]["result"] == "unknown"


async def test_a_command_that_makes_safe_waits_for_no_disk_and_no_other_command(tmp_path: Path) -> None:
    """One that moves waits for its note in the Journal; the disk hangs."""
    async with Ground(tmp_path) as ground:
        assert await ground.set(ALICE_1, "heater", on=True) == "done"
        disk = threading.Event()
        ground.store.later(lambda: disk.wait(LIMIT_S))
        try:
            moving = asyncio.ensure_future(ground.set(ALICE_1, "heater", level=50))
            await asyncio.sleep(0)
            assert await ground.set(ALICE_1, "heater", on=False) == "done"
            assert Relay.told[-1] == ("relay", {"on": False})
            assert not moving.done()
        finally:
            disk.set()
        assert await moving == "expired"
        assert Relay.told[-1] == ("relay", {"on": False})


async def test_a_command_that_makes_safe_comes_first_on_the_bus(tmp_path: Path) -> None:
    """A command that waits for the bus when it comes moves nothing after it."""
    async with Ground(tmp_path) as ground:
        bus = ground.devices["heater"].bus
        with occupied(bus):
            moving = asyncio.ensure_future(ground.set(ALICE_1, "heater", level=50))
            await until_async(lambda: bus.waiting == 2)
            safe = asyncio.ensure_future(ground.set(ALICE_1, "heater", on=False))
            await until_async(lambda: bus.waiting == 3)
        assert await safe == "done"
        assert await moving == "expired"
        assert [values for _, values in Relay.told if values.get("level")] == []
