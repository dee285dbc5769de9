"""A line that a pattern of the configuration cannot cope with holds up nobody."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import question, result
from support.deployment import CONFIG, World
from support.serial_peer import SerialPeer
from support.waiting import until

ASKED = """
[agent]
name = "line"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[buses.line]
kind = "serial"
port = "{port}"
[devices.gauge]
driver = "serial-ask"
bus = "line"
ask = "Q\\n"
pattern = '^W (?P<weight>([0-9]+[.]?)+)g$'
every_s = 0.2
points.weight = {{ unit = "g" }}
"""
PATTERN = "^W +(?P<weight>-?[0-9.]+)"


def test_a_line_that_never_stops_matching(net: NetworkThread, alice: Any, tmp_path: Path) -> None:
    assert PATTERN in CONFIG
    config = CONFIG.replace(PATTERN, "^W +(?P<weight>([0-9]+[.]?)+)g$").replace(
        "guard_timeout_s = 10", "guard_timeout_s = 5"
    )
    with World(tmp_path, net, config=config) as world:
        daemon = world.start()
        assert any("pattern takes too long" in str(entry) for entry in daemon.events()), "the start warns"
        assert world.board is not None
        for _ in range(2):  # the first may be one whose beginning was missed
            world.board.do("feed", "meter", "W " + "1" * 200 + "!\\n")
        daemon.wait_logged("device_lost")
        (lost, *_) = (entry for entry in daemon.events() if entry["event"] == "device_lost")
        assert "`pattern` was given up" in lost["error"]
        moved = result(question(alice, {"op": "set", "device": "valve", "values": {"on": True}}))
        assert moved["state"] == "done"
        assert not daemon.logged("actuators_unknown"), "the guard never took over"
        until(lambda: daemon.device("scale")["state"] == "online", "it is back")


def test_an_answer_that_never_stops_matching(net: NetworkThread, tmp_path: Path) -> None:
    """It is read on the thread of its bus, where the engine would hold the interpreter all the same."""
    peer = SerialPeer({b"Q\n": b"W " + b"1" * 200 + b"!\n"})
    try:
        with World(tmp_path, net, config=ASKED, port=peer.path, simulated=False) as world:
            daemon = world.start(joined=False)
            for said in ("gauge.pattern takes too long", "`pattern` was given up"):
                until(lambda said=said: any(said in str(entry) for entry in daemon.events()), said)
            peer.answers[b"Q\n"] = b"W 7.5g\n"
            until(lambda: "7.5" in str(daemon.ask("read", device="gauge")), "the next answer")
            assert daemon.stop() == 0
    finally:
        peer.close()


@pytest.mark.parametrize("sent", ["W 12.5g", "x" * 5000])
def test_other_lines_cost_nothing(net: NetworkThread, tmp_path: Path, sent: str) -> None:
    with World(tmp_path, net) as world:
        daemon = world.start()
        assert world.board is not None
        for line in (sent, sent, "W 7.5 g"):
            world.board.do("feed", "meter", line + "\\n")
        until(lambda: "7.5" in str(daemon.ask("read", device="scale")), "the next line")
        assert daemon.device("scale")["state"] == "online"
