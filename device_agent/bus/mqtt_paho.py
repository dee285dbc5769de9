"""A local MQTT broker, on paho-mqtt 2.

One client is one connection: when it is lost, every source raises BusGone and the owner of the bus opens
anew, so that no command waits in a library's queue and arrives late. Callbacks do nothing but hand over.
"""

import time
from collections.abc import Callable
from typing import Any

from device_agent.bus.config import MqttBusConfig
from device_agent.bus.core import give_way
from device_agent.bus.inbox import Inbox
from device_agent.bus.mqtt import MqttBus, MqttMessage, matches
from device_agent.bus.mqtt_connection import MESSAGE_MAX_BYTES, Greeting, MqttConnection
from device_agent.bus.recipe import Recipe, Steps
from device_agent.errors import BusError, BusGone, BusTimeout, PlaceRefused

# What waits for the event loop at most; a flood must not fill the memory.
MESSAGES_MAX = 10_000
WAITING_MAX_BYTES = MESSAGE_MAX_BYTES


class PahoMqtt(MqttBus):
    """One connection to one broker, with a thread of its own for paho's network loop."""

    def __init__(self, name: str, config: MqttBusConfig) -> None:
        self.name = name
        self.config = config
        self._connection: _Connection | None = None
        self._receiving: _Connection | None = None
        """Of its own: an acknowledgement must not wait behind a flood of messages."""

    def open(self) -> None:
        self.close()
        self._connection = self._connected(self.config.client_id or "", self._lose)

    def _connected(self, id_: str, on_lost: Callable[[str], None]) -> "_Connection":
        connection = _Connection(self.name, self.config, id_, on_lost)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _lose(self, reason: str) -> None:
        """The bus is lost with either connection."""
        for connection in (self._connection, self._receiving):
            if connection is not None:
                connection.lose(reason)

    def close(self) -> None:
        for connection in (self._receiving, self._connection):
            if connection is not None:
                connection.close()
        self._connection = self._receiving = None

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        give_way()
        self._open_connection().publish(topic, payload, qos, retain)

    def subscribe(self, topics: tuple[str, ...], *, qos: int = 1) -> "MqttSubscription":
        sending = self._open_connection()
        if self._receiving is None:
            id_ = self.config.client_id
            self._receiving = self._connected(f"{id_}-in" if id_ else "", self._lose)
        if sending.lost:
            self._receiving.lose(sending.lost)
        return self._receiving.subscribe(topics, qos)

    def recipe(self, steps: Steps) -> Recipe:
        """Steps are (topic, payload, retain); the guard connects by itself when it has to."""
        config = self.config
        members = {
            "host": config.host,
            "port": config.port,
            "username": config.username,
            "password": None if config.username is None else self._open_connection().password(),
            "tls": config.tls,
            "ca_file": config.ca_file,
            "certificate_file": config.certificate_file,
            "key_file": config.key_file,
            "messages": [step for step in steps if not isinstance(step, float)],
        }
        return Recipe("mqtt", members)

    def _open_connection(self) -> "_Connection":
        if self._connection is None:
            raise BusGone(f"bus {self.name}: {self.config.host}:{self.config.port} is not connected")
        return self._connection


class MqttSubscription(Inbox[MqttMessage]):
    """Messages of some topic filters."""

    def __init__(self, connection: "_Connection", topics: tuple[str, ...]) -> None:
        super().__init__(
            MESSAGES_MAX,
            bytes_max=WAITING_MAX_BYTES,
            size_bytes=lambda message: len(message.topic) + len(message.payload),
        )
        self.topics = topics
        self._connection = connection

    def close(self) -> None:
        self._connection.forget(self)
        super().close()


class _Connection(MqttConnection):
    """Of a bus, whose devices take their messages out of inboxes."""

    def __init__(self, name: str, config: MqttBusConfig, id_: str, on_lost: Callable[[str], None]) -> None:
        self._subscriptions: tuple[MqttSubscription, ...] = ()
        super().__init__(f"bus {name}", config, Greeting(id_), on_lost)

    def _ended(self) -> None:
        for subscription in self._subscriptions:
            subscription.fail(self.gone())

    def _received(self, message: Any, *, whole: bool) -> None:
        for subscription in self._subscriptions:
            if any(matches(topic, message.topic) for topic in subscription.topics):
                if whole:
                    subscription.put(MqttMessage(message.topic, bytes(message.payload), message.retain))
                else:
                    subscription.lose()

    # -- called on the bus's thread ----------------------------------------

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if self.lost:
            raise self.gone()
        try:
            sent = self._client.publish(topic, payload, qos=qos, retain=retain)
        except ValueError as error:
            raise PlaceRefused(f"{self.where}: cannot publish to {topic!r}: {error}") from error
        if sent.rc != 0:
            raise BusGone(f"{self.where}: {topic!r} was not sent: {sent.rc.name}")
        if qos == 0:
            return
        deadline_s = time.monotonic() + self._limit_s
        while not sent.is_published():
            # In slices, because a lost connection does not wake who waits for an acknowledgement
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or self.lost:
                why = self.lost or f"no acknowledgement in {self._limit_s:g} s"
                raise BusTimeout(f"{self.where}: {topic!r} may have been published: {why}")
            sent.wait_for_publish(min(left_s, 0.1))
            give_way()

    def subscribe(self, topics: tuple[str, ...], qos: int) -> MqttSubscription:
        subscription = MqttSubscription(self, topics)
        with self._changed:
            self._subscriptions += (subscription,)
        if self.lost:
            subscription.fail(self.gone())  # lost since the caller looked
        try:
            if topics:
                self.ask(topics, qos)
        except BusError:
            subscription.close()
            raise
        return subscription

    def forget(self, subscription: MqttSubscription) -> None:
        with self._changed:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
            wanted = {topic for s in self._subscriptions for topic in s.topics}
        unwanted = [topic for topic in subscription.topics if topic not in wanted]
        if unwanted and not self.lost:
            self._client.unsubscribe(unwanted)
