"""Bad networks and killed processes: a caller that stays gets every event once, in order, none missing."""

import json
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import Listening, pipe, stream
from support.deployment import AGENT, World
from support.outages import SEED, TRANSIENT, accept, accounted, caught_up, fault, outbox_grows, refuse
from support.waiting import LIMIT_S, until


def test_a_refused_link_loses_nothing(outage: Any, heard: Listening) -> None:
    refuse(outage)
    began_s = time.monotonic()
    # What waited for more than 5 s is late.
    until(lambda: time.monotonic() - began_s > 7, "seven seconds")
    assert outage.daemon.ask("status")["outbox"]["events"] > 100
    accept(outage)
    caught_up(outage, heard)
    accounted(heard)
    assert heard.of("reading", late=True)
    assert not heard.of("gap")


def test_a_thin_link_is_not_blocked_by_what_waited(outage: Any, heard: Listening) -> None:
    """Some 30 kB wait: what is measured now comes at once, the rest bit by bit."""
    refuse(outage)
    until(lambda: outage.daemon.ask("status")["outbox"]["events"] > 240, "30 kB wait", 60)
    heard.stream.write({"kind": "rate", "every_s": 1})
    outage.net.call(outage.net.net.set_upload, 5_000, outage.link)
    accept(outage)
    until(lambda: heard.of("reading", late=True), "some of it")
    until(lambda: outage.daemon.ask("status")["outbox"]["events"] < 10, "the rest", 60)
    outage.net.call(outage.net.net.set_upload, 0, outage.link)
    caught_up(outage, heard)
    accounted(heard)
    late = [bool(event.get("late")) for event in heard.events]
    assert not all(late[late.index(True) : len(late) - late[::-1].index(True)]), "live ones in between"


def test_commands_are_answered_on_a_link_that_takes_less_than_is_measured(
    outage: Any, heard: Listening
) -> None:
    """Some 8 kB a second: the backlog grows for ever, and no answer may join it."""
    outage.net.call(outage.net.net.set_upload, 3_000, outage.link)
    until(lambda: heard.of("reading", late=True), "late readings", 60)
    for number in range(3):
        ack = heard.command(id=f"c{number}", kind="set", device="valve", values={"on": True}, ttl_ms=60_000)
        assert (ack["state"], ack.get("late")) == ("done", None), ack
    assert outage.daemon.ask("status")["outbox"]["events"] > 100
    outage.net.call(outage.net.net.set_upload, 0, outage.link)
    caught_up(outage, heard)
    accounted(heard)


def test_a_slow_link_is_no_lost_one(outage: Any, heard: Listening) -> None:
    """Each round trip takes more than a third of `link_loss_grace_s`, in which a way is to be proven."""
    heard.stream.write({"kind": "rate", "every_s": 5})
    fault(outage, "delay", delay_s=0.7)
    # The first proofs may have too little time, as the link was fast before.
    for number in range(12):
        ack = heard.command(id=f"c{number}", kind="set", device="valve", values={"on": True}, ttl_ms=60_000)
        assert ack["state"] == "done", ack
    assert outage.daemon.ask("status")["link"]["losses"] <= 4
    outage.net.call(outage.net.net.heal)
    heard.stream.write({"kind": "rate", "every_s": 0.05})
    caught_up(outage, heard)
    accounted(heard)


def test_a_silent_link_loses_nothing(outage: Any, heard: Listening) -> None:
    fault(outage, "blackhole")
    until(lambda: outage.daemon.ask("status")["outbox"]["events"] > 130, "a backlog of more than 5 s")
    outage.net.call(outage.net.net.heal)
    caught_up(outage, heard)
    accounted(heard)


def test_a_killed_process_goes_on_with_its_session(outage: Any, heard: Listening) -> None:
    refuse(outage)
    until(lambda: outage.daemon.ask("status")["outbox"]["events"] > 40, "a backlog")
    outage.daemon.kill()
    accept(outage)
    outage.start()
    caught_up(outage, heard)
    accounted(heard)


