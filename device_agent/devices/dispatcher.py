"""Spreads what devices say: to the record, to those who listen, and to the subscriptions of open streams."""

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from device_agent.clock import Clock
from device_agent.devices.device import ReadingSink
from device_agent.messages import events
from device_agent.messages.events import EventDraft
from device_agent.records import Reading, Status

if TYPE_CHECKING:
    from device_agent.store.outbox.channel_queue import ChannelQueue
    from device_agent.tasks.subscription import Subscription


class Dispatcher:
    """Spreads what devices say over the open channels. Implements `device.Sink`."""

    def __init__(self, clock: Clock, record: Callable[[Reading], None] | None = None) -> None:
        """`record` is given every reading, whether anybody listens or not."""
        self._clock = clock
        self._record = record
        self._channels: dict[str, list[Subscription]] = defaultdict(list)
        self._bytes: dict[str, list[ChannelQueue]] = defaultdict(list)
        self.listeners: list[ReadingSink] = []
        """Told of everything after the record is, before callers are."""
        self.announced: dict[str, EventDraft] = {}
        """The newest words of each delegation."""
        self.readings = 0

    def add(self, channel: "Subscription") -> None:
        for name in channel.devices:
            self._channels[name].append(channel)

    def remove(self, channel: "Subscription") -> None:
        for channels in self._channels.values():
            if channel in channels:
                channels.remove(channel)

    def add_bytes(self, device: str, lane: "ChannelQueue") -> None:
        self._bytes[device].append(lane)

    def remove_bytes(self, device: str, lane: "ChannelQueue") -> None:
        if lane in self._bytes[device]:
            self._bytes[device].remove(lane)

    def on_reading(self, reading: Reading) -> None:
        self.readings += 1
        if self._record is not None and reading.silence != "began":
            self._record(reading)
        for listener in self.listeners:
            listener.on_reading(reading)
        channels = self._channels.get(reading.device)
        if channels:
            draft = events.reading(reading, self._clock.boot)
            for channel in channels:
                channel.reading(reading, draft)

    def announce(self, delegation: str, draft: EventDraft) -> None:
        """Words of a delegation, for the channels that carry it."""
        open_now = {id(channel): channel for channels in self._channels.values() for channel in channels}
        for channel in open_now.values():
            if delegation in channel.delegations:
                channel.send(draft)

    def on_status(self, status: Status) -> None:
        for listener in self.listeners:
            listener.on_status(status)
        draft = events.status(status)
        for channel in self._channels.get(status.device, ()):
            if status.device in channel.devices:
                channel.send(draft)

    def on_bytes(self, device: str, data: bytes) -> None:
        for lane in self._bytes.get(device, ()):
            lane.append_bytes(data)
