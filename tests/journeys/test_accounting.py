"""A caller can account for every number: by what comes, by what a `gap` names, and by asking again."""

from pathlib import Path
from typing import Any

from device_agent.testing.network import NetworkThread
from support.callers import Listening, pipe, stream
from support.deployment import CONFIG, World
from support.outages import accept, accounted, refuse
from support.waiting import LIMIT_S, until


def test_replay_brings_again_what_was_sent_and_says_what_is_gone(outage: Any, heard: Listening) -> None:
    until(lambda: len(heard.of("reading", device="climate")) > 20, "some readings")
    numbers = sorted(event["seq"] for event in heard.events)
    accounted(heard)
    heard.stream.write({"kind": "replay", "from_seq": numbers[-10]})
    answer = heard.wait("control", about="replay")
    assert (answer["ok"], answer["from_seq"]) == (True, numbers[-10])
    until(lambda: _twice(heard, numbers[-5]), "again")
    again = [event for event in heard.events if event["seq"] == numbers[-5]]
    assert [{**event, "late": True} for event in again] == [{**again[0], "late": True}] * len(again)
    heard.stream.write({"kind": "replay", "from_seq": 10**9})
    until(lambda: [e for e in heard.of("control", about="replay") if not e["ok"]], "a refusal")


def _twice(heard: Listening, seq: int) -> bool:
    return sum(1 for event in heard.events if event["seq"] == seq) >= 2


def test_the_caller_can_account_for_every_number_after_an_overflow(
    net: NetworkThread, tmp_path: Path, alice: Any
) -> None:
    name = f"small-{tmp_path.name}"
    net.run(net.net.open_link(name))
    small = CONFIG.replace(
        "[safety]", '[outbox]\nmax_bytes = "256 kB"\ncommit_interval_s = 0.05\n[safety]', 1
    )
    with World(tmp_path, net, link=name, config=small) as world:
        world.link = name  # type: ignore[attr-defined]
        world.start()
        session = pipe(alice, {"streams": ["control"], "every_s": 0.02}, duration=30)
        listening = stream(session, "control")
        listening.wait("reading", device="climate")
        refuse(world)
        until(lambda: world.daemon.ask("status")["outbox"]["dropped"] > 50, "an overflow", 120)
        accept(world)
        until(lambda: listening.of("gap"), "a gap", 60)
        missing = until(lambda: _complete(listening), "every number came or is named by a gap", 60)
        assert missing > 50
        for late in (False, True):
            numbers = [e["seq"] for e in listening.events if bool(e.get("late")) is late]
            assert numbers == sorted(set(numbers))
        session.terminate()
        session.wait_for_terminal(LIMIT_S)


def _complete(heard: Listening) -> int:
    """How many numbers gaps name, once no number below the newest is unaccounted for; else 0."""
    came = {event["seq"] for event in list(heard.events)}
    named: set[int] = set()
    for gap in heard.of("gap"):
        if gap["from_seq"] is not None:
            named |= set(range(gap["from_seq"], gap["to_seq"] + 1))
    missing = set(range(min(came), max(came) + 1)) - came
    return len(missing) if missing and missing <= named else 0
