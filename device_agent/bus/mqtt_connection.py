"""One connection of paho-mqtt 2 to a broker, with a thread of its own for what comes and goes.

For MQTT devices (`mqtt_paho`) and for the MQTT door. When it is lost it stays so, and its owner makes a new
one, so that nothing waits in the library's queue and arrives late.
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
from typing import Any, NamedTuple, Protocol

import structlog

from device_agent.errors import BusDenied, BusError, BusGone, BusTimeout, PlaceRefused
from device_agent.store.files import open_to_others
from device_agent.text.printable import printable

log = structlog.get_logger("bus")

# Connecting, TLS and CONNACK together stay below the limit that the bus's owner sets for opening (10 s).
CONNECT_LIMIT_S = 8.0
CLOSE_LIMIT_S = 0.8
# How often the keepalive is looked at when nothing else happens.
LOOK_EVERY_S = 1.0
# Of a larger message only so much is kept as to drop it: there would be no room for it.
MESSAGE_MAX_BYTES = 4_000_000
# What is read in one window; then the broker has to wait, and to drop what it has no room for. The library
# parses in Python, and holds up the event loop meanwhile.
WINDOW_S = 0.1
WINDOW_MESSAGES = 200
WINDOW_BYTES = 1_000_000
# MQTT reason codes: bad user name or password, not authorized; a version that the broker does not speak.
DENIED = (134, 135)
UNKNOWN_VERSION = 132
REFUSED = 128


class BrokerOptions(Protocol):
    """Which broker, and who we are there: of a bus, or of the door."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password_file(self) -> str | Path | None: ...
    @property
    def tls(self) -> bool: ...
    @property
    def ca_file(self) -> str | Path | None: ...
    @property
    def certificate_file(self) -> str | Path | None: ...
    @property
    def key_file(self) -> str | Path | None: ...
    @property
    def keepalive_s(self) -> int: ...
    @property
    def timeout_s(self) -> float: ...


class Greeting(NamedTuple):
    """How a connection begins. `will` (topic, payload) is published, retained, when it is lost; `version` is
    4 for MQTT 3.1.1, or 5; `prove_every_s`: how often it is proven that the far end answers."""

    id: str = ""
    will: tuple[str, bytes] | None = None
    version: int = 4
    prove_every_s: float | None = None


