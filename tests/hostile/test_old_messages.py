"""What the network delivers late, or again, moves nothing: bytes have an age, and a stop is one stop."""

from typing import Any

import pytest

from support.callers import pipe, question, result, stream
from support.deployment import World
from support.outages import accept, refuse
from support.waiting import LIMIT_S, until


def test_a_stop_that_is_read_again_does_not_press_after_the_release(world: World, alice: Any) -> None:
    """The next process reads what the network caches of a stream from its beginning."""
    control = stream(pipe(alice, {"streams": ["control"]}), "control")
    control.wait("control", about="session")
    assert control.command(kind="stop", id="halt")["state"] == "done"
    world.daemon.ask("release")
    world.daemon.kill()
    world.start()
    again = until(lambda: [a for a in control.of("ack", id="halt") if a.get("repeated")], "it is read again")
    assert again[0]["state"] == "done"
    assert world.daemon.ask("status")["emergency_stop"]["latched"] is False
    done = result(question(alice, {"op": "set", "device": "valve", "values": {"on": True}}))
    assert done["state"] == "done"
    control.stream.write({"kind": "stop", "id": "halt"})
    until(
        lambda: world.daemon.ask("status")["emergency_stop"]["latched"], "the same id, said anew, is obeyed"
    )


@pytest.mark.slow
def test_bytes_that_were_sent_into_an_outage_reach_no_machine(outage: World, alice: Any) -> None:
    session = pipe(alice, {"streams": ["console"]})
    console = stream(session, "console")
    assert outage.board is not None
    until(lambda: outage.daemon.device("console")["state"] == "online", "the console")
    console.stream.write(b"first")
    until(lambda: "first" in outage.board.do("sent", "terminal"), "bytes at the port")
    refuse(outage)
    wire = outage.net.net.wire
    console.stream.write(b"old")
    sent = outage.net.call(wire.clock.timetoken)
    until(lambda: outage.net.call(wire.clock.timetoken) - sent > 55_000_000, "5.5 s", LIMIT_S)
    accept(outage)
    outage.daemon.wait_logged("bytes_refused")
    console.stream.write(b"new")
    until(lambda: "new" in outage.board.do("sent", "terminal"), "later bytes at the port")
    assert "old" not in outage.board.do("sent", "terminal")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)
