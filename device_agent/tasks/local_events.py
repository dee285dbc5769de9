"""What a door on the device gets by itself of all devices that it may read: numbered events through the
outbox, as callers get them on a stream, and word that a device has something new."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from device_agent.commands.authorization import local_actor, may
from device_agent.commands.control_side import ControlSide
from device_agent.devices.device import Device
from device_agent.messages import events
from device_agent.messages.acks import Ack
from device_agent.network import MessageSource
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.store.outbox.channel_queue import ChannelQueue, OverflowRule
from device_agent.store.outbox.outbox import Outbox
from device_agent.tasks.report_filter import ReportFilter


class LocalEvents(ReadingSubscriber):
    """From `open` to `close`, over any number of connections. Access rules hold as they are now."""

    def __init__(self, door: str, control: ControlSide, outbox: Outbox, overflow: OverflowRule) -> None:
        """`door`, such as "local:mqtt", is the name of the channel too."""
        self._door = door
        self._actor = local_actor(door)
        self._control = control
        self._outbox = outbox
        self._overflow: OverflowRule = overflow
        self._clock = control.context.clock
        self._queue: ChannelQueue | None = None
        self._filters: dict[str, tuple[Device, ReportFilter]] = {}
        self._news: set[str] = set()
        self._any_news = asyncio.Event()

    async def open(self) -> None:
        """Begin as a stream does: with one event about the whole, and the present state of each device."""
        self._queue = await self._outbox.open(self._door, "events", self._overflow)
        devices = [device for name, device in self._control.devices.items() if self._may_read(name)]
        about = {
            "devices": sorted(device.name for device in devices),
            "streams": ["events"],
            "until": None,
            "boot": self._clock.boot,
        }
        self._queue.append(events.control(self._clock.now_ms(), "session", about))
        for device in devices:
            self.on_status(device.present)

    def close(self) -> None:
        """Collect nothing more: the outbox is about to be closed."""
        self._queue = None

    @property
    def source(self) -> MessageSource:
        """What is to be sent. Raises RuntimeError before `open`."""
        if self._queue is None:
            raise RuntimeError(f"the events of {self._door} are not open")
        return self._queue

    async def news(self) -> set[str]:
        """Wait until a device has a new reading or state; the names of all since the last call."""
        await self._any_news.wait()
        self._any_news.clear()
        names, self._news = self._news, set()
        return names

    def present(self, name: str) -> tuple[str, dict[str, Any] | None]:
        """State and newest reading of a device."""
        device = self._control.devices[name]
        latest = None if device.latest is None else events.reading_members(device.latest)
        return device.state, latest

    def readable(self) -> list[str]:
        """The devices that the door may read now."""
        return [name for name in self._control.devices if self._may_read(name)]

    def answered(self, ack: Mapping[str, Any]) -> None:
        """An ack of a command that came by the door is an event too."""
        if self._queue is not None:
            self._queue.append(events.ack(self._clock.now_ms(), Ack.from_members(ack)))

    def _may_read(self, name: str) -> bool:
        return may(self._control.executor.config.access, "read", self._actor, name)

    def _note(self, name: str) -> None:
        self._news.add(name)
        self._any_news.set()

    # -- what devices report ----------------------------------------

    def on_readings(self, readings: Sequence[Reading]) -> None:
        name = readings[0].device
        present = [reading for reading in readings if not reading.past]
        if self._queue is None or not self._may_read(name) or not present:
            return
        self._note(name)
        device = self._control.devices[name]
        known, report_filter = self._filters.get(name, (None, None))
        if known is not device or report_filter is None:
            config = device.config
            report_filter = ReportFilter(device.period_s, config.on_change, config.dead_band)
            self._filters[name] = device, report_filter
        if due := [reading for reading in present if report_filter.passes(reading)]:
            self._queue.append(*(events.reading(reading, self._clock.boot) for reading in due))

    def on_status(self, status: Status) -> None:
        if self._queue is not None and self._may_read(status.device):
            self._note(status.device)
            self._queue.append(events.status(status))

    def on_bytes(self, device: str, data: bytes) -> None:
        """Bytes are no events."""
