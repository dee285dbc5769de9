"""What is known to go wrong with provider runtimes on this network, done to ours: `README.md` has the list.

Each test belongs to one or two rows there that no other journey covers.
"""

import contextlib
import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from device_agent.clock import SystemClock
from device_agent.errors import Refused, Unreachable
from device_agent.network.blocks.stream_channel import writer_uuid
from device_agent.network.connectivity import REFUSED_MAX_S, UNREACHABLE_MAX_S, Connectivity, NetworkBackoff
from support.callers import Listening, pipe, question, result, stream
from support.deployment import AGENT
from support.outages import accept, accounted, caught_up, fault, refuse
from support.waiting import LIMIT_S, until

CONTROL = "/v2/subscribe/*.control/*"


def instance(world: Any) -> str:
    return str(world.daemon.ask("status")["instance"])


def presence(world: Any) -> list[str]:
    """The live instances as the network sees them."""
    net = world.net.net
    return world.net.call(  # type: ignore[no-any-return]
        lambda: [one.uuid for one in net.wire.presence["playground"].live(net.agent(AGENT).control_channel)]
    )


def requests(world: Any, path: str, status: int | None = None) -> int:
    found = world.net.call(world.net.net.requests, path)
    return sum(1 for one in found if status in (None, one.status))


def answers(world: Any, alice: Any) -> None:
    """The agent takes tasks and answers them."""
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"


def of_task(world: Any, task_id: str, type_: str) -> list[dict[str, Any]]:
    """What was published on a task's channel by the agent itself."""
    net = world.net.net
    records = world.net.call(net.publishes, net.task(task_id).channel)
    return [r.body for r in records if r.body.get("type") == type_ and r.uuid.startswith("AG-")]


# -- joining and staying joined ------------------------------------------------------------------------------


def test_a_key_revoked_at_work_ends_no_process_and_a_reload_asks_again(outage: Any, alice: Any) -> None:
    net = outage.net.net
    outage.net.call(net.revoke_api_key, "bk_device")
    try:
        outage.net.call(net.revoke_tokens, "control")
        outage.daemon.wait_logged("not_allowed")
        link = outage.daemon.ask("status")["link"]
        assert not link["joined"]
        assert link["state"] == "revoked"
        assert "API_KEY_INVALID" in link["trouble"] or "connect" in link["trouble"]
        assert outage.daemon.device("climate")["state"] == "online"
        before = requests(outage, "/api/v1/auth/agent/connect")
        until(
            lambda: requests(outage, "*/heartbeat", 403) > 1 or requests(outage, CONTROL, 403) > 2, "knocks"
        )
        assert requests(outage, "/api/v1/auth/agent/connect") == before, "a login loop"
    finally:
        outage.net.call(net.restore_api_key, "bk_device")
    outage.daemon.process.send_signal(1)  # SIGHUP
    until(lambda: outage.daemon.ask("status")["link"]["joined"], "joined again")
    answers(outage, alice)


def test_a_control_token_is_renewed_before_it_ends_however_busy_the_agent_is(
    outage: Any, heard: Listening
) -> None:
    net = outage.net.net
    outage.net.call(net.set_token_ttl, "control", 63)
    try:
        outage.net.call(net.revoke_tokens, "control")  # the next one lives for 63 s and is replaced after 3
        # Several requests may have been under way with the revoked one: a refusal that came while a token was
        # asked for has the next one asked for at once. The third in a row is of nobody's refusal.
        until(lambda: ["token_renewed"] * 3 in _in_threes(outage), "a renewal that no refusal asked for", 60)
        heard.wait("reading", device="climate")
    finally:
        outage.net.call(net.set_token_ttl, "control", 3600)


def _in_threes(world: Any) -> list[list[str]]:
    """Refusals and renewals of the token, each with the two after it."""
    of_token = ("token_refused", "token_renewed")
    told = [entry["event"] for entry in world.daemon.events() if entry["event"] in of_token]
    return [told[at : at + 3] for at in range(len(told))]


