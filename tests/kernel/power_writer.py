"""Fills an outbox until the power goes: `power_writer.py FOLDER`. `ACK n`: all to seq n is promised."""

import asyncio
import sys
import tempfile
from pathlib import Path

from device_agent import events
from device_agent.clock import SystemClock
from device_agent.records import Reading
from device_agent.store.lanes import Lanes
from device_agent.store.thread import StoreThread

CHANNEL = "stream"
MAX_BYTES = 2_000_000
INTERVAL_S = 0.2


class Rule:
    """A stream's configuration, as far as the outbox asks."""

    format = "events"
    overflow = "drop-oldest"


async def begin(folder: Path) -> Lanes:
    """An outbox whose memory has not outlived the power cut."""
    memory = Path(tempfile.mkdtemp(prefix="outbox-", dir="/dev/shm"))
    clock = SystemClock()
    lanes = Lanes(
        folder,
        memory,
        max_bytes=MAX_BYTES,
        commit_interval_s=INTERVAL_S,
        thread=StoreThread(),
        clock=clock,
    )
    again = (folder / "outbox.db").exists()
    await lanes.load()
    lanes.expect(shared=(), dedicated=[CHANNEL] if again else [])
    return lanes


async def main(folder: Path) -> None:
    lanes = await begin(folder)
    lane = await lanes.open(CHANNEL, Rule())
    clock = SystemClock()
    while True:
        for _ in range(20):
            reading = Reading("d", clock.now_ms(), {"v": float(lane.next_seq)})
            lane.append(events.reading(reading, clock.boot))
        await lanes.commit(float("inf"))
        assert not lanes.figures()["trouble"], lanes.figures()
        print("ACK", lane.next_seq - 1, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
