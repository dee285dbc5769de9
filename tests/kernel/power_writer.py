"""Fills an outbox until the power goes: `power_writer.py FOLDER`. `ACK n`: all to seq n is promised."""

import asyncio
import sys
import tempfile
from pathlib import Path

from device_agent.clock import SystemClock
from device_agent.messages import events
from device_agent.records import Reading
from device_agent.store.outbox.outbox import Outbox
from device_agent.store.store_thread import StoreThread

CHANNEL = "stream"
MAX_BYTES = 2_000_000
INTERVAL_S = 0.2


async def begin(folder: Path) -> Outbox:
    """An outbox whose memory has not outlived the power cut."""
    memory = Path(tempfile.mkdtemp(prefix="outbox-", dir="/dev/shm"))
    clock = SystemClock()
    outbox = Outbox(
        folder,
        memory,
        max_bytes=MAX_BYTES,
        commit_interval_s=INTERVAL_S,
        thread=StoreThread(),
        clock=clock,
    )
    again = (folder / "outbox.db").exists()
    await outbox.load()
    outbox.expect(shared=(), dedicated=[CHANNEL] if again else [])
    return outbox


async def main(folder: Path) -> None:
    outbox = await begin(folder)
    queue = await outbox.open(CHANNEL, "events", "drop-oldest")
    clock = SystemClock()
    while True:
        for _ in range(20):
            reading = Reading("d", clock.now_ms(), {"v": float(queue.next_seq)})
            queue.append(events.reading(reading, clock.boot))
        await outbox.commit(float("inf"))
        assert not outbox.figures()["trouble"], outbox.figures()
        print("ACK", queue.next_seq - 1, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
