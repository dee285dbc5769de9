"""From readings to the events of each open stream: who gets what, how often."""

from collections.abc import Collection, Mapping

from device_agent.clock import Clock
from device_agent.devices.device import Device
from device_agent.messages import events
from device_agent.messages.commands import Rate
from device_agent.messages.events import EventDraft
from device_agent.records import Reading
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.tasks.report_filter import ReportFilter


class Subscription:
    """The outgoing side of one open events stream."""

    def __init__(
        self, stream: str, lane: ChannelQueue, devices: Mapping[str, Device], clock: Clock, who: str
    ) -> None:
        self.stream = stream
        self.lane = lane
        self.devices = dict(devices)
        self.paused = False
        self.delegations: frozenset[str] = frozenset()
        """Whose words its callers may hear."""
        self._who = who
        self._clock = clock
        self._selected = set(devices)
        self._rules = {name: self._default(device) for name, device in devices.items()}

    @staticmethod
    def _default(device: Device) -> ReportFilter:
        config = device.config
        # What a device is told (an edge, a line) goes out as it comes; what it is asked, on its own beat.
        told = device.driver_class.default_every_s is None
        return ReportFilter(None if told else device.period_s, config.on_change, config.dead_band)

    # -- out ----------------------------------------

    def reading(self, reading: Reading, draft: EventDraft) -> None:
        rule = self._rules.get(reading.device)
        if rule and not self.paused and reading.device in self._selected and rule.passes(reading):
            self.lane.append(draft)

    def status(self, draft: EventDraft) -> None:
        self.lane.append(draft)

    def say(self, draft: EventDraft) -> None:
        self.lane.append(draft)

    def begin(self, *, streams: Collection[str], until_ms: int | None) -> None:
        """One `control` event about the session, then the present of each device."""
        now_ms = self._clock.now_ms()
        about = {
            "devices": sorted(self._selected),
            "streams": list(streams),
            "until": until_ms,
            "boot": self._clock.boot,
        }
        self.say(events.control(now_ms, "session", about))
        for name, device in self.devices.items():
            if name not in self._selected:
                continue
            if device.latest is not None and device.online:
                self.lane.append(events.reading(device.latest, self._clock.boot))
                self._rules[name].remember(device.latest)
            elif not device.online:
                self.lane.append(events.status(device.present))

    # -- session words ----------------------------------------

    def select(self, names: Collection[str]) -> None:
        """Only these devices' readings from now on (those that this stream carries)."""
        self._selected = set(names) & set(self.devices)

    def rate(self, word: Rate) -> None:
        """Another pace for one device or all. What the word leaves out stays."""
        for name, rule in self._rules.items():
            if word.device not in (None, name):
                continue
            if word.every_s is not None:
                rule.every_s = float(word.every_s)
                self.devices[name].demand(self._who, rule.every_s)
            if word.on_change is not None:
                rule.on_change = word.on_change
            if word.dead_band is not None:
                rule.dead_band = float(word.dead_band)

    def replace(self, name: str, device: Device | None) -> None:
        """The configuration changed under an open stream."""
        self.devices.pop(name, None)
        self._rules.pop(name, None)
        if device is not None:
            self.devices[name] = device
            self._rules[name] = self._default(device)

    def close(self) -> None:
        """Withdraw the wishes that this channel had towards its devices."""
        for device in self.devices.values():
            device.demand(self._who, None)
