"""A year of ten devices is within what the configuration allows by default."""

import math
import random
from dataclasses import replace
from pathlib import Path

from device_agent.config.models import HistoryConfig
from device_agent.store.history.history_block import HistoryBlock, aggregate, pack
from device_agent.store.history.history_file import DAY_MS, HOUR_MS, MINUTE_MS, QUARTER_MS, HistoryFile

DEVICES = [f"climate_{n}" for n in range(10)]
POINTS = ("temperature", "pressure", "humidity")
EVERY_MS = 5000
NOW_MS = 20_000 * DAY_MS
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


def test_a_year_of_ten_devices_every_five_seconds(tmp_path: Path) -> None:
    usual = HistoryConfig()
    assert usual.keep_days >= 366
    file = HistoryFile(
        tmp_path / "history.db", keep_ms=round(usual.keep_days * DAY_MS), max_bytes=usual.max_bytes
    )
    day = [hour("climate_0", n) for n in range(HOURS)]
    minutes = [pack(block) for one in day if (block := aggregate(one.device, MINUTE_MS, [one]))]
    quarters = aggregate("climate_0", QUARTER_MS, day)
    assert quarters is not None
    packed = pack(quarters)
    # The same day again and again, as the record has it at each age: sizes are all that counts.
    for device in DEVICES:
        blocks = [replace(packed, device=device, from_ms=NOW_MS - n * DAY_MS) for n in range(8, 366)]
        for block in minutes:
            blocks += [
                replace(block, device=device, from_ms=NOW_MS - n * DAY_MS + block.from_ms)
                for n in range(2, 8)
            ]
        blocks += [
            replace(pack(one), device=device, from_ms=NOW_MS - DAY_MS + n * HOUR_MS)
            for n, one in enumerate(day)
        ]
        file.append(blocks)
    used_bytes = file.used_bytes
    file.close()
    print(f"a year of ten devices: {used_bytes / 1e6:.1f} MB")
    assert used_bytes < usual.max_bytes / 4