@pytest.mark.parametrize("path", ["*/heartbeat", "*/data"])
def test_refused_presence_disturbs_nothing_else(outage: Any, heard: Listening, alice: Any, path: str) -> None:
    rule = fault(outage, "status", path=path, status=403, body={"status": 403, "message": "Forbidden"})
    session = pipe(alice, {"streams": ["console"]})  # another state of presence to tell
    until(lambda: rule.hits >= 1, "a refusal", 30)
    outage.net.call(outage.net.net.heal)
    session.cancel()
    session.wait_for_terminal(LIMIT_S)
    answers(outage, alice)
    caught_up(outage, heard)
    accounted(heard)


def test_a_deaf_agent_notices_and_does_not_look_present(outage: Any, alice: Any) -> None:
    until(lambda: instance(outage) in presence(outage), "present")
    fault(outage, "blackhole", path="/v2/subscribe/*")
    outage.daemon.wait_logged("control_channel_lost", 60)
    until(lambda: instance(outage) not in presence(outage), "no longer present", 60)
    assert outage.daemon.ask("status")["link"]["joined"]
    outage.net.call(outage.net.net.heal)
    until(lambda: instance(outage) in presence(outage), "present again", 30)
    answers(outage, alice)


def test_no_wait_is_longer_than_promised_and_all_are_spread() -> None:
    link = Connectivity(SystemClock())
    for error, most_s in ((Unreachable("x"), UNREACHABLE_MAX_S), (Refused("x", 503), REFUSED_MAX_S)):
        firsts, lasts = [], []
        for seed in range(200):
            backoff = NetworkBackoff(link, random.Random(seed))
            waits = [backoff.delay_s(error) for _ in range(30)]
            assert max(waits) <= most_s
            firsts.append(waits[0])
            lasts.append(waits[-1])
        for some in (firsts, lasts):
            assert max(some) > 3 * min(some), "devices behind one router would come back at once"
    assert (UNREACHABLE_MAX_S, REFUSED_MAX_S) == (5.0, 60.0)


def test_changes_of_presence_leave_the_subscription_alone(outage: Any, alice: Any) -> None:
    answers(outage, alice)
    told, polled = requests(outage, "*/data"), requests(outage, CONTROL)
    for _ in range(3):
        answers(outage, alice)
    until(lambda: requests(outage, "*/data") > told, "changes told")
    # A poll that brought a task is followed by the next; nothing else begins one.
    assert requests(outage, CONTROL) - polled <= 3 * 2 + 2
    mine = instance(outage)
    held = outage.net.call(
        lambda: sum(1 for poll in outage.net.net.wire.hubs["playground"].polls if poll.uuid == mine)
    )
    assert held <= 1


def test_a_task_sent_during_a_restart_is_carried_out_after_it(outage: Any, alice: Any) -> None:
    answers(outage, alice)
    outage.daemon.kill()
    part = {
        "partId": "request",
        "contentType": "application/json",
        # Not `read`: it may be asked before a device has been opened.
        "text": '{"op":"describe"}',
    }
    session = alice.send_message(agent_name=AGENT, request_parts=[part])
    outage.start()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"


# -- tasks ---------------------------------------------------------------------------------------------------


def test_the_end_of_a_task_outlives_an_outage_and_comes_once(
    outage: Any, heard: Listening, alice: Any
) -> None:
    session = pipe(alice, {"streams": ["console"]}, duration=30)
    stream(session, "console")
    fault(outage, "status", path="/publish/*/u.*", status=503, count=4)
    fault(outage, "lose_ack", path="/publish/*/u.*", count=1)
    session.cancel()
    assert session.wait_for_terminal(60)["state"] == "canceled"
    until(lambda: of_task(outage, session.task_id, "terminal"), "our own terminal", 60)
    bodies = of_task(outage, session.task_id, "terminal")
    assert all(body == bodies[0] for body in bodies), "a repeated terminal is the same one"


def test_a_cancel_does_not_wait_for_presence(outage: Any, alice: Any) -> None:
    session = pipe(alice, {"streams": ["console"]})
    stream(session, "console")
    fault(outage, "blackhole", path="*/data")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)
    assert of_task(outage, session.task_id, "terminal"), "the agent's own end, not the network's"
    outage.net.call(outage.net.net.heal)


