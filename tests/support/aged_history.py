"""A history as the record has it at each age: every reading, then means of a minute, then of a quarter."""

import math
import random
from collections.abc import Iterable
from dataclasses import replace

from device_agent.store.history.history_block import HistoryBlock, aggregate, pack
from device_agent.store.history.history_file import DAY_MS, HOUR_MS, MINUTE_MS, QUARTER_MS, HistoryFile

POINTS = ("temperature", "pressure", "humidity")
EVERY_MS = 5000
HOURS = 24


def hour(device: str, number: int) -> HistoryBlock:
    """Readings every 5 s with noise in the second decimal, over a day's course."""
    noise = random.Random(number)
    at = [number * HOUR_MS + n * EVERY_MS for n in range(HOUR_MS // EVERY_MS)]
    course = [math.sin(a / DAY_MS * 2 * math.pi) for a in at]
    columns = [
        [round(level + wave * swing + noise.gauss(0, 0.03), 2) for wave in course]
        for level, swing in ((20, 5), (1013, 4), (55, 20))
    ]
    return HistoryBlock(device, 0, POINTS, at, columns)


def fill(file: HistoryFile, devices: Iterable[str], days: int, now_ms: int) -> None:
    """The same day again and again, up to `now_ms`: sizes are all that counts."""
    day = [hour("climate_0", n) for n in range(HOURS)]
    minutes = [pack(block) for one in day if (block := aggregate(one.device, MINUTE_MS, [one]))]
    quarters = aggregate("climate_0", QUARTER_MS, day)
    assert quarters is not None
    raw, coarse = [pack(one) for one in day], [replace(pack(quarters), from_ms=0)]
    for device in devices:
        blocks = []
        for n in range(days, 0, -1):
            age = coarse if n >= 8 else minutes if n >= 2 else raw
            begin_ms = now_ms - n * DAY_MS
            blocks += [replace(one, device=device, from_ms=begin_ms + one.from_ms) for one in age]
        file.append(blocks)
