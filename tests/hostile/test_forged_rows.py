"""Names that others choose forge no row, steer no terminal, and make no answer that the network refuses."""

import contextlib
import io
import json
from typing import Any

from device_agent.cli import main
from support.callers import pipe, question, result, stream
from support.deployment import World, send
from support.waiting import until

FORGED = "x\n2026-01-01 00:00:00  the owner  valve  on=True  done\x1b[2J\u202e\u2028"


def said(*words: str) -> str:
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(list(words))
    text = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert code == 0, text
    return str(text)


def test_a_name_with_a_line_break_is_one_row(world: World, alice: Any) -> None:
    move = json.dumps({"op": "set", "device": "valve", "values": {"on": True}})
    parts = [{"partId": "request", "text": move}]
    message = {"type": "StartTask", "taskId": FORGED, "ownerId": "user_alice", "requestParts": parts}
    send(world, message)
    rows = until(lambda: world.daemon.ask("journal"), "the row of the movement")
    config = ["--config", str(world.config)]
    shown = said(*config, "journal").splitlines()
    assert len(shown) == 1 + len(rows)
    assert all(line.isprintable() for line in shown)
    as_json = said(*config, "journal", "--json")
    assert all(line.isprintable() for line in as_json.splitlines())
    assert [row["who"] for row in json.loads(as_json)] == [row["who"] for row in rows]
    assert all(line.isprintable() for line in said(*config, "status").splitlines())


def test_the_echo_of_a_long_name_fits_the_network(world: World, alice: Any) -> None:
    """An error that the network refuses would leave its task without an end."""
    name = "漢" * 8000
    for body in (
        {"op": "read", "devices": [name]},
        {"op": "history", "devices": ["climate"], "from": name},
        {"op": name},
        {name: 1},
    ):
        asked = question(alice, body)
        assert asked.terminal["state"] == "failed"
        assert len(json.dumps(result(asked)["error"], ensure_ascii=False).encode()) < 1100
    session = pipe(alice, {"streams": [name]})
    assert session.wait_for_terminal(30)["state"] == "failed"
    control = stream(pipe(alice, {"streams": ["control"]}), "control")
    control.wait("control", about="session")
    control.stream.write({"kind": "select", "devices": ["y" * 64] * 250})
    control.stream.write({"kind": "set", "id": "a", "device": "valve", "values": {"z" * 64: 1}})
    assert control.wait("ack", id="a")["state"] == "rejected"