def test_a_session_ends_by_itself_when_no_message_says_so(outage: Any, alice: Any) -> None:
    settings = outage.net.net.settings
    minute_s, settings.minute_s = settings.minute_s, 6.0
    try:
        session = pipe(alice, {"streams": ["control"]}, duration=1)
        control = stream(session, "control")
        assert control.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
        fault(outage, "blackhole", path=CONTROL)
        terminal = session.wait_for_terminal(60)
        assert (terminal["state"], terminal["completionReason"]) == ("completed", "duration_expired")
        until(lambda: of_task(outage, session.task_id, "terminal"), "our own terminal")
        until(lambda: outage.board.levels(27)[-1] == 1, "the relay at its safe level")
    finally:
        settings.minute_s = minute_s


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "lost"])
def test_a_cancel_missed_while_down_is_honoured(outage: Any, alice: Any, cached: bool) -> None:
    session = pipe(alice, {"streams": ["control"]}, duration=30)
    control = stream(session, "control")
    assert control.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
    outage.daemon.kill()
    session.cancel()
    if not cached:
        # More than the network keeps for a reader: the message itself is gone.
        for n in range(120):
            outage.net.call(
                lambda n=n: outage.net.net.send_control(
                    AGENT, {"type": "Nothing", "n": n}, {"instance": "other"}
                )
            )
    outage.start()
    until(lambda: not outage.daemon.ask("status")["sessions"], "no session left")
    assert outage.board.levels(27)[-1] == 1
    assert outage.daemon.logged("task_ended_meanwhile") or cached


def test_an_orderly_stop_is_a_pause(outage: Any, heard: Listening) -> None:
    assert heard.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
    assert outage.daemon.stop() == 0
    # What a board without power or driver does afterwards is up to its resistor.
    assert [e["level"] for e in outage.board.record() if e.get("line") == 27 and e["by"] == "daemon"][-1] == 1
    outage.start()
    caught_up(outage, heard)
    accounted(heard)


def test_what_a_session_asked_for_holds_over_a_restart(outage: Any, heard: Listening) -> None:
    for word in (
        {"kind": "select", "devices": ["climate"]},
        {"kind": "rate", "device": "climate", "every_s": 0.4},
        {"kind": "rate", "device": "climate", "on_change": False},
    ):
        seen = len(heard.of("control", about=word["kind"]))
        heard.stream.write(word)
        until(lambda w=word, n=seen: len(heard.of("control", about=w["kind"])) > n, f"an answer to {word}")
    outage.daemon.kill()
    refuse(outage)
    outage.start(joined=False)
    until(lambda: _has_session(outage), "a daemon with its session")
    until(lambda: outage.daemon.ask("status")["outbox"]["events"] > 8, "readings without a network")
    accept(outage)
    caught_up(outage, heard)
    accounted(heard)
    newest = [event for event in heard.of("reading") if not event.get("late")][-15:]
    assert {event["device"] for event in newest} == {"climate"}
    assert min(b["at"] - a["at"] for a, b in itertools.pairwise(newest)) > 250


def _has_session(world: Any) -> bool:
    with contextlib.suppress(OSError):
        return bool(world.daemon.ask("status")["sessions"])
    return False


def test_a_hung_driver_holds_no_task(outage: Any, alice: Any) -> None:
    outage.board.do("fault", "i2c1", "stuck")
    part = {
        "partId": "request",
        "contentType": "application/json",
        "text": '{"op":"read","devices":["climate"]}',
    }
    session = alice.send_message(agent_name=AGENT, request_parts=[part])
    session.cancel()
    assert session.wait_for_terminal(LIMIT_S)["state"] in ("canceled", "failed")
    until(lambda: outage.daemon.ask("status")["requests"] == 0, "no request left")
    answers(outage, alice)
    outage.board.do("heal")


# -- streams -------------------------------------------------------------------------------------------------


