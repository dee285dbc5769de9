"""200 agents on one broker, followed by one subscriber: every event of each is counted."""

import asyncio
import os
import time
from collections import defaultdict
from pathlib import Path

import pytest

from device_agent.clock import SystemClock
from device_agent.config.mqtt import MqttConfig
from device_agent.messages import events
from device_agent.mqtt.door import MqttDoor
from device_agent.records import Reading
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.outbox import Outbox
from device_agent.store.store_thread import StoreThread
from support.broker_client import BrokerClient
from support.mosquitto import Broker
from support.waiting import until_async

AGENTS = int(os.environ.get("DEVICE_AGENT_AGENTS", "200"))
EVERY_S = 1.0
CAUGHT_UP_S = 300.0


class Simulated:
    """The door of one agent with a real outbox, and one device that says something every second."""

    def __init__(self, name: str, queue: ChannelQueue) -> None:
        self.name = name
        self.source = queue
        self.made = 0
        self._news = asyncio.Event()

    async def report(self) -> None:
        while True:
            self.made += 1
            reading = Reading("climate", int(time.time() * 1000), {"temperature": float(self.made)})
            self.source.append(events.reading(reading, "boot"))
            self._news.set()
            await asyncio.sleep(EVERY_S)

    async def news(self) -> set[str]:
        await self._news.wait()
        self._news.clear()
        return {"climate"}

    def present(self, name: str) -> tuple[str, dict[str, object]]:
        return "online", {"device": name, "at": 0, "values": {"temperature": float(self.made)}}

    def readable(self) -> list[str]:
        return ["climate"]

    def answered(self, ack: object) -> None:
        raise AssertionError("nobody sent a command")


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_two_hundred_agents_on_one_broker(tmp_path: Path) -> None:
    """A broker that keeps its sessions is away twice; `DEVICE_AGENT_SOAK_MIN` is how long it goes on."""
    options = ("persistence true", f"persistence_location {tmp_path}/", "max_queued_messages 0")
    broker = Broker(tmp_path)
    broker.start(*options)
    heard = BrokerClient(broker.port, "device-agent/+/events", session=True)
    clock, thread = SystemClock(), StoreThread()
    outbox = Outbox(
        tmp_path, tmp_path, max_bytes=200_000_000, commit_interval_s=0.5, thread=thread, clock=clock
    )
    await outbox.load()
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    agents = [Simulated(f"a{n}", await outbox.open(f"a{n}", "events", "drop-oldest")) for n in range(AGENTS)]
    doors = [asyncio.create_task(MqttDoor(config, one.name, {}, one).run()) for one in agents]
    work = [asyncio.create_task(one.report()) for one in agents] + [asyncio.create_task(outbox.run())]
    part_s = float(os.environ.get("DEVICE_AGENT_SOAK_MIN", "1")) * 60 / 3
    for outage in (True, True, False):
        await asyncio.sleep(part_s)
        if outage:
            await asyncio.to_thread(broker.stop)
            await asyncio.sleep(min(part_s, 20.0))
            await asyncio.to_thread(broker.start, *options)
    for task in work[:-1]:
        task.cancel()
    await until_async(lambda: outbox.figures()["events"] == 0, "all went out", CAUGHT_UP_S)

    def numbers() -> dict[str, set[int]]:
        found = defaultdict(set)
        for one in list(heard.got):
            found[one.topic.split("/")[1]].add(one.json()["seq"])
        return found

    await until_async(
        lambda: len(heard.got) >= sum(one.made for one in agents), "all came", limit_s=CAUGHT_UP_S
    )
    await until_async(
        lambda: numbers() == {one.name: set(range(1, one.made + 1)) for one in agents}, "each is there", 30
    )
    made, came = sum(one.made for one in agents), len(heard.got)
    print(f"{AGENTS} agents, {made} events, {came - made} of them came twice")
    for task in (*doors, work[-1]):
        task.cancel()
    await asyncio.wait([*doors, work[-1]])
    await outbox.close()
    await thread.close()
    heard.close()
    broker.stop()
