"""From readings to the events of each open stream: who gets what, how often."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from device_agent.clock import Clock
from device_agent.devices.device import Device
from device_agent.messages import events
from device_agent.messages.commands import Rate
from device_agent.messages.events import EventDraft
from device_agent.records import Flag, Reading, Value
from device_agent.store.outbox.channel_queue import ChannelQueue

# A reading that comes a little before its turn (a poll's jitter) still counts as the turn's.
EARLY_SHARE = 0.1


@dataclass(slots=True)
class ReportFilter:
    """How readings of one device pass a channel."""

    every_s: float | None = None
    on_change: bool = False
    dead_band: float | dict[str, float] = 0.0
    last_s: float | None = None
    last: Mapping[str, Value] | None = None
    last_flags: Mapping[str, Flag] = field(default_factory=dict)

    def passes(self, reading: Reading) -> bool:
        """Whether this reading is due; remembers it if so."""
        due = self.last_s is None or self.every_s is None or reading.at_once or bool(reading.silence)
        if not due and self.last_s is not None and self.every_s is not None:
            due = reading.monotonic_s - self.last_s >= self.every_s * (1 - EARLY_SHARE)
        if not due or (self.on_change and self.last is not None and not self._changed(self.last, reading)):
            return False
        self.remember(reading)
        return True

    def remember(self, reading: Reading) -> None:
        """This reading went out."""
        self.last_s, self.last, self.last_flags = reading.monotonic_s, reading.values, reading.flags

    def _changed(self, before: Mapping[str, Value], reading: Reading) -> bool:
        # A doubt that comes or goes is a change; but lines that take turns make each other's points stale.
        return (
            bool(reading.silence)
            or _without_stale(reading.flags) != _without_stale(self.last_flags)
            or any(self._differs(name, before.get(name), value) for name, value in reading.values.items())
        )

    def _differs(self, name: str, old: Value, new: Value) -> bool:
        band = self.dead_band.get(name, 0.0) if isinstance(self.dead_band, dict) else self.dead_band
        both = [v for v in (old, new) if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(both) == 2:
            return abs(both[1] - both[0]) > band
        return old != new


def _without_stale(flags: Mapping[str, Flag]) -> Mapping[str, Flag]:
    return {name: flag for name, flag in flags.items() if flag is not Flag.STALE} if flags else flags


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
