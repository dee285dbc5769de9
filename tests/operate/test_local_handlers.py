"""Who comes by a door on the device has the rights of `local:DOOR`, and the owner's questions are not his."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import Rejected
from device_agent.operate.local_handlers import LocalHandlers
from support.control_side import ALICE, Ground, actor, told

ACCESS = """
[access]
read = ["local:page", "local:mcp"]
drive = ["local:mcp/helper"]
[access.devices.up]
drive = ["local:page"]
[access.devices.heater]
read = ["org:org_a"]
drive = []
"""


def on(device: str, **members: Any) -> dict[str, Any]:
    return {"op": "set", "device": device, "values": {"on": True}, **members}


async def refusal(handlers: LocalHandlers, question: dict[str, Any]) -> str:
    with pytest.raises(Rejected) as refused:
        await handlers.handlers()[question["op"]](question)
    return refused.value.code


async def test_a_door_drives_what_the_rules_let_it(tmp_path: Path) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        ask = LocalHandlers(ground.control).handlers()["set"]
        assert (await ask(on("up", **{"as": "local:page"})))["state"] == "done"
        refused = await ask(on("down", **{"as": "local:page"}))
        assert (refused["state"], refused["error"]["code"]) == ("rejected", "not_allowed")
        # What is hidden from it does not exist for it.
        hidden = await ask(on("heater", **{"as": "local:page"}))
        assert hidden["error"]["code"] == "unknown_device"
        rows = await LocalHandlers(ground.control).handlers()["journal"]({})
        assert [(row["who"], row["device"], row["result"]) for row in rows if row["device"] == "up"] == [
            ("local:page", "up", "done")
        ]


async def test_a_client_of_a_door_is_told_from_the_others(tmp_path: Path) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        ask = LocalHandlers(ground.control).handlers()["set"]
        assert (await ask(on("down", **{"as": "local:mcp/other"})))["error"]["code"] == "not_allowed"
        assert (await ask(on("down", **{"as": "local:mcp/helper"})))["state"] == "done"


async def test_a_lease_of_one_door_holds_against_another_and_the_owner_is_above(tmp_path: Path) -> None:
    access = '[access]\ndrive = ["local:page", "local:mqtt"]\npreempt = true\n'
    async with Ground(tmp_path, access) as ground:
        ask = LocalHandlers(ground.control).handlers()["set"]
        assert (await ask(on("up", **{"as": "local:page"})))["state"] == "done"
        assert (await ask(on("up", **{"as": "local:mqtt"})))["error"]["code"] == "leased"
        assert (await ask(on("up")))["state"] == "done"


async def test_a_dry_run_moves_nothing(tmp_path: Path) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        ask = LocalHandlers(ground.control).handlers()["set"]
        preview = await ask(on("up", dry_run=True, **{"as": "local:page"}))
        assert preview["dry_run"] is True
        assert not ground.safe_states.limits["up"].away


async def test_reading_is_what_the_rules_let_it_read(tmp_path: Path) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        handlers = LocalHandlers(ground.control)
        assert list(handlers.readable({"as": "local:page"})) == ["up", "down"]
        assert list(handlers.readable({"as": "local:mqtt"})) == []
        assert list(handlers.readable({})) == ["up", "down", "heater"]
        for device, door in (("heater", "local:page"), ("up", "local:mqtt")):
            question = {"op": "read", "device": device, "as": door}
            assert await refusal(handlers, question) == "unknown_device"


async def test_the_stop_is_for_whoever_may_drive_anything(tmp_path: Path) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        handlers = LocalHandlers(ground.control)
        stop = handlers.handlers()["stop"]
        assert (await stop({"as": "local:mqtt"}))["error"]["code"] == "not_allowed"
        assert ground.latch.state is None
        assert (await stop({"as": "local:page"}))["state"] == "done"
        assert ground.latch.state is not None
        assert await refusal(handlers, {"op": "release", "as": "local:page"}) == "not_allowed"
        await handlers.handlers()["release"]({})


@pytest.mark.parametrize("op", ["safe", "estop", "release", "verify"])
async def test_what_is_the_owner_s_no_door_may_ask(tmp_path: Path, op: str) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        assert await refusal(LocalHandlers(ground.control), {"op": op, "as": "local:page"}) == "not_allowed"


@pytest.mark.parametrize(
    "door", ["", "local", "local:window", "delegation:night", "user:me", 7, None, "local:mcp/" + "x" * 200]
)
async def test_nobody_is_a_door_by_another_name(tmp_path: Path, door: object) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        assert await refusal(LocalHandlers(ground.control), on("up", **{"as": door})) == "invalid_value"


async def test_a_door_sees_no_caller_s_name_in_the_journal(tmp_path: Path) -> None:
    async with Ground(tmp_path, '[access]\ndrive = "anyone"\n') as ground:
        assert await ground.set(actor(ALICE), "up", on=True) == "done"
        handlers = LocalHandlers(ground.control).handlers()
        assert (await handlers["journal"]({}))[-1]["who"] == "session alice (user alice, organisation org_a)"
        assert (await handlers["journal"]({"as": "local:page"}))[-1]["who"] == "session alice"


async def test_a_time_limit_is_in_the_journal(tmp_path: Path) -> None:
    async with Ground(tmp_path, '[access]\ndrive = "anyone"\n') as ground:
        word = ground.word("up", on=True)
        assert told(await ground.executor.execute(word, actor(ALICE), age_ms=0.0, for_s=30)) == "done"
        assert (await ground.journal.actuations(1))[0]["what"] == "on=True for 30 s"


@pytest.mark.parametrize(
    ("age", "state"),
    [
        ({"age_ms": 100.0}, "done"),
        ({"age_ms": 6000.0}, "expired"),
        ({"at": 0}, "done"),
        ({"at": -6000, "age_ms": 10.0}, "expired"),
        ({"at": 60_000, "age_ms": 6000.0}, "expired"),
        ({"age_ms": -1e9, "ttl_ms": 1000}, "done"),
    ],
)
async def test_a_command_is_as_old_as_the_door_or_its_sender_says(
    tmp_path: Path, age: dict[str, Any], state: str
) -> None:
    """`at` here is from now; a sender's clock that is ahead makes nothing younger than the door knows."""
    async with Ground(tmp_path, ACCESS) as ground:
        now_ms = ground.control.context.clock.now_ms()
        told_age = {name: value + now_ms if name == "at" else value for name, value in age.items()}
        ask = LocalHandlers(ground.control).handlers()["set"]
        ack = await ask(on("up", **told_age, **{"as": "local:page"}))
        assert ack.get("error", {}).get("code", ack["state"]) == state


async def test_an_age_that_is_none_is_refused(tmp_path: Path) -> None:
    async with Ground(tmp_path, ACCESS) as ground:
        for wrong in ({"at": "now"}, {"age_ms": None}, {"at": True}):
            assert await refusal(LocalHandlers(ground.control), on("up", **wrong)) == "invalid_value"
