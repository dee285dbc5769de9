"""A local MQTT broker, on paho-mqtt 2.

One client is one connection: when it is lost, every source raises BusGone and the owner of the bus opens
anew, so that no command waits in a library's queue and arrives late. Callbacks do nothing but hand over.
"""

import os
import select
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import structlog

from device_agent.bus.config import MqttBusConfig
from device_agent.bus.core import give_way
from device_agent.bus.inbox import Inbox
from device_agent.bus.mqtt import MqttBus, MqttMessage, matches
from device_agent.bus.recipe import Recipe, Steps
from device_agent.errors import BusDenied, BusError, BusGone, BusTimeout, PlaceRefused
from device_agent.store.files import open_to_others
from device_agent.text.printable import printable

log = structlog.get_logger("bus")

# Connecting, TLS and CONNACK together stay below the limit that the bus's owner sets for opening (10 s).
CONNECT_LIMIT_S = 8.0
CLOSE_LIMIT_S = 0.8
# How often the keepalive is looked at when nothing else happens.
LOOK_EVERY_S = 1.0
# What waits for the event loop at most; a flood must not fill the memory.
MESSAGES_MAX = 10_000
WAITING_MAX_BYTES = 4_000_000
# Of a larger message only so much is kept as to drop it: there would be no room for it.
MESSAGE_MAX_BYTES = WAITING_MAX_BYTES
# What is read in one window; then the broker has to wait, and to drop what it has no room for. The library
# parses in Python, and holds up the event loop meanwhile.
WINDOW_S = 0.1
WINDOW_MESSAGES = 200
WINDOW_BYTES = 1_000_000
# MQTT reason codes: bad user name or password, not authorized
DENIED = (134, 135)
REFUSED = 128


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


