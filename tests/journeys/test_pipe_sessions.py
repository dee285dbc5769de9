"""The main job: an unmodified official caller reads sensors and drives actuators in pipe sessions."""

from collections.abc import Callable
from typing import Any

import pytest

from support.callers import pipe, stream
from support.deployment import World
from support.waiting import LIMIT_S, until


def test_readings_of_gpio_i2c_and_serial_are_typed(world: World, alice: Any) -> None:
    session = pipe(alice)
    telemetry = stream(session, "telemetry")
    about = telemetry.wait("control", about="session")
    assert about["devices"] == ["climate", "door", "scale"]
    assert set(about["streams"]) == {"telemetry", "control", "orders", "console"}
    first = telemetry.wait("reading", device="climate")
    assert set(first) == {"kind", "device", "at", "seq", "boot", "values"}
    assert set(first["values"]) == {"temperature", "pressure", "humidity"}
    assert telemetry.wait("reading", device="door")["values"]["active"] is False
    world.board.do("chip", "climate", "temperature=30.5")
    until(
        lambda: [
            e
            for e in telemetry.of("reading", device="climate")
            if abs(e["values"]["temperature"] - 30.5) < 0.1
        ],
        "the new temperature",
    )
    world.board.do("feed", "meter", "\\nW  12.5 g\\n")
    until(
        lambda: telemetry.of("reading", device="scale", values={"weight": 12.5, "setpoint": 0}), "the weight"
    )
    world.board.do("pin", "pins", "17", "high")
    until(lambda: [e for e in telemetry.of("reading", device="door") if e["values"]["active"]], "the edge")
    world.board.do("pin", "pins", "17", "low")
    seqs = [event["seq"] for event in telemetry.events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    session.cancel()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"


def test_relay_is_driven_and_verified(world: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    control.wait("control", about="session")
    ack = control.command(kind="set", id="one", device="valve", values={"on": True})
    assert (ack["state"], ack["verified"], ack["applied"]) == ("done", True, {"on": True})
    # The relay is active low.
    assert world.board.levels(27)[-1] == 0
    again = control.command(kind="set", id="one", device="valve", values={"on": False})
    until(lambda: control.of("ack", id="one", repeated=True), "the repeated ack")
    assert again["state"] == "done"
    assert world.board.levels(27)[-1] == 0
    control.wait("reading", device="valve", values={"on": True})
    setpoint = control.command(kind="set", id="sp", device="scale", values={"setpoint": 250})
    assert setpoint["state"] == "done"
    assert "SP 250" in world.board.do("sent", "meter")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)
    until(lambda: world.board.levels(27)[-1] == 1, "the relay at its safe level")


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"kind": "set", "id": "a", "device": "nothing", "values": {"on": True}}, "unknown_device"),
        ({"kind": "set", "id": "b", "device": "valve", "values": {"off": True}}, "unknown_point"),
        ({"kind": "set", "id": "c", "device": "valve", "values": {"on": "yes"}}, "invalid_value"),
        ({"kind": "set", "id": "d", "device": "scale", "values": {"setpoint": 501}}, "out_of_range"),
        ({"kind": "set", "id": "e", "device": "climate", "values": {"temperature": 1}}, "read_only"),
        ({"kind": "set", "id": "f", "device": "valve", "values": {"on": True}, "ttl_ms": 0}, "expired"),
        ({"kind": "set", "id": "g"}, "invalid_value"),
        ({"kind": "fly", "id": "h"}, "invalid_value"),
        ({"kind": "do", "id": "i", "device": "valve", "action": "explode"}, "invalid_value"),
    ],
)
def test_bad_commands_are_told_why(control_session: Any, event: dict[str, Any], code: str) -> None:
    ack = control_session.command(**event)
    assert ack["state"] == "rejected"
    assert ack["error"]["code"] == code
    assert ack["error"]["message"]


@pytest.fixture(scope="module")
def control_session(world: World) -> Any:
    from blocks_network import TaskClient

    with TaskClient.create(billing_mode="free", api_key="bk_alice") as client:
        session = pipe(client, {"streams": ["control"]})
        control = stream(session, "control")
        control.wait("control", about="session")
        yield control
        session.cancel()
        session.wait_for_terminal(LIMIT_S)


def test_an_id_moves_at_most_once_even_when_refused_or_sent_in_a_rush(
    world: World, control_session: Any
) -> None:
    first = {"kind": "set", "id": "once", "device": "scale", "values": {"setpoint": 501}}
    assert control_session.command(**first)["state"] == "rejected"
    control_session.stream.write({**first, "values": {"setpoint": 400}})
    again = control_session.wait("ack", id="once", repeated=True)
    assert again["error"]["code"] == "out_of_range"
    for _ in range(5):
        control_session.stream.write(
            {"kind": "set", "id": "rush", "device": "scale", "values": {"setpoint": 123}}
        )
    until(lambda: len(control_session.of("ack", id="rush", repeated=True)) == 4, "four repeated acks")
    sent = world.board.do("sent", "meter")
    assert (sent.count("SP 123"), sent.count("SP 400")) == (1, 0)


