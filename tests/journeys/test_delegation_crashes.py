"""Delegations through kills, outages, refusals and a damaged file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.store.files import sealed, unsealed
from device_agent.testing.network import NetworkThread
from device_agent.testing.sessions_api import FakeSessionsApi
from support.callers import pipe, stream
from support.delegations import HOT, KEY, NOTHING, OPEN, ended, heat, one, outcome, told
from support.deployment import World
from support.processes import Daemon
from support.waiting import until


def kill_and_start(world: World) -> Daemon:
    world.daemon.kill()
    return world.start()


def test_killed_between_the_request_and_its_answer_it_asks_once_more_and_no_more(
    start: Callable[..., World], net: NetworkThread, sessions: FakeSessionsApi
) -> None:
    sessions.held = True
    world = start()
    # The session is made, and its answer comes too late for a daemon that dies meanwhile.
    net.call(net.net.add_fault, "lose_ack", "/rest/v1/sessions", method="POST")
    heat(world, HOT)
    until(lambda: sessions.sessions, "a session that nobody knows of")
    kill_and_start(world)
    last = ended(world.daemon, "unknown")
    assert "never known" in last["error"]["message"]
    assert len(sessions.sessions) == 2
    kill_and_start(world)
    assert told(world.daemon)["last"]["state"] == "unknown"
    assert len(sessions.sessions) == 2


def test_killed_while_it_waits_it_finds_the_answer_in_the_same_session(
    start: Callable[..., World], sessions: FakeSessionsApi
) -> None:
    sessions.held = True
    sessions.answers.extend([OPEN, "Fine."])
    world = start()
    heat(world, HOT)
    session = one(sessions)
    until(lambda: told(world.daemon).get("last", {}).get("state") == "asked", "asked")
    for _ in range(2):
        kill_and_start(world)
        assert told(world.daemon)["session"] == session.id
    sessions.release()
    assert "open_valve: done" in outcome(sessions)
    assert len(sessions.sessions) == 1
    done = [one for one in world.daemon.ask("journal") if one["who"] == "delegation too_hot"]
    assert [one["result"] for one in done] == ["done"]


def test_an_answer_that_was_stored_moves_once_whatever_happens_then(
    start: Callable[..., World], sessions: FakeSessionsApi, tmp_path: Path
) -> None:
    sessions.answers.extend([OPEN, "Fine.", "Fine."])
    world = start()
    heat(world, HOT)
    outcome(sessions)
    world.daemon.kill()
    # As if the process had died after the command and before it was noted that it had been carried out.
    path = tmp_path / "state" / "delegations.json"
    book = unsealed(path.read_bytes())
    exchange = book["rules"]["too_hot"]["exchange"]
    exchange |= {"turn": "question", "phase": "answered", "answer": OPEN, "command": "open_valve", "ack": {}}
    path.write_bytes(sealed(book))
    world.start()
    assert "open_valve: done" in outcome(sessions, 3)
    done = [one for one in world.daemon.ask("journal") if one["who"] == "delegation too_hot"]
    assert len(done) == 1


def test_a_damaged_book_is_set_aside(
    start: Callable[..., World], tmp_path: Path, sessions: FakeSessionsApi
) -> None:
    world = start()
    world.daemon.stop()
    (tmp_path / "state" / "delegations.json").write_bytes(b'{"rules": {"too_hot": 3')
    world.start()
    assert world.daemon.logged("delegations_set_aside")
    assert list((tmp_path / "state").glob("delegations.json.damaged-*"))
    heat(world, HOT)
    one(sessions)


def test_an_outage_is_waited_out(
    start: Callable[..., World], net: NetworkThread, sessions: FakeSessionsApi
) -> None:
    sessions.answers.append(NOTHING)
    world = start()
    net.run(net.net.refuse("sessions"))
    heat(world, HOT)
    world.daemon.wait_logged("delegation_waits")
    assert "trouble" in told(world.daemon)
    net.run(net.net.accept("sessions"))
    last = ended(world.daemon, "answered")
    assert last["answer"] == NOTHING
    assert len(sessions.sessions) == 1
    assert "trouble" not in told(world.daemon)


def test_a_limited_key_waits_as_long_as_it_is_told(
    start: Callable[..., World], net: NetworkThread, sessions: FakeSessionsApi
) -> None:
    world = start()
    body = {"code": "RATE_LIMITED", "message": "Too many requests."}
    net.call(net.net.add_fault, "status", "/rest/v1/*", status=429, body=body, count=2)
    sessions.answers.append(NOTHING)
    heat(world, HOT)
    assert ended(world.daemon, "answered")["answer"] == NOTHING
    assert len(sessions.sessions) == 1


def test_no_answer_in_time_is_said(
    start: Callable[..., World], sessions: FakeSessionsApi, alice: Any
) -> None:
    sessions.held = True
    world = start(answer_within_s=10)
    telemetry = stream(pipe(alice, {"streams": ["telemetry"]}), "telemetry")
    telemetry.wait("reading", device="climate")
    heat(world, HOT)
    event = telemetry.wait("control", 60, about="delegation", state="no_answer")
    assert event["error"]["message"] == "no answer within 10 s"
    until(lambda: told(world.daemon)["state"] == "idle", "idle")


def test_a_refused_key_is_said_and_ends_it(start: Callable[..., World], sessions: FakeSessionsApi) -> None:
    sessions.refused_keys.add(KEY)
    try:
        world = start()
        heat(world, HOT)
        last = ended(world.daemon, "failed")
        assert "401" in last["error"]["message"]
    finally:
        sessions.refused_keys.clear()
    assert KEY not in world.daemon.log_path.read_text()


def test_a_key_that_others_may_read_is_not_used_and_the_device_works(
    start: Callable[..., World], tmp_path: Path
) -> None:
    world = start()
    world.daemon.stop()
    (tmp_path / "sessions_key").chmod(0o644)
    daemon = Daemon(world.folder, world.config, {"BLOCKS_API_KEY": "bk_device"})
    try:
        daemon.wait_logged("ready")
        assert "delegation.api_key_file" in daemon.log_path.read_text()
        assert "run chmod 600" in daemon.log_path.read_text()
    finally:
        daemon.end()