class MqttConnection:
    """Lives once: connect, use, close."""

    def __init__(
        self, where: str, config: BrokerOptions, greeting: Greeting, on_lost: Callable[[str], None]
    ) -> None:
        """`where` begins each error. `on_lost` is called once, on any thread."""
        self.config = config
        self.where = f"{where} ({config.host}:{config.port})"
        self.lost = ""
        self.version_refused = False
        self._greeting = greeting
        self._on_lost = on_lost
        self._limit_s = config.timeout_s * 0.8  # a call ends before its job's limit
        self._changed = threading.Condition()
        self._answer: Any = None
        self._granted: dict[int, Sequence[Any]] = {}
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._window_s = 0.0
        self._window_messages = self._window_bytes = 0
        self._client = self._make_client()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def _make_client(self) -> Any:
        from paho.mqtt.enums import CallbackAPIVersion

        from device_agent.bus.mqtt_client import BoundedClient

        config, greeting = self.config, self._greeting
        client = BoundedClient(
            MESSAGE_MAX_BYTES,
            CallbackAPIVersion.VERSION2,
            client_id=greeting.id,
            protocol=greeting.version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_LIMIT_S / 2
        client.suppress_exceptions = True
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        # With this set, other threads only queue what they send, and our thread alone writes.
        client.on_socket_register_write = lambda *_: os.eventfd_write(self._wake, 1)
        if greeting.will is not None:
            client.will_set(*greeting.will, qos=1, retain=True)
        if config.username is not None:
            client.username_pw_set(config.username, self.password())
        if config.tls:
            self._set_tls(client)
        return client

    def _set_tls(self, client: Any) -> None:
        config = self.config
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

    def _check_private(self, option: str, file: str | Path) -> None:
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
        """Blocks. Raises BusError; `version_refused` says then whether an older protocol may do."""
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
        self._thread = threading.Thread(target=self._work, name=f"mqtt {self.where}", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._answer is not None or self.lost, deadline_s - time.monotonic()
            )
            answer, lost = self._answer, self.lost
        # Brokers of the old protocol say so, or just hang up.
        self.version_refused = answer is None or answer.value == UNKNOWN_VERSION
        if answer is None:
            raise BusGone(f"{self.where}: the broker did not greet: {lost or 'no answer in time'}")
        if answer.value in DENIED:
            raise BusDenied(f"{self.where}: {answer}; check `username` and `password_file`")
        if answer.is_failure:
            raise BusError(f"{self.where}: the broker refuses: {answer}")

    def close(self) -> None:
        """Blocks for a moment."""
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
        client, wake, prove_every_s = self._client, self._wake, self._greeting.prove_every_s
        look_s = min(LOOK_EVERY_S, prove_every_s or LOOK_EVERY_S)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        result: Any = 0
        while result == 0 and (socket := client.socket()) is not None:
            wait_s = self._wait_s()
            wanted = select.POLLOUT if client.want_write() else 0
            poll.register(socket, wanted if wait_s else wanted | select.POLLIN)
            decrypted = not wait_s and self.config.tls and socket.pending() > 0
            ready = dict(poll.poll(0 if decrypted else min(wait_s or look_s, look_s) * 1000))
            if wake in ready:
                os.eventfd_read(wake)
            if decrypted or (not wait_s and ready.get(socket.fileno(), 0) & ~select.POLLOUT):
                result = client.loop_read()
            if result == 0 and client.want_write():
                result = client.loop_write()
            if result == 0:
                result = client.loop_misc()  # keepalive
            if result == 0 and prove_every_s is not None:
                client.prove(prove_every_s)
        why = result.name if result else "closed by the broker"
        id_ = self._greeting.id
        shared = f"{why}: the broker ended, or another client has the id {id_!r} too"
        return shared if id_ else why

    def _wait_s(self) -> float:
        """How long nothing is read, since enough was read in this window."""
        now_s = time.monotonic()
        if now_s >= self._window_s + WINDOW_S:
            self._window_s, self._window_messages, self._window_bytes = now_s, 0, 0
        full = self._window_messages >= WINDOW_MESSAGES or self._window_bytes >= WINDOW_BYTES
        return self._window_s + WINDOW_S - now_s if full else 0.0

    def lose(self, reason: str) -> None:
        """It is over, for this reason; the first one counts."""
        with self._changed:
            if self.lost:
                return
            self.lost = reason
            self._changed.notify_all()
        self._ended()
        self._on_lost(reason)

    def _ended(self) -> None:
        """It was lost: `lost` says why."""

    def gone(self) -> BusGone:
        """What to raise once it is lost."""
        return BusGone(f"{self.where}: {self.lost}")

    # -- paho's callbacks, on our thread ----------------------------------------

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._answer = reason
            self._changed.notify_all()

    def _on_subscribe(self, client: Any, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        with self._changed:
            self._granted[mid] = reasons
            self._changed.notify_all()

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        """A message was acknowledged, or refused."""

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
                    broker=self.where,
                    topic=topic,
                    bytes=size_bytes,
                    count=self._dropped,
                )
        self._received(message, whole=not left_out_bytes)

    def _received(self, message: Any, *, whole: bool) -> None:
        """A message came; not `whole`: it was too large, and its middle is missing."""

    # -- called on the owner's thread ----------------------------------------

    def ask(self, topics: Sequence[str], qos: int) -> None:
        """Subscribe; blocks until the broker has answered. Raises BusError, PlaceRefused for bad topics."""
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