class _Connection:
    """Lives once: connect, use, close."""

    def __init__(self, name: str, config: MqttBusConfig, id_: str, on_lost: Callable[[str], None]) -> None:
        self.name = name
        self.config = config
        self._id = id_
        self._on_lost = on_lost
        self.where = f"bus {name} ({config.host}:{config.port})"
        self._limit_s = config.timeout_s * 0.8  # a call ends before its job's limit
        self._changed = threading.Condition()
        self._answer: Any = None
        self._granted: dict[int, Sequence[Any]] = {}
        self.lost = ""
        self._subscriptions: tuple[MqttSubscription, ...] = ()
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._window_s = 0.0
        self._window_messages = self._window_bytes = 0
        self._client = self._make_client()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def _make_client(self) -> Any:
        from paho.mqtt.enums import CallbackAPIVersion

        from device_agent.bus.mqtt_client import BoundedClient

        config = self.config
        client = BoundedClient(
            MESSAGE_MAX_BYTES,
            CallbackAPIVersion.VERSION2,
            client_id=self._id,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_LIMIT_S / 2
        client.suppress_exceptions = True
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        # With this set, other threads only queue what they send, and our thread alone writes.
        client.on_socket_register_write = lambda *_: os.eventfd_write(self._wake, 1)
        if config.username is not None:
            client.username_pw_set(config.username, self.password())
        if config.tls:
            if config.key_file is not None:
                self._check_private("key_file", config.key_file)
            try:
                client.tls_set(config.ca_file, config.certificate_file, config.key_file)
            except OSError as error:  # ssl.SSLError is one
                files = ", ".join(
                    f"{name} {file}"
                    for name in ("ca_file", "certificate_file", "key_file")
                    if (file := getattr(config, name)) is not None
                )
                raise BusError(f"{self.where}: {files} cannot be used: {error}") from error
        return client

    def _check_private(self, option: str, file: str) -> None:
        try:
            others = open_to_others(Path(file))
        except OSError as error:
            raise BusDenied(f"{self.where}: {option} {file} cannot be read: {error}") from error
        if others:
            raise BusDenied(f"{self.where}: {option} {file} {others}")

    def password(self) -> str | None:
        """Read anew each time. Raises BusDenied."""
        file = self.config.password_file
        if file is None:
            return None
        self._check_private("password_file", file)
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BusDenied(f"{self.where}: password_file {file} cannot be read: {error}") from error

    # -- life ----------------------------------------

    def connect(self) -> None:
        config = self.config
        deadline_s = time.monotonic() + CONNECT_LIMIT_S
        try:
            self._client.connect(config.host, config.port, keepalive=config.keepalive_s)
        except ssl.SSLError as error:
            raise BusError(
                f"{self.where}: TLS failed: {error}; check `tls`, `ca_file` and `certificate_file`"
            ) from error
        except (OSError, ValueError) as error:
            raise BusGone(f"{self.where}: no broker answers: {error}") from error
        self._thread = threading.Thread(target=self._work, name=f"bus-{self.name}-mqtt", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._answer is not None or self.lost, deadline_s - time.monotonic()
            )
            answer, lost = self._answer, self.lost
        if answer is None:
            raise BusGone(f"{self.where}: the broker did not greet: {lost or 'no answer in time'}")
        if answer.value in DENIED:
            raise BusDenied(f"{self.where}: {answer}; check `username` and `password_file`")
        if answer.is_failure:
            raise BusError(f"{self.where}: the broker refuses: {answer}")

    def close(self) -> None:
        self.lose("closed")
        if self._wake < 0:
            return
        self._client.disconnect()
        if self._thread is not None:
            self._thread.join(CLOSE_LIMIT_S)
        if (socket := self._client.socket()) is not None:
            # The far end takes nothing, not even a farewell
            with suppress(OSError):
                socket.shutdown(SHUT_RDWR)
            if self._thread is not None:
                self._thread.join(CLOSE_LIMIT_S)
            socket.close()
        wake, self._wake = self._wake, -1
        os.close(wake)

    def _work(self) -> None:
        reason = "connection lost"
        try:
            reason = f"connection lost ({self._pump()})"
        except Exception as error:  # noqa: BLE001 - whatever ends this thread is reported as the reason
            reason = f"connection lost ({error!r})"
        self.lose(reason)

    def _pump(self) -> str:
        """Move packets until the connection ends; returns why. Not paho's own loop: it is built on select(),
        which fails for descriptors above 1023, and leaves a pair of sockets behind."""
        client, wake = self._client, self._wake
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        result: Any = 0
        while result == 0 and (socket := client.socket()) is not None:
            wait_s = self._wait_s()
            wanted = select.POLLOUT if client.want_write() else 0
            poll.register(socket, wanted if wait_s else wanted | select.POLLIN)
            decrypted = not wait_s and self.config.tls and socket.pending() > 0
            ready = dict(poll.poll(0 if decrypted else min(wait_s or LOOK_EVERY_S, LOOK_EVERY_S) * 1000))
            if wake in ready:
                os.eventfd_read(wake)
            if decrypted or (not wait_s and ready.get(socket.fileno(), 0) & ~select.POLLOUT):
                result = client.loop_read()
            if result == 0 and client.want_write():
                result = client.loop_write()
            if result == 0:
                result = client.loop_misc()  # keepalive
        why = result.name if result else "closed by the broker"
        shared = f"{why}: the broker ended, or another client has the id {self._id!r} too"
        return shared if self._id else why

    def _wait_s(self) -> float:
        """How long nothing is read, since enough was read in this window."""
        now_s = time.monotonic()
        if now_s >= self._window_s + WINDOW_S:
            self._window_s, self._window_messages, self._window_bytes = now_s, 0, 0
        full = self._window_messages >= WINDOW_MESSAGES or self._window_bytes >= WINDOW_BYTES
        return self._window_s + WINDOW_S - now_s if full else 0.0

    def lose(self, reason: str) -> None:
        with self._changed:
            if self.lost:
                return
            self.lost = reason
            subscriptions = self._subscriptions
            self._changed.notify_all()
        for subscription in subscriptions:
            subscription.fail(self._gone())
        self._on_lost(reason)

    def _gone(self) -> BusGone:
        return BusGone(f"{self.where}: {self.lost}")

    # -- paho's callbacks, on the loop's thread ----------------------------------------

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._answer = reason
            self._changed.notify_all()

    def _on_subscribe(self, client: Any, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        with self._changed:
            self._granted[mid] = reasons
            self._changed.notify_all()

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        self._window_messages += 1
        self._window_bytes += len(message.payload)
        if left_out_bytes := client.take_left_out():
            self._dropped += 1
            if self._dropped == 1 or self._dropped % 1000 == 0:
                size_bytes = len(message.payload) + left_out_bytes
                topic = printable(message.topic)
                log.warning(
                    "mqtt_message_too_large",
                    bus=self.name,
                    topic=topic,
                    bytes=size_bytes,
                    count=self._dropped,
                )
        for subscription in self._subscriptions:
            if any(matches(topic, message.topic) for topic in subscription.topics):
                if left_out_bytes:
                    subscription.lose()
                else:
                    subscription.put(MqttMessage(message.topic, bytes(message.payload), message.retain))

    # -- called on the bus's thread ----------------------------------------

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if self.lost:
            raise self._gone()
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
            subscription.fail(self._gone())  # lost since the caller looked
        try:
            if topics:
                self._ask(topics, qos)
        except BusError:
            subscription.close()
            raise
        return subscription

    def _ask(self, topics: tuple[str, ...], qos: int) -> None:
        try:
            result, mid = self._client.subscribe([(topic, qos) for topic in topics])
        except ValueError as error:
            raise PlaceRefused(f"{self.where}: cannot subscribe to {', '.join(topics)}: {error}") from error
        with self._changed:
            if result == 0:
                self._changed.wait_for(lambda: mid in self._granted or self.lost, self._limit_s)
            reasons = self._granted.pop(mid, None)
        if reasons is None:
            if self.lost or result != 0:
                raise BusGone(f"{self.where}: {self.lost or result.name}")
            raise BusTimeout(f"{self.where}: no answer to a subscription in {self._limit_s:g} s")
        refused = [topic for topic, reason in zip(topics, reasons, strict=False) if reason.value >= REFUSED]
        if refused:
            raise BusDenied(f"{self.where}: the broker refuses {', '.join(refused)}; check its access list")

    def forget(self, subscription: MqttSubscription) -> None:
        with self._changed:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
            wanted = {topic for s in self._subscriptions for topic in s.topics}
        unwanted = [topic for topic in subscription.topics if topic not in wanted]
        if unwanted and not self.lost:
            self._client.unsubscribe(unwanted)
