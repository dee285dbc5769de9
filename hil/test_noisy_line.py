"""A serial line that picks up noise: no garbage becomes a reading, and the first whole line counts again."""

import random
from collections.abc import Callable

from scene import Scene

from device_agent.testing.board.medium import noisy

LINES = 400
# Longer than any line may be, without an end.
FLOOD_BYTES = 8 * 1024


def test_noise_between_the_lines(begin: Callable[..., Scene]) -> None:
    scene = begin("serial")
    scene.weigh(1.0)
    chance = random.Random(7)
    mark = scene.mark
    for number in range(LINES):
        scene.rig.feed(noisy(b"W 250.0 g\n", chance))
        if number % 50 == 0:
            scene.rig.feed(chance.randbytes(64))
    scene.rig.feed(b"\n")
    scene.weigh(2.0)
    during = scene.after(mark, "reading", device="scale")
    assert during
    # A line carries no checksum, so a digit may be another digit; what is no weight at all is no reading.
    for event in during:
        weight = event["values"]["weight"]
        believable = isinstance(weight, (int, float)) and -1000 <= weight <= 1000
        assert believable or event["flags"]["weight"] == "out_of_range"
    assert sum(event["values"]["weight"] == 250.0 for event in during) > LINES // 10
    assert not scene.of("status", device="scale"), "noise is no loss of the device"
    scene.end()


def test_a_flood_without_an_end_of_line(begin: Callable[..., Scene]) -> None:
    scene = begin("serial")
    scene.weigh(1.0)
    mark = scene.mark
    chance = random.Random(11)
    flood = chance.randbytes(FLOOD_BYTES).replace(b"\n", b"?")
    for start in range(0, len(flood), 512):
        scene.rig.feed(flood[start : start + 512])
    scene.rig.feed(b"\n")
    scene.weigh(3.0)
    assert not scene.of("status", device="scale")
    weights = [event["values"]["weight"] for event in scene.after(mark, "reading", device="scale")]
    # The first line may still be on its way, and again, when the flood begins.
    assert 3.0 in weights
    assert set(weights) <= {1.0, 3.0}
    scene.end()
