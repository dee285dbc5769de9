"""The subscriptions of all open streams: the last subscriber of what devices report."""

from collections.abc import Collection, Sequence

from device_agent.clock import Clock
from device_agent.messages import events
from device_agent.messages.events import EventDraft
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.tasks.subscription import ByteSubscription, Subscription


class StreamSubscriptions(ReadingSubscriber):
    """Passes on what devices and delegations report. An event is built once for all streams that carry it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[Subscription] = []
        self._bytes: list[ByteSubscription] = []
        self._announced: dict[str, EventDraft] = {}

    def add(self, subscription: Subscription | ByteSubscription) -> None:
        """From now on it gets what its devices report; no change if it does already."""
        if isinstance(subscription, Subscription):
            if subscription not in self._events:
                self._events.append(subscription)
        elif subscription not in self._bytes:
            self._bytes.append(subscription)
            subscription.open()

    def remove(self, subscription: Subscription | ByteSubscription) -> None:
        """It gets nothing more."""
        self._events = [s for s in self._events if s is not subscription]
        self._bytes = [s for s in self._bytes if s is not subscription]
        subscription.close()

    # -- what devices report ----------------------------------------

    def on_readings(self, readings: Sequence[Reading]) -> None:
        drafts: dict[int, EventDraft] = {}
        for subscription in self._events:
            due = subscription.due(readings)
            for reading in due:
                if id(reading) not in drafts:
                    drafts[id(reading)] = events.reading(reading, self._clock.boot)
            if due:
                subscription.send(*(drafts[id(reading)] for reading in due))

    def on_status(self, status: Status) -> None:
        draft = events.status(status)
        for subscription in self._events:
            if status.device in subscription.devices:
                subscription.send(draft)

    def on_bytes(self, device: str, data: bytes) -> None:
        for subscription in self._bytes:
            if device in subscription.devices:
                subscription.send(data)

    # -- what delegations report ----------------------------------------

    def remember(self, delegation: str, draft: EventDraft) -> None:
        """This is the delegation's newest event: a stream that is opened from now on begins with it."""
        self._announced[delegation] = draft

    def announce(self, delegation: str, draft: EventDraft) -> None:
        """A new event of a delegation, for the streams that carry it."""
        self.remember(delegation, draft)
        for subscription in self._events:
            if delegation in subscription.delegations:
                subscription.send(draft)

    def newest(self, delegations: Collection[str]) -> list[EventDraft]:
        """The newest event of each of these that has reported anything, by name."""
        return [self._announced[name] for name in sorted(delegations) if name in self._announced]
