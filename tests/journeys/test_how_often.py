"""What a device says by itself goes to callers as often as its owner configured, and no oftener."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from support.callers import pipe, stream
from support.deployment import HEAD, World
from support.waiting import LIMIT_S, until

EVERY_S = 2.0
BAND = 10
PULSES = 40
CONFIG = (
    HEAD
    + """[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.paced]
driver = "gpio-input"
bus = "pins"
line = 17
count = true
every_s = 2
[devices.coarse]
driver = "gpio-input"
bus = "pins"
line = 18
count = true
on_change = true
dead_band = {{ count = 10, active = 1, rate = 1e6 }}
[devices.plain]
driver = "gpio-input"
bus = "pins"
line = 19
count = true
[streams.telemetry]
direction = "outbound"
devices = ["paced", "coarse", "plain"]
"""
)


def test_pulses_are_reported_as_the_owner_said(new_world: Callable[..., World], alice: Any) -> None:
    world = new_world(config=CONFIG)
    world.start()
    session = pipe(alice)
    heard = stream(session, "telemetry")
    until(lambda: len(heard.of("reading")) >= 3, "the present of each")
    for _ in range(PULSES):
        for line in ("17", "18", "19"):
            world.board.do("pin", "pins", line, "high")
            world.board.do("pin", "pins", line, "low")

    def counts(device: str) -> list[int]:
        return [event["values"]["count"] for event in heard.of("reading", device=device)]

    # The last count comes with the last rise, and one more edge after it.
    until(lambda: len(counts("plain")) > 2 * PULSES, "each edge of the one without a rule")
    assert counts("plain")[-1] == PULSES
    until(lambda: counts("paced")[-1] == PULSES, "the last count, with the next period")
    assert len(counts("plain")) == 1 + 2 * PULSES
    at = [event["at"] / 1000 for event in heard.of("reading", device="paced")]
    assert all(after - before > 0.85 * EVERY_S for before, after in pairwise(at)), at
    assert counts("coarse") == list(range(0, PULSES + 1, BAND + 1)), "each change of more than ten"
    session.cancel()
    session.wait_for_terminal(LIMIT_S)
