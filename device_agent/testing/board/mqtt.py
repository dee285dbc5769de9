"""A simulated MQTT broker: topics, filters with + and #, retained messages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from device_agent.bus.mqtt import matches
from device_agent.errors import PlaceRefused
from device_agent.testing.board.medium import (
    BoardUser,
    BusFault,
    Mailbox,
    Medium,
    Placed,
    as_text,
    corrupted,
    noisy,
)
from device_agent.testing.chips import MqttChip, Publication

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board

MESSAGES_MAX = 1 << 16
SENT_KEPT = 1000


@dataclass(slots=True)
class _TopicSubscription:
    filters: tuple[str, ...]
    mailbox: Mailbox


class MqttMedium(Medium):
    """A broker for one client after another; quality of service does not matter where nothing is lost."""

    kind: ClassVar[str] = "mqtt"

    def __init__(self, board: "Board", name: str, placed: Mapping[str, Placed], seed: int = 0) -> None:
        super().__init__(board, name, placed, seed)
        self._retained: dict[str, bytes] = {}
        self._subscriptions: list[_TopicSubscription] = []
        self.sent: list[tuple[str, bytes]] = []
        """The newest `SENT_KEPT` messages that the host published."""
        for device in self.placed.values():
            self.after(device, board.now_s())

    def fault(self, kind: str, device: str | None, until_s: float | None) -> BusFault | None:
        alone = device in self.placed and len(self.placed) == 1
        return super().fault(kind, None if alone else device, until_s)

    def publish(self, user: BoardUser, topic: str, payload: bytes, retain: bool) -> None:
        self.enter(user)
        if not topic or any(sign in topic for sign in "+#\0"):
            raise PlaceRefused(
                f"MQTT topic {topic!r} on {self.name} is not one to publish to: no +, # or NUL"
            )
        self.board.record.add(self.board.now_s(), self.name, user.by, topic=topic, bytes=as_text(payload))
        self.sent.append((topic, payload))
        del self.sent[:-SENT_KEPT]
        self._spread(topic, payload, retain)
        for placed in self.placed.values():
            if isinstance(placed.chip, MqttChip) and not self.has("unplug", placed.name):
                self._say(placed.chip.saw(topic, payload))
                Medium.after(self, placed, self.board.now_s(), user.by)

    def subscribe(self, user: BoardUser, filters: Iterable[str]) -> Mailbox:
        self.enter(user)
        subscription = _TopicSubscription(tuple(filters), Mailbox(self.board.lock, MESSAGES_MAX))
        self._subscriptions.append(subscription)
        for topic, payload in self._retained.items():
            if any(matches(wanted, topic) for wanted in subscription.filters):
                subscription.mailbox.put((topic, payload, True))
        return subscription.mailbox

    def unlisten(self, mailbox: Mailbox) -> None:
        self._subscriptions = [kept for kept in self._subscriptions if kept.mailbox is not mailbox]

    def unplugged(self, reason: str) -> None:
        for subscription in self._subscriptions:
            subscription.mailbox.end(reason)
        self._subscriptions = []

    def feed(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """A message of another device."""
        self._spread(topic, payload, retain)

    def after(self, placed: Placed, at_s: float, by: str = "stimulus") -> None:
        super().after(placed, at_s, by)
        if isinstance(placed.chip, MqttChip) and not self.has("unplug", placed.name):
            self._say(placed.chip.publishes())

    def _say(self, publications: Iterable[Publication]) -> None:
        for publication in publications:
            self._spread(publication.topic, publication.payload, publication.retain)

    def _spread(self, topic: str, payload: bytes, retain: bool) -> None:
        if self.has("frozen") or self.has("stuck"):
            return
        if self.has("corrupt"):
            payload = corrupted(payload, self.chance)
        if self.has("noise"):
            payload = noisy(payload, self.chance)
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        for subscription in self._subscriptions:
            if any(matches(wanted, topic) for wanted in subscription.filters):
                subscription.mailbox.put((topic, payload, False))

    def show(self) -> dict[str, Any]:
        return super().show() | {
            "retained": {topic: as_text(payload) for topic, payload in self._retained.items()},
            "subscriptions": [list(subscription.filters) for subscription in self._subscriptions],
        }