def test_an_orderly_stop_is_no_power_cut(outage: Any, heard: Listening) -> None:
    """Its numbers go on, whether the link is there or not, and nothing is said to be lost."""
    for link_is_there in (True, False, True, False):
        if not link_is_there:
            refuse(outage)
            until(lambda: outage.daemon.ask("status")["outbox"]["events"] > 20, "a backlog")
        assert outage.daemon.stop() == 0
        accept(outage)
        outage.start()
        caught_up(outage, heard)
    accounted(heard)
    assert heard.of("gap") == []


def test_commands_that_waited_out_an_outage_never_fire(outage: Any, heard: Listening) -> None:
    refuse(outage)
    heard.stream.write(
        {"kind": "set", "id": "late", "device": "valve", "values": {"on": True}, "ttl_ms": 1000}
    )
    sent_s = time.monotonic()
    until(lambda: time.monotonic() - sent_s > 3, "longer than the command lives")
    accept(outage)
    ack = heard.wait("ack", id="late")
    assert (ack["state"], ack["error"]["code"]) == ("rejected", "expired")
    assert 0 not in outage.board.levels(27)


def test_a_request_that_waited_out_an_outage_moves_nothing(outage: Any, heard: Listening, alice: Any) -> None:
    refuse(outage)
    body = json.dumps({"op": "set", "device": "valve", "values": {"on": True}})
    part = {"partId": "request", "contentType": "application/json", "text": body}
    session = alice.send_message(agent_name=AGENT, request_parts=[part])
    asked_s = time.monotonic()
    until(lambda: time.monotonic() - asked_s > 6, "longer than a command lives")
    accept(outage)
    assert "expired" in session.wait_for_terminal(LIMIT_S)["error"]
    assert 0 not in outage.board.levels(27)


def test_the_owner_drives_without_a_link(outage: Any, heard: Listening) -> None:
    """What a session's grace ends is what that session drove."""
    refuse(outage)
    until(lambda: not outage.daemon.ask("status")["link"]["up"], "the loss")
    silent_s = time.monotonic()
    assert outage.daemon.ask("set", device="valve", values={"on": True})["state"] == "done"
    until(lambda: time.monotonic() - silent_s > 3, "twice the grace of the stream")
    assert outage.board.levels(27)[-1] == 0
    accept(outage)


def test_a_locked_outbox_delays_no_command(outage: Any, heard: Listening) -> None:
    """A command is in the Journal before it moves, and waits there for no other file."""
    refuse(outage)
    until(lambda: outage.daemon.ask("status")["outbox"]["events"] > 20, "a backlog")
    path, done = outage.folder / "state" / "outbox.db", 0
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        while not outage.daemon.ask("status")["outbox"]["trouble"]:  # after 5 s
            assert outage.daemon.ask("set", device="valve", values={"on": True})["state"] == "done"
            done += 1
        other.execute("ROLLBACK")
    assert done > 3
    accept(outage)
    caught_up(outage, heard)
    accounted(heard)


@pytest.mark.parametrize("kind", ["blackhole", "status"])
@pytest.mark.parametrize("path", ["*", "*/subscribe/*stream.*", "*/publish/*stream.*"])
def test_a_relay_is_safe_soon_after_its_way_dies_or_is_refused_in_one_direction(
    outage: Any, heard: Listening, kind: str, path: str
) -> None:
    assert heard.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
    fault(outage, kind, path=path)
    until(lambda: outage.board.levels(27)[-1] == 1, "the relay at its safe level")
    until(lambda: not outage.daemon.ask("status")["link"]["up"], "status says so")
    outage.net.call(outage.net.net.heal)
    until(lambda: outage.daemon.ask("status")["link"]["up"], "status says that it works again")
    ack = heard.command(kind="set", id="again", device="valve", values={"on": True})
    assert ack["state"] == "done", ack


def test_a_quiet_stream_proves_that_it_works_without_a_word_to_its_caller(
    outage: Any, heard: Listening
) -> None:
    heard.stream.write({"kind": "select", "id": "quiet", "devices": ["valve"]})
    assert heard.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
    ways = ["*/publish/*stream.*", "*/subscribe/*stream.*"]
    seen = [fault(outage, "delay", path=path) for path in ways]
    for rule in seen:
        until(lambda rule=rule: outage.net.call(lambda: rule.hits) > 3, f"proofs: {rule.path}")
    assert outage.daemon.ask("status")["link"]["up"]
    outage.net.call(outage.net.net.heal)
    heard.command(kind="select", id="all", devices=["climate"])
    heard.wait("reading", device="climate")
    accounted(heard)
    assert {type(event) for event in heard.events} == {dict}


