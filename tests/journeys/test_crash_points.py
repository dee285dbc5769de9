"""`kill -9` between any two steps of the reading path and the command path: what moved, and what is told."""

import random
from pathlib import Path
from typing import Any

import pytest

from support.callers import Listening
from support.outages import SEED, accounted, caught_up
from support.processes import Daemon
from support.waiting import until

# A command takes about 150 steps here, and the readings that go on meanwhile some hundred in the same time.
STEPS_MAX = 400
COMMAND_STEPS = 40


def start_crashing(world: Any) -> Path:
    """A daemon in the place of the one at work; it dies at a step of its work once this file says which."""
    world.daemon.kill()
    file = world.folder / f"step-{len(world.daemons)}"
    crashing = str(Path(__file__).with_name("crashing.py"))
    environment = {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(world.board.socket)}
    daemon = Daemon(world.folder, world.config, environment, python=(crashing, str(file)))
    world.daemons.append(daemon)
    daemon.wait_logged("joined", 60)
    until(lambda: all(d["state"] == "online" for d in daemon.ask("status")["devices"]), "devices online", 60)
    return file


def switched_on(world: Any) -> int:
    """How often the relay was switched on."""
    return sum(
        1 for e in world.board.record() if e.get("line") == 27 and (e["level"], e["by"]) == (0, "daemon")
    )


def a_death(world: Any, heard: Listening, id_: str, step: str) -> str:
    """One command, one death on its way; what the caller is told in the end."""
    file = start_crashing(world)
    seen = max(event["seq"] for event in heard.events)
    until(lambda: max(e["seq"] for e in heard.events) > seen + 3, "it works", 60)
    before = switched_on(world)
    # In one step, for it is read as soon as it is there.
    file.with_suffix(".new").write_text(step)
    file.with_suffix(".new").replace(file)
    heard.stream.write(
        {"kind": "set", "id": id_, "device": "valve", "values": {"on": True}, "ttl_ms": 120_000}
    )
    world.daemon.process.wait(60)
    assert world.daemon.process.returncode == -9
    world.start()
    ack = heard.wait("ack", 60, id=id_)
    moved = switched_on(world) - before
    assert moved <= 1, f"step {step}: one command switched the relay {moved} times"
    if ack["state"] == "done":
        assert moved == 1, f"step {step}: done, and nothing moved"
    elif ack["state"] == "rejected":
        # It had not begun, came again, and the device was not open yet.
        assert (moved, ack["error"]["code"]) == (0, "device_offline"), ack
    else:
        assert ack["state"] == "unknown", ack
    # It is safe after a restart, whatever became of it, unless it was carried out just now.
    states = {one["state"] for one in heard.of("ack", id=id_)}
    assert len(states) == 1, f"step {step}: two answers to one command: {states}"
    off = heard.command(kind="set", id=f"{id_}-off", device="valve", values={"on": False}, ttl_ms=60_000)
    assert off["state"] == "done", off
    return f"{file.with_suffix('.at').read_text()}: {ack['state']}"


def deaths(world: Any, heard: Listening, rng: random.Random, rounds: int) -> None:
    told = []
    for n in range(rounds):
        # Every other one in the middle of the command.
        step = (
            f"{rng.randrange(1, COMMAND_STEPS)} commands/executor.py"
            if n % 2
            else f"{rng.randrange(1, STEPS_MAX)}"
        )
        told.append((step, a_death(world, heard, f"c{n}", step)))
    print(*told, sep="\n")
    caught_up(world, heard)
    accounted(heard)


def test_a_death_at_any_step_moves_nothing_twice_and_loses_nothing(outage: Any, heard: Listening) -> None:
    print(f"seed {SEED} (repeat with DEVICE_AGENT_SEED={SEED})")
    deaths(outage, heard, random.Random(SEED), rounds=4)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(20))
def test_deaths_at_many_steps(outage: Any, heard: Listening, turn: int) -> None:
    print(f"seed {SEED + turn}")
    deaths(outage, heard, random.Random(SEED + turn), rounds=20)