def test_unparsable_events_are_answered(control_session: Any) -> None:
    before = len(control_session.of("ack", state="rejected", id=""))
    control_session.stream.write([1, 2, 3])
    until(lambda: len(control_session.of("ack", state="rejected", id="")) > before, "an ack for a list")


def test_inbound_only_stream_answers_on_an_outbound_one(world: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["orders", "control"]})
    control = stream(session, "control")
    control.wait("control", about="session")
    orders = session.wait_for_stream("orders", timeout=LIMIT_S).open()
    orders.write({"kind": "set", "id": "from-orders", "device": "valve", "values": {"on": True}})
    assert control.wait("ack", id="from-orders")["state"] == "done"
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_bytes_go_both_ways(world: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["console"]})
    console = stream(session, "console")
    until(lambda: world.daemon.device("console")["state"] == "online", "the console")
    world.board.do("feed", "terminal", "login: \\x00\\xff")
    until(lambda: b"".join(console.events) == b"login: \x00\xff", "the prompt")
    console.stream.write(b"root\r\n\x03")
    until(lambda: "root" in world.board.do("sent", "terminal"), "the answer at the port")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_two_callers_share_telemetry(world: World, caller: Callable[..., Any]) -> None:
    one, two = (
        pipe(caller("alice"), {"streams": ["telemetry"]}),
        pipe(caller("bob"), {"streams": ["telemetry"]}),
    )
    first, second = stream(one, "telemetry"), stream(two, "telemetry")
    first.wait("reading", device="climate")
    second.wait("reading", device="climate")

    def common() -> set[int]:
        return {e["seq"] for e in first.events} & {e["seq"] for e in second.events}

    until(lambda: len(common()) > 5, "the same events at both")
    one.cancel()
    assert one.wait_for_terminal(LIMIT_S)["state"] == "canceled"
    seen = len(second.events)
    until(lambda: len(second.events) > seen + 5, "readings at the one who stays")
    two.cancel()
    two.wait_for_terminal(LIMIT_S)


def test_a_stranger_reads_and_does_not_drive(world: World, caller: Callable[..., Any]) -> None:
    session = pipe(caller("mallory"), {"streams": ["control"]})
    control = stream(session, "control")
    control.wait("reading", device="climate")
    ack = control.command(kind="set", id="x", device="valve", values={"on": True})
    assert (ack["state"], ack["error"]["code"]) == ("rejected", "not_allowed")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_one_session_at_a_time_drives(world: World, caller: Callable[..., Any]) -> None:
    one, two = pipe(caller("alice"), {"streams": ["control"]}), pipe(caller("bob"), {"streams": ["control"]})
    first, second = stream(one, "control"), stream(two, "control")
    assert first.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    refused = second.command(kind="set", id="1", device="valve", values={"on": True})
    assert refused["error"]["code"] == "leased"
    one.cancel()
    one.wait_for_terminal(LIMIT_S)
    assert second.command(kind="set", id="2", device="valve", values={"on": True})["state"] == "done"
    two.terminate()
    assert two.wait_for_terminal(LIMIT_S)["reason"] == "terminated"
    until(lambda: world.board.levels(27)[-1] == 1, "the relay at its safe level")


def test_session_words(world: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["control"], "devices": ["climate", "valve"], "every_s": 0.1})
    control = stream(session, "control")
    control.wait("reading", device="climate")
    control.stream.write({"kind": "pause"})
    assert control.wait("control", about="pause")["ok"] is True
    count = len(control.of("reading"))
    control.stream.write({"kind": "select", "devices": ["nothing"]})
    refused = control.wait("control", about="select")
    assert (refused["ok"], refused["error"]["code"]) == (False, "unknown_device")
    control.stream.write({"kind": "rate", "device": "climate", "every_s": 0.05})
    assert control.wait("control", about="rate")["ok"] is True
    assert len(control.of("reading")) == count
    control.stream.write({"kind": "resume"})
    control.wait("control", about="resume")
    until(lambda: len(control.of("reading")) > count, "readings after resume")
    control.stream.write({"kind": "replay", "from_seq": 1})
    assert control.wait("control", about="replay")["from_seq"] == 1
    until(lambda: control.of("reading", late=True), "replayed events")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_expiry_completes_the_task(world: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["control"]}, duration=1)
    control = stream(session, "control")
    control.wait("control", about="session")
    world.net.call(world.net.net.expire_task, session.task_id)
    terminal = session.wait_for_terminal(LIMIT_S)
    assert (terminal["state"], terminal["completionReason"]) == ("completed", "duration_expired")


def test_unknown_stream_in_the_request_fails_with_a_reason(world: World, alice: Any) -> None:
    terminal = pipe(alice, {"streams": ["nothing"]}).wait_for_terminal(LIMIT_S)
    assert terminal["state"] == "failed"
    assert "there is no stream 'nothing'" in terminal["error"]
