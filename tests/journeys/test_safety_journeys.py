"""Actuators under an owner, rivals, a wedged bus and a full disk; the board's record tells what they did."""

import os
import pwd
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli import main
from device_agent.testing.network import NetworkThread
from support.callers import pipe, question, result, stream
from support.deployment import CONFIG, World, send, start_of
from support.waiting import LIMIT_S, until

VALVE, SAFE, ON = 27, 1, 0  # the valve is active low
EXPANDER = """
[devices.relays]
driver = "mcp23017"
bus = "i2c1"
address = 0x20
outputs = ["a0"]
safe = false
"""


@pytest.fixture
def begin(net: NetworkThread, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """A daemon at work, with more configuration before and after the usual one."""
    worlds: list[World] = []

    def make(more: str = "", stop_line: bool = False) -> World:
        text = CONFIG.replace("[safety]\n", '[safety]\nstop_device = "door"\n') if stop_line else CONFIG
        worlds.append(World(tmp_path, net, config=text, more=more))
        worlds[-1].start()
        return worlds[-1]

    yield make
    for world in worlds:
        # In order, so that the network does not send the next test's task to an instance that is gone.
        if world.daemon.process.poll() is None:
            world.daemon.stop()
        world.close()


def control(caller: Any) -> tuple[Any, Any]:
    session = pipe(caller, {"streams": ["control"]})
    heard = stream(session, "control")
    heard.wait("control", about="session")
    return session, heard


def end(session: Any) -> None:
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def valve(world: World) -> int:
    return int(world.board.levels(VALVE)[-1])


def cli(world: World, *words: str) -> int:
    return main([*words, "--config", str(world.config)])


def set_valve(heard: Any, id_: str, on: bool) -> dict[str, Any]:
    return dict(heard.command(kind="set", id=id_, device="valve", values={"on": on}))


def test_two_callers_compete(begin: Callable[..., World], caller: Callable[..., Any]) -> None:
    world = begin()
    first, alice = control(caller("alice"))
    second, bob = control(caller("bob"))
    assert set_valve(alice, "a1", True)["state"] == "done"
    refused = set_valve(bob, "b1", False)
    assert refused["error"]["code"] == "leased"
    assert f"session {first.task_id[:8]}" in refused["error"]["message"]
    assert " s without a command" in refused["error"]["message"]
    assert valve(world) == ON
    end(first)
    until(lambda: valve(world) == SAFE, "the valve back at safe")
    assert set_valve(bob, "b2", True)["state"] == "done"
    end(second)
    until(lambda: world.board.levels(VALVE)[-4:] == [ON, SAFE, ON, SAFE], "each session's own turn")


def test_the_owner_takes_over_and_everybody_sees_it(begin: Callable[..., World], alice: Any) -> None:
    world = begin(more="preempt = true\n")
    session, heard = control(alice)
    assert set_valve(heard, "1", True)["state"] == "done"
    assert cli(world, "set", "valve", "on", "on", "--dry-run") == 0
    before = len(world.board.levels(VALVE))
    assert cli(world, "set", "valve", "on", "on") == 0
    assert world.board.levels(VALVE)[before:] == [SAFE, ON]
    seen = until(
        lambda: (
            [event["values"]["on"] for event in heard.of("reading", device="valve") if event["values"]][-3:]
            == [True, False, True]
        ),
        "the hand-over in the caller's events",
    )
    assert seen
    refused = set_valve(heard, "2", False)
    assert refused["error"]["code"] == "leased"
    assert "the owner" in refused["error"]["message"]
    end(session)
    assert valve(world) == ON


def test_an_emergency_stop_is_ended_on_the_spot_alone(begin: Callable[..., World], alice: Any) -> None:
    world = begin()
    session, heard = control(alice)
    assert set_valve(heard, "1", True)["state"] == "done"
    assert cli(world, "estop") == 0
    assert valve(world) == SAFE
    ack = set_valve(heard, "2", True)
    assert ack["error"]["code"] == "not_allowed"
    assert "emergency stop" in ack["error"]["message"]
    assert cli(world, "set", "valve", "on", "on") == 77
    world.daemon.kill()
    world.start()
    assert world.daemon.ask("status")["emergency_stop"]["latched"]
    assert set_valve(heard, "3", True)["error"]["code"] == "not_allowed"
    assert cli(world, "release") == 0
    assert set_valve(heard, "4", True)["state"] == "done"
    end(session)


def test_a_stop_that_nobody_knows_of_any_more_counts_as_pressed(net: NetworkThread, tmp_path: Path) -> None:
    """With `stop_persists`: at the first start, and when a reboot has taken the state with it."""
    text = CONFIG.replace("[safety]\n", "[safety]\nstop_persists = true\n")
    with World(tmp_path, net, config=text) as world:
        world.start()
        for _ in range(2):
            assert "no record" in world.daemon.ask("status")["emergency_stop"]["who"]
            assert cli(world, "set", "valve", "on", "on") == 77
            assert valve(world) == SAFE
            assert cli(world, "release") == 0
            assert cli(world, "set", "valve", "on", "on") == 0
            world.daemon.stop()
            (tmp_path / "state" / "emergency_stop").unlink()
            world.start()
        world.daemon.stop()


def test_one_event_stops_everything(begin: Callable[..., World], caller: Callable[..., Any]) -> None:
    """From anybody who may drive; nobody far away can end it."""
    world = begin()
    first, alice = control(caller("alice"))
    second, stranger = control(caller("eve"))
    assert set_valve(alice, "1", True)["state"] == "done"
    assert stranger.command(kind="stop", id="s0")["error"]["code"] == "not_allowed"
    assert valve(world) == ON
    third, bob = control(caller("bob"))
    assert bob.command(kind="stop", id="s1")["state"] == "done"
    assert valve(world) == SAFE
    assert set_valve(alice, "2", True)["error"]["code"] == "not_allowed"
    rows = world.daemon.ask("journal")
    (who,) = [row["who"] for row in rows if row["result"] == "latched"]
    assert who.startswith(f"session {third.task_id[:8]} (user user_bob")
    assert cli(world, "release") == 0
    assert set_valve(alice, "3", True)["state"] == "done"
    for session in (first, second, third):
        end(session)


def test_one_request_stops_everything(begin: Callable[..., World], caller: Callable[..., Any]) -> None:
    """As the event does: by who may drive, answered when all is safe, ended on the spot alone."""
    world = begin()
    session, heard = control(caller("alice"))
    assert set_valve(heard, "1", True)["state"] == "done"
    refused = question(caller("eve"), {"op": "stop"})
    assert (refused.terminal["state"], result(refused)["error"]["code"]) == ("failed", "not_allowed")
    assert valve(world) == ON
    asked = question(caller("bob"), {"op": "stop"})
    assert asked.terminal["state"] == "completed"
    assert (result(asked)["op"], result(asked)["ack"]["state"]) == ("stop", "done")
    assert valve(world) == SAFE
    assert set_valve(heard, "2", True)["error"]["code"] == "not_allowed"
    rows = world.daemon.ask("journal")
    (who,) = [row["who"] for row in rows if row["result"] == "latched"]
    assert who.startswith(f"request {asked.task_id[:8]} (user user_bob")
    assert cli(world, "release") == 0
    # Delivered again, it is the task that was, and stops nothing a second time.
    send(world, start_of(world, asked))
    assert set_valve(heard, "3", True)["state"] == "done"
    assert not world.daemon.ask("status")["emergency_stop"]["latched"]
    end(session)


def test_a_line_of_the_board_stops_everything(begin: Callable[..., World], alice: Any) -> None:
    world = begin(stop_line=True)
    session, heard = control(alice)
    assert set_valve(heard, "1", True)["state"] == "done"
    world.board.do("pin", "pins", "17", "high")
    until(lambda: valve(world) == SAFE, "the valve at safe")
    until(lambda: world.daemon.ask("status")["emergency_stop"]["latched"], "the latch")
    assert cli(world, "release") == 77
    world.board.do("pin", "pins", "17", "low")
    until(lambda: world.daemon.device("door")["latest"]["values"]["active"] is False, "the line released")
    assert set_valve(heard, "2", True)["error"]["code"] == "not_allowed"
    assert cli(world, "release") == 0
    assert set_valve(heard, "3", True)["state"] == "done"
    end(session)


def test_a_wedged_bus_delays_no_other_actuator(begin: Callable[..., World], alice: Any) -> None:
    world = begin(more=EXPANDER)
    text = world.config.read_text().replace(
        'devices = ["valve", "door"', 'devices = ["relays", "valve", "door"'
    )
    world.config.write_text(text)
    world.daemon.stop()
    world.start()
    session, heard = control(alice)
    assert heard.command(kind="set", id="1", device="relays", values={"a0": True})["state"] == "done"
    assert set_valve(heard, "2", True)["state"] == "done"
    world.board.do("fault", "i2c1", "stuck")
    session.cancel()
    until(lambda: valve(world) == SAFE, "the valve at safe")
    assert not world.daemon.device("relays").get("at_safe"), "the wedged one is not called safe"
    world.board.do("heal")
    until(lambda: world.daemon.device("relays").get("at_safe"), "the expander at safe after all")
    session.wait_for_terminal(LIMIT_S)


def test_an_actuator_that_is_not_there_is_not_called_safe(begin: Callable[..., World]) -> None:
    world = begin(more=EXPANDER)
    until(lambda: world.daemon.device("relays").get("at_safe"), "the expander at safe")
    world.board.do("fault", "i2c1", "unplug", "--device", "relays")
    until(lambda: world.daemon.device("relays")["state"] != "online", "its absence")
    assert world.daemon.device("relays")["at_safe"] is None
    world.board.do("heal")
    until(lambda: world.daemon.device("relays").get("at_safe"), "the expander at safe")


def test_hold_outlives_the_session_and_not_the_stop(begin: Callable[..., World], alice: Any) -> None:
    world = begin()
    world.config.write_text(
        world.config.read_text().replace("active_low = true", "active_low = true\nhold = true")
    )
    world.daemon.stop()
    world.start()
    session, heard = control(alice)
    assert set_valve(heard, "1", True)["state"] == "done"
    end(session)
    assert world.daemon.ask("journal")[-1]["what"] == "on=True", "no safe state at the session's end"
    assert valve(world) == ON
    assert world.daemon.stop() == 0
    driven = [entry for entry in world.board.record() if entry.get("line") == VALVE]
    assert [(e["level"], e["by"]) for e in driven][-3:-1] == [(ON, "daemon"), (SAFE, "daemon")]


def test_the_owners_safe_and_a_wedged_bus(begin: Callable[..., World], alice: Any) -> None:
    """`safe` reaches what it can at once, says what it could not, and goes on trying."""
    world = begin(more=EXPANDER)
    session, heard = control(alice)
    assert set_valve(heard, "1", True)["state"] == "done"
    assert world.daemon.ask("set", device="relays", values={"a0": True})["state"] == "done"
    world.board.do("fault", "i2c1", "stuck")
    assert cli(world, "safe") == 1
    assert valve(world) == SAFE
    world.board.do("heal")
    until(lambda: world.daemon.device("relays").get("at_safe"), "the expander at safe after all")
    end(session)


def test_an_unknown_outcome_is_danger(begin: Callable[..., World], alice: Any) -> None:
    """The bus hangs in the middle of a command: unknown, told, and safe as soon as it can be."""
    world = begin(more=EXPANDER)
    text = world.config.read_text().replace(
        'devices = ["valve", "door"', 'devices = ["relays", "valve", "door"'
    )
    world.config.write_text(text)
    world.daemon.stop()
    world.start()
    session, heard = control(alice)
    assert heard.command(kind="set", id="1", device="relays", values={"a0": True})["state"] == "done"
    world.board.do("fault", "i2c1", "stuck", "--device", "relays")
    ack = heard.command(kind="set", id="2", device="relays", values={"a0": False})
    assert (ack["state"], ack["error"]["code"]) == ("unknown", "bus_timeout")
    world.board.do("heal")
    until(lambda: world.daemon.device("relays").get("at_safe"), "the expander at safe")
    points = [e for e in world.board.record() if e.get("device") == "relays" and e.get("point") == "a0"]
    assert points[-1]["value"] is False
    # The same id again gets the same answer, and moves nothing.
    seen = len(world.board.record())
    heard.stream.write({"kind": "set", "id": "2", "device": "relays", "values": {"a0": False}})
    again = heard.wait("ack", id="2", repeated=True)
    assert again["state"] == "unknown"
    assert not [entry for entry in world.board.record()[seen:] if "point" in entry]
    end(session)


def test_a_full_disk_stops_no_actuator_and_loses_no_row(begin: Callable[..., World], alice: Any) -> None:
    world = begin()
    session, heard = control(alice)
    pid = world.daemon.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    # No file may grow beyond this, except that the daemon's own log still can for a while.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (world.daemon.log_path.stat().st_size + 60_000, hard))
    count = 0
    while not world.daemon.logged("journal_not_written"):
        assert set_valve(heard, f"c{count}", count % 2 == 0)["state"] == "done"
        count += 1
        assert count < 200, "the disk never was full"
    assert set_valve(heard, "on", True)["state"] == "done"
    assert valve(world) == ON
    end(session)
    until(lambda: valve(world) == SAFE, "the valve at safe")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    assert world.daemon.ask("set", device="valve", values={"on": False})["state"] == "done"
    assert world.daemon.ask("verify")["ok"]
    rows = world.daemon.ask("journal", limit=1000)
    assert len([row for row in rows if row["what"].startswith("on=")]) == count + 2
    assert cli(world, "journal", "--verify") == 0


def test_the_journal_shows_and_proves_itself(
    begin: Callable[..., World], alice: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    world = begin()
    assert cli(world, "set", "valve", "on", "on") == 0
    capsys.readouterr()
    assert cli(world, "journal", "--limit", "5") == 0
    shown = capsys.readouterr().out
    assert f"the owner, on the device (Unix user {pwd.getpwuid(os.getuid()).pw_name})" in shown
    assert "on=True" in shown
    assert cli(world, "journal", "--verify") == 0
    world.daemon.stop()
    assert cli(world, "journal", "--verify", "--json") == 0
    with closing(sqlite3.connect(world.folder / "state" / "journal.db")) as db, db:
        db.execute("UPDATE actuation SET who = 'nobody' WHERE what = 'on=True'")
    assert cli(world, "journal", "--verify") == 1
    assert "was changed by other hands" in capsys.readouterr().err
