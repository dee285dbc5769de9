"""MQTT as a bus: a local broker to which other devices connect."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from device_agent.bus.core import Handle, Source


@dataclass(frozen=True, slots=True)
class MqttMessage:
    """One message as it came."""

    topic: str
    payload: bytes
    retained: bool = False


class MqttBus(Handle):
    """What a driver sees of a broker. Every call raises BusGone (connection lost), BusTimeout or BusError."""

    kind: ClassVar[str] = "mqtt"

    @abstractmethod
    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Send and, with qos 1 or 2, wait for the broker's acknowledgement."""

    @abstractmethod
    def subscribe(self, topics: tuple[str, ...], *, qos: int = 1) -> Source:
        """Messages of these topic filters, as chunks of MqttMessage."""


def matches(wanted: str, topic: str) -> bool:
    """Whether a topic filter matches (MQTT 3.1.1, 4.7): + one level, # the rest, neither on a leading $."""
    if topic.startswith("$") and wanted[:1] in ("+", "#"):
        return False
    levels, parts = wanted.split("/"), topic.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(parts) or level not in ("+", parts[index]):
            return False
    return len(levels) == len(parts)
