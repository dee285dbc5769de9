"""The open streams as subscribers of what devices report: who carries which device, delegation or bytes."""

from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

from device_agent.clock import Clock
from device_agent.messages import events
from device_agent.messages.events import EventDraft
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.store.outbox.channel_queue import ChannelQueue

if TYPE_CHECKING:
    from device_agent.tasks.subscription import Subscription


class StreamSubscriptions(ReadingSubscriber):
    """An event is built once, however many streams carry it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_device: dict[str, list[Subscription]] = defaultdict(list)
        self._bytes: dict[str, list[ChannelQueue]] = defaultdict(list)
        self._announced: dict[str, EventDraft] = {}

    def add(self, subscription: "Subscription") -> None:
        for name in subscription.devices:
            self._by_device[name].append(subscription)

    def remove(self, subscription: "Subscription") -> None:
        for subscriptions in self._by_device.values():
            if subscription in subscriptions:
                subscriptions.remove(subscription)

    def add_bytes(self, device: str, queue: ChannelQueue) -> None:
        self._bytes[device].append(queue)

    def remove_bytes(self, device: str, queue: ChannelQueue) -> None:
        if queue in self._bytes[device]:
            self._bytes[device].remove(queue)

    # -- what devices report ----------------------------------------

    def on_reading(self, reading: Reading) -> None:
        if subscriptions := self._by_device.get(reading.device):
            draft = events.reading(reading, self._clock.boot)
            for subscription in subscriptions:
                subscription.reading(reading, draft)

    def on_status(self, status: Status) -> None:
        draft = events.status(status)
        for subscription in self._by_device.get(status.device, ()):
            if status.device in subscription.devices:
                subscription.send(draft)

    def on_bytes(self, device: str, data: bytes) -> None:
        for queue in self._bytes.get(device, ()):
            queue.append_bytes(data)

    # -- what delegations report ----------------------------------------

    def remember(self, delegation: str, draft: EventDraft) -> None:
        """This is the delegation's newest event: a stream that is opened from now on begins with it."""
        self._announced[delegation] = draft

    def announce(self, delegation: str, draft: EventDraft) -> None:
        """A new event of a delegation, for the streams that carry it."""
        self.remember(delegation, draft)
        open_now = {id(one): one for subscriptions in self._by_device.values() for one in subscriptions}
        for subscription in open_now.values():
            if delegation in subscription.delegations:
                subscription.send(draft)

    def newest(self, delegations: Collection[str]) -> list[EventDraft]:
        """The newest event of each of these that has said anything, by name."""
        return [self._announced[name] for name in sorted(delegations) if name in self._announced]
