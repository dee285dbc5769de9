"""What an open stream sends of its devices: events with what callers ask for, or plain bytes."""

from collections.abc import Sequence

from device_agent.clock import Clock
from device_agent.devices.device import Device
from device_agent.messages import events
from device_agent.messages.commands import Pause, Rate, Resume, Select, SessionCommand
from device_agent.messages.events import EventDraft
from device_agent.records import Reading
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.tasks.report_filter import ReportFilter
from device_agent.tasks.stream_scope import StreamScope


class Subscription:
    """Puts the events of a stream into its queue: readings as far as they are wanted, statuses, answers."""

    def __init__(self, scope: StreamScope, queue: ChannelQueue, clock: Clock) -> None:
        self.devices = scope.devices
        self.delegations = scope.delegations
        """Those whose events its callers may see."""
        self._queue = queue
        self._clock = clock
        self._paused = False
        self._who = f"{scope.spec.name}/{scope.spec.stream_id}"
        self._selected = set(self.devices)
        self._filters = {name: _default_filter(device) for name, device in self.devices.items()}

    def __repr__(self) -> str:
        paused = ", paused" if self._paused else ""
        return f"<Subscription {self._who} to {', '.join(sorted(self._selected)) or 'nothing'}{paused}>"

    def close(self) -> None:
        """Nothing more comes: withdraw what was asked of the devices."""
        for device in self.devices.values():
            device.demand(self._who, None)

    def replace(self, name: str, before: Device, device: Device | None) -> None:
        """The configuration changed: another device, or none, has this name."""
        before.demand(self._who, None)
        del self._filters[name]
        if device is not None:
            self._filters[name] = _default_filter(device)

    # -- events ----------------------------------------

    def due(self, readings: Sequence[Reading]) -> Sequence[Reading]:
        """Those of these readings of one device that are to be sent; they count as sent."""
        device = readings[0].device
        report_filter = self._filters.get(device)
        if self._paused or device not in self._selected or report_filter is None:
            return ()
        return [reading for reading in readings if report_filter.passes(reading)]

    def send(self, *drafts: EventDraft) -> None:
        """Nothing holds these events back."""
        self._queue.append(*drafts)

    def begin(self, streams: Sequence[str], until_ms: int | None) -> None:
        """One `control` event about a session with these streams, which ends at `until_ms` by the network's
        clock, then the present state of each selected device."""
        about = {
            "devices": sorted(self._selected),
            "streams": list(streams),
            "until": until_ms,
            "boot": self._clock.boot,
        }
        self.send(events.control(self._clock.now_ms(), "session", about))
        for name, device in self.devices.items():
            if name not in self._selected:
                continue
            if not device.online:
                if not device.awaited:
                    self.send(events.status(device.present))
            elif device.latest is not None:
                self.send(events.reading(device.latest, self._clock.boot))
                self._filters[name].remember(device.latest)

    # -- session commands ----------------------------------------

    def apply(self, command: SessionCommand) -> None:
        """Follow `pause`, `resume`, `select` or `rate`, as far as it concerns this stream's devices."""
        match command:
            case Pause() | Resume():
                self._paused = isinstance(command, Pause)
            case Select():
                self._selected = set(command.devices) & set(self.devices)
            case Rate():
                for name in self.devices if command.device is None else {command.device} & set(self.devices):
                    self._rate(name, command)

    def _rate(self, name: str, command: Rate) -> None:
        """What the command leaves out stays."""
        report_filter = self._filters[name]
        if command.every_s is not None:
            report_filter.every_s = float(command.every_s)
            self.devices[name].demand(self._who, report_filter.every_s)
        if command.on_change is not None:
            report_filter.on_change = command.on_change
        if command.dead_band is not None:
            report_filter.dead_band = float(command.dead_band)

    def replay(self, from_seq: int) -> int | None:
        """Send again from this number on; the first that is kept still, None if none is."""
        return self._queue.replay(from_seq)


class ByteSubscription:
    """Puts the bytes of a stream's devices into its queue; a device listens only while this is open."""

    def __init__(self, scope: StreamScope, queue: ChannelQueue) -> None:
        self.devices = scope.devices
        self._queue = queue
        self._open = False

    def open(self) -> None:
        self._open = True
        for device in self.devices.values():
            device.watchers.add(self._queue.channel)

    def close(self) -> None:
        self._open = False
        for device in self.devices.values():
            device.watchers.remove(self._queue.channel)

    def replace(self, name: str, before: Device, device: Device | None) -> None:
        """The configuration changed: another device, or none, has this name."""
        before.watchers.remove(self._queue.channel)
        if device is not None and self._open:
            device.watchers.add(self._queue.channel)

    def send(self, data: bytes) -> None:
        """A chunk that one of the devices sent."""
        self._queue.append_bytes(data)


def _default_filter(device: Device) -> ReportFilter:
    # Without a period, as of most devices that speak by themselves, each reading goes out as it comes.
    return ReportFilter(device.period_s, device.config.on_change, device.config.dead_band)