def test_a_setup_that_fails_is_tried_again(outage: Any, alice: Any) -> None:
    fault(outage, "status", path="/publish/*/setup.*", status=503, count=2)
    fault(outage, "lose_ack", path="/publish/*/setup.*", count=1)
    session = pipe(alice, {"streams": ["control"]}, duration=30)
    control = stream(session, "control")
    assert control.command(kind="set", id="on", device="valve", values={"on": True})["state"] == "done"
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_the_inbound_side_is_deaf_for_no_longer_than_the_link(outage: Any, alice: Any) -> None:
    # Few readings: the network keeps the last 100 messages of a channel, ours and the caller's together.
    session = pipe(alice, {"streams": ["control"], "every_s": 20}, duration=30)
    control = stream(session, "control")
    control.wait("reading", device="climate")
    fault(outage, "reset", path="/v2/subscribe/*stream*", count=8)
    outage.net.call(outage.net.net.revoke_tokens, "stream_provider")
    control.stream.write(
        {"kind": "set", "id": "after", "device": "valve", "values": {"on": True}, "ttl_ms": 60_000}
    )
    # Eight waits in a row, of up to 0.5, 1, 2, 4 and then 5 s, come to 27.5 s at most.
    ack = control.wait("ack", 60, id="after")
    assert ack["state"] == "done", ack
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_the_readers_iteration_ends_though_the_end_marker_is_lost(outage: Any, alice: Any) -> None:
    session = pipe(alice, {"streams": ["control"]}, duration=30)
    control = stream(session, "control")
    control.wait("reading", device="climate")
    # From here on nothing goes out on the stream, the marker neither.
    fault(outage, "status", path="/publish/*/stream.*", status=503)
    session.cancel()
    session.wait_for_terminal(60)
    control._thread.join(60)
    assert not control._thread.is_alive()


def test_sessions_cost_no_thread(outage: Any, heard: Listening, alice: Any) -> None:
    tasks = Path(f"/proc/{outage.daemon.process.pid}/task")
    before = len(list(tasks.iterdir()))
    sessions = [pipe(alice, {"streams": ["control"]}) for _ in range(4)]
    for session in sessions:
        stream(session, "control").wait("reading", device="climate")
    assert len(list(tasks.iterdir())) <= before
    for session in sessions:
        session.cancel()
        session.wait_for_terminal(LIMIT_S)


def test_a_shared_stream_goes_on_with_its_numbers_after_a_restart(outage: Any, caller: Any) -> None:
    first = pipe(caller("alice"), {"streams": ["telemetry"]}, duration=30)
    telemetry = stream(first, "telemetry")
    telemetry.wait("reading", device="climate")
    outage.daemon.kill()
    outage.start()
    last = max(event["seq"] for event in telemetry.events)
    until(lambda: max(event["seq"] for event in telemetry.events) > last + 10, "the reader hears more")
    accounted(telemetry)
    second = pipe(caller("bob"), {"streams": ["telemetry"]}, duration=30)
    other = stream(second, "telemetry")
    other.wait("reading", device="climate")
    # The network's cache is part of what a new reader hears: the same numbers are the same events.
    known = {event["seq"]: event for event in telemetry.events}
    for event in list(other.events):
        assert known.get(event["seq"], event) == event
    until(lambda: max(e["seq"] for e in other.events) > last + 20, "the second reader hears what is new")
    for session in (first, second):
        session.terminate()
        session.wait_for_terminal(LIMIT_S)


def test_writers_are_told_apart_by_instance_and_known_again_after_a_restart() -> None:
    one, again, other = (writer_uuid(AGENT, i, "telemetry") for i in ("AG-x-1", "AG-x-1", "AG-x-2"))
    assert one == again != other
    assert one.startswith(f"{AGENT}-stream-")


def test_an_agent_that_is_offline_says_so(outage: Any) -> None:
    refuse(outage)
    until(lambda: not outage.daemon.ask("status")["link"]["up"], "a link that is down")
    losses = outage.daemon.ask("status")["link"]["losses"]
    accept(outage)
    until(lambda: outage.daemon.ask("status")["link"]["up"], "a link that is up")
    assert losses >= 1


def test_a_stray_403_while_a_token_is_renewed_mutes_no_stream(outage: Any, heard: Listening) -> None:
    """The task's own token is refused once, by a proxy or a service that stumbles; no other one serves."""
    rule = fault(outage, "status", path="*/publish/*setup*", status=403, count=1)
    outage.net.call(outage.net.net.revoke_tokens, "stream_provider")
    until(lambda: rule.hits, "the refusal")
    seen = max(event["seq"] for event in heard.events)
    until(lambda: max(event["seq"] for event in heard.events) > seen + 20, "readings go on")
    caught_up(outage, heard)
    accounted(heard)
