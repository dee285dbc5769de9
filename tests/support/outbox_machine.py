"""One device with its outbox, its disk and its memory, and the caller at the far end, for tests."""

import asyncio
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from device_agent.messages import events
from device_agent.messages.acks import Ack
from device_agent.network import OutgoingMessage
from device_agent.records import Reading
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.event import Event
from device_agent.store.outbox.outbox import Outbox
from device_agent.store.outbox.outbox_file import OutboxFile
from device_agent.store.store_thread import StoreThread
from device_agent.testing.clock import SteppedClock


class Rule:
    """A stream's configuration, as far as the outbox asks."""

    format = "events"

    def __init__(self, overflow: str = "drop-oldest") -> None:
        self.overflow = overflow


class Caller:
    """The official reader's rules: a number that it has seen is dropped, whatever it carries."""

    def __init__(self) -> None:
        self.expected = 1
        self.events: list[dict[str, Any]] = []

    def deliver(self, cut: OutgoingMessage) -> None:
        if cut.number >= self.expected:
            self.expected = cut.number + 1
            self.events += [json.loads(item) for item in cut.items]


class Machine:
    """One device with its disk and its memory, which may lose power."""

    def __init__(self, folder: Path, max_bytes: int = 50_000_000) -> None:
        self.disk, self.memory = folder / "disk", folder / "memory"
        self.disk.mkdir(parents=True)
        self.memory.mkdir()
        self.clock = SteppedClock()
        self.max_bytes = max_bytes
        self.caller = Caller()
        self.made = 0

    async def boot(self, rule: Rule, channel: str = "s", *, again: bool = False) -> None:
        """Start; `again`: the Journal knows a session with this channel, as after a crash."""
        self.thread, self.outbox = await self.start([channel] if again else [])
        self.queue: ChannelQueue = await self.outbox.open(channel, rule.format, rule.overflow)
        self.outbox._begin_log()

    async def start(self, dedicated: list[str]) -> tuple[StoreThread, Outbox]:
        """A process that has begun and serves nobody yet; channels of sessions that are to go on."""
        thread = StoreThread()
        outbox = Outbox(
            self.disk,
            self.memory,
            max_bytes=self.max_bytes,
            commit_interval_s=0.5,
            thread=thread,
            clock=self.clock,
        )
        await outbox.load()
        outbox.expect(shared=(), dedicated=dedicated)
        return thread, outbox

    def append(self, count: int) -> None:
        for _ in range(count):
            self.made += 1
            reading = Reading("d", self.clock.now_ms(), {"v": float(self.made)})
            self.queue.append(events.reading(reading, "boot"))

    def answer(self) -> None:
        self.queue.append(events.ack(self.clock.now_ms(), Ack("a command's id")))

    async def send(self, *, delivered: bool, acknowledged: bool, limit_bytes: int = 2000) -> None:
        if not self.queue.pending_events:
            return
        await asyncio.wait_for(self.queue.until_ready(), 5)
        cut = self.queue.next_message(limit_bytes)
        assert cut is not None
        if delivered:
            self.caller.deliver(cut)
        if delivered and acknowledged:
            self.queue.ack(cut)

    async def tick(self) -> None:
        self.clock.step(0.3)
        await self.outbox.commit(self.clock.monotonic_s() - 0.25)

    async def drain(self) -> None:
        while self.queue.pending_events:
            await self.send(delivered=True, acknowledged=True)

    async def end(self) -> None:
        """Give back what a dead process would not have any more."""
        await self.thread.run(self.outbox._file.close)
        os.close(self.outbox._log._descriptor)
        self.outbox._log._descriptor = -1
        await self.thread.close()

    async def kill(self, folder: Path) -> None:
        """SIGKILL: disk and memory are as they are at this instant."""
        await self.thread.run(lambda: None)
        copies = folder / f"life-{self.clock.monotonic_s()}-{random.random()}"
        shutil.copytree(self.disk, copies / "disk")
        shutil.copytree(self.memory, copies / "memory")
        await self.end()
        self.disk, self.memory = copies / "disk", copies / "memory"


def accounted(caller: Caller, made: int) -> None:
    """Every event came once, in order among live and late events; nothing is missing without a gap."""
    values = [e["values"]["v"] for e in caller.events if e["kind"] == "reading"]
    assert len(values) == len(set(values)), "an event came twice"
    assert set(values) == {float(n + 1) for n in range(made)}, "an event is missing"
    for late in (False, True):
        seqs = [e["seq"] for e in caller.events if bool(e.get("late")) is late]
        assert seqs == sorted(seqs), f"out of order, late={late}"
    numbers = sorted(e["seq"] for e in caller.events)
    assert numbers == list(range(1, len(numbers) + 1)), "a number is missing"


def on_disk(file: OutboxFile, channel: str = "s") -> list[Event]:
    """The events that the file has, whole ones."""
    return file.load(channel, (0, 2**60), 10**9, set())[0]
