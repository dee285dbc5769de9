"""A local MQTT broker, on paho-mqtt 2.

One client is one connection: when it is lost, every source raises BusGone and the owner of the bus opens
anew, so that no command waits in a library's queue and arrives late. Callbacks do nothing but hand over.
"""

import os
import select
import ssl
import stat
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

from device_agent.bus.config import MqttBusConfig
from device_agent.bus.core import give_way
from device_agent.bus.inbox import Inbox
from device_agent.bus.mqtt import MqttBus, MqttMessage, matches
from device_agent.bus.recipe import Recipe, Steps
from device_agent.errors import BusDenied, BusError, BusGone, BusTimeout, PlaceRefused

# Connecting, TLS and CONNACK together stay below the limit that the bus's owner sets for opening (10 s).
CONNECT_LIMIT_S = 8.0
CLOSE_LIMIT_S = 0.8
# How often the keepalive is looked at when nothing else happens.
LOOK_EVERY_S = 1.0
# What waits for the event loop at most; a flood must not fill the memory.
MESSAGES_MAX = 10_000
WAITING_MAX_BYTES = 4_000_000
# MQTT reason codes: bad user name or password, not authorized
DENIED = (134, 135)
REFUSED = 128


class PahoMqtt(MqttBus):
    """One connection to one broker, with a thread of its own for paho's network loop."""

    def __init__(self, name: str, config: MqttBusConfig) -> None:
        self.name = name
        self.config = config
        self._connection: _Connection | None = None

    def open(self) -> None:
        self.close()
        connection = _Connection(self.name, self.config)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        give_way()
        self._open_connection().publish(topic, payload, qos, retain)

    def subscribe(self, topics: tuple[str, ...], *, qos: int = 1) -> "MqttSubscription":
        return self._open_connection().subscribe(topics, qos)

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

    def __init__(self, name: str, config: MqttBusConfig) -> None:
        self.name = name
        self.config = config
        self.where = f"bus {name} ({config.host}:{config.port})"
        self._limit_s = config.timeout_s * 0.8  # a call ends before its job's limit
        self._changed = threading.Condition()
        self._answer: Any = None
        self._granted: dict[int, Sequence[Any]] = {}
        self._lost = ""
        self._subscriptions: tuple[MqttSubscription, ...] = ()
        self._thread: threading.Thread | None = None
        self._client = self._make_client()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def _make_client(self) -> Any:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        config = self.config
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=config.client_id or "", reconnect_on_failure=False
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
            mode = stat.S_IMODE(Path(file).stat().st_mode)
        except OSError as error:
            raise BusDenied(f"{self.where}: {option} {file} cannot be read: {error}") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BusDenied(
                f"{self.where}: {option} {file} may be read by others (mode {mode:04o}); run chmod 600 {file}"
            )

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
                lambda: self._answer is not None or self._lost, deadline_s - time.monotonic()
            )
            answer, lost = self._answer, self._lost
        if answer is None:
            raise BusGone(f"{self.where}: the broker did not greet: {lost or 'no answer in time'}")
        if answer.value in DENIED:
            raise BusDenied(f"{self.where}: {answer}; check `username` and `password_file`")
        if answer.is_failure:
            raise BusError(f"{self.where}: the broker refuses: {answer}")

    def close(self) -> None:
        self._lose("closed")
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
        self._lose(reason)

    def _pump(self) -> str:
        """Move packets until the connection ends; returns why. Not paho's own loop: it is built on select(),
        which fails for descriptors above 1023, and leaves a pair of sockets behind."""
        client, wake = self._client, self._wake
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        result: Any = 0
        while result == 0 and (socket := client.socket()) is not None:
            poll.register(socket, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            decrypted = self.config.tls and socket.pending() > 0
            ready = dict(poll.poll(0 if decrypted else LOOK_EVERY_S * 1000))
            if wake in ready:
                os.eventfd_read(wake)
            if decrypted or ready.get(socket.fileno(), 0) & ~select.POLLOUT:
                result = client.loop_read()
            if result == 0 and client.want_write():
                result = client.loop_write()
            if result == 0:
                result = client.loop_misc()  # keepalive
        why = result.name if result else "closed by the broker"
        id_ = self.config.client_id
        return f"{why}: the broker ended, or another client has the id {id_!r} too" if id_ else why

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._lost = self._lost or reason
            subscriptions = self._subscriptions
            self._changed.notify_all()
        for subscription in subscriptions:
            subscription.fail(self._gone())

    def _gone(self) -> BusGone:
        return BusGone(f"{self.where}: {self._lost}")

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
        for subscription in self._subscriptions:
            if any(matches(topic, message.topic) for topic in subscription.topics):
                subscription.put(MqttMessage(message.topic, bytes(message.payload), message.retain))

    # -- called on the bus's thread ----------------------------------------

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if self._lost:
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
            if left_s <= 0 or self._lost:
                why = self._lost or f"no acknowledgement in {self._limit_s:g} s"
                raise BusTimeout(f"{self.where}: {topic!r} may have been published: {why}")
            sent.wait_for_publish(min(left_s, 0.1))
            give_way()

    def subscribe(self, topics: tuple[str, ...], qos: int) -> MqttSubscription:
        subscription = MqttSubscription(self, topics)
        with self._changed:
            self._subscriptions += (subscription,)
        if self._lost:
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
                self._changed.wait_for(lambda: mid in self._granted or self._lost, self._limit_s)
            reasons = self._granted.pop(mid, None)
        if reasons is None:
            if self._lost or result != 0:
                raise BusGone(f"{self.where}: {self._lost or result.name}")
            raise BusTimeout(f"{self.where}: no answer to a subscription in {self._limit_s:g} s")
        refused = [topic for topic, reason in zip(topics, reasons, strict=False) if reason.value >= REFUSED]
        if refused:
            raise BusDenied(f"{self.where}: the broker refuses {', '.join(refused)}; check its access list")

    def forget(self, subscription: MqttSubscription) -> None:
        with self._changed:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
            wanted = {topic for s in self._subscriptions for topic in s.topics}
        unwanted = [topic for topic in subscription.topics if topic not in wanted]
        if unwanted and not self._lost:
            self._client.unsubscribe(unwanted)