def test_a_token_that_is_refused_by_mistake_is_not_given_up(outage: Any, heard: Listening) -> None:
    """The stream's token and the task's own, which alone may renew it, are both refused once."""
    setup = fault(outage, "status", path="*/publish/*setup*", count=1, status=403)
    fault(outage, "status", path="*/publish/*stream*", count=1, status=403)
    until(lambda: outage.net.call(lambda: setup.hits) == 1, "the refused renewal")
    seen = max(event["seq"] for event in heard.events)
    until(lambda: max(event["seq"] for event in heard.events) > seen + 5, "readings after it")
    caught_up(outage, heard)
    accounted(heard)


def test_bytes_that_a_device_had_do_not_come_again(outage: Any, alice: Any) -> None:
    """Nothing tells one chunk from its repetition: what the network still holds goes to no machine twice."""
    session = pipe(alice, {"streams": ["console"]})
    console = stream(session, "console")
    until(lambda: outage.daemon.device("console")["state"] == "online", "the console")
    console.stream.write(b"G1\n")
    until(lambda: "G1" in outage.board.do("sent", "terminal"), "the first bytes at the machine")
    outage.daemon.kill()
    outage.start()

    def goes_on() -> bool:
        console.stream.write(b"G2\n")
        return "G2" in outage.board.do("sent", "terminal")

    until(goes_on, "bytes at the machine again")
    assert outage.board.do("sent", "terminal").count("G1") == 1
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def a_random_hour(world: Any, heard: Listening, rng: random.Random, rounds: int) -> None:
    """Faults of all kinds one after the other, with kills of the process in between."""
    for _ in range(rounds):
        seen = max(event["seq"] for event in heard.events)
        match rng.choice(["refuse", "blackhole", "kill", "faults", "faults", "403"]):
            case "refuse":
                refuse(world)
                outbox_grows(world, rng.randrange(5, 60))
                accept(world)
            case "blackhole":
                rule = fault(world, "blackhole")
                outbox_grows(world, rng.randrange(5, 60))
                world.net.call(world.net.net.heal, rule.fault_id)
            case "kill":
                world.daemon.kill()
                world.start()
            case "faults":
                for _ in range(rng.randrange(1, 6)):
                    path = rng.choice(["*/publish/*stream*", "*/publish/*", "*/subscribe/*", "*"])
                    kind, delay_s = rng.choice(TRANSIENT), rng.uniform(0.1, 3.0)
                    status = rng.choice([403, 429, 500, 502, 503])
                    fault(world, kind, path=path, count=rng.randrange(1, 4), delay_s=delay_s, status=status)
            case "403":
                world.net.call(world.net.net.revoke_tokens, "stream_provider")
        until(lambda seen=seen: max(e["seq"] for e in heard.events) > seen + 5, "something new", 90)
    world.net.call(world.net.net.heal)
    caught_up(world, heard)
    accounted(heard)


def test_random_faults_and_kills(outage: Any, heard: Listening) -> None:
    print(f"seed {SEED} (repeat with DEVICE_AGENT_SEED={SEED})")
    a_random_hour(outage, heard, random.Random(SEED), rounds=5)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(60))
def test_many_random_faults_and_kills(outage: Any, heard: Listening, turn: int) -> None:
    print(f"seed {SEED + turn}")
    a_random_hour(outage, heard, random.Random(SEED + turn), rounds=25)


def test_no_network_at_start_is_no_reason_to_end(
    new_world: Callable[..., World], net: NetworkThread, alice: Any
) -> None:
    net.run(net.net.open_link("not-there-yet"))
    net.run(net.net.refuse("not-there-yet"))
    world = new_world(link="not-there-yet")
    daemon = world.start(joined=False)
    daemon.wait_logged("ready")
    until(lambda: daemon.device("climate")["state"] == "online", "sampling without a network")
    net.run(net.net.accept("not-there-yet"))
    daemon.wait_logged("joined")
