"""Two connections to one broker, used from the event loop, for whoever serves others by it.

What the broker accepted is told apart from what it refused (MQTT 5 says so) and from what nobody knows.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import structlog

from device_agent.bus.core import Bus, Handle
from device_agent.bus.mqtt_connection import REFUSED, BrokerOptions, Greeting, MqttConnection
from device_agent.errors import BusDenied, BusError, BusTimeout

log = structlog.get_logger("bus")

# How often it is proven that commands come without delay (docs/mqtt.md).
PROVE_EVERY_S = 2.0
# Without an answer for so long, a message counts as lost with its connection.
ACCEPT_LIMIT_S = 20.0
# Commands that wait for the event loop; what comes beyond them is dropped.
INCOMING_MAX = 1000
CLOSE_LIMIT_S = 10.0
# Closing goes on beside for so long: what is not closed is never given back.
CLOSE_PATIENCE_S = 60.0


class Outgoing(NamedTuple):
    """A message to publish. `expires_s` and `correlation` are for brokers of MQTT 5."""

    topic: str
    payload: bytes
    retain: bool = False
    expires_s: int | None = None
    correlation: bytes | None = None


class Incoming(NamedTuple):
    """A message that came. `age_s`: it is no older, by the broker's last sign of life."""

    topic: str
    payload: bytes
    retained: bool
    age_s: float
    expires_s: int | None = None
    response_topic: str | None = None
    correlation: bytes | None = None


class _Receipt:
    """What the broker still owes for some messages."""

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left
        self.refused = ""


class _Connection(MqttConnection):
    """Hands everything over to the event loop, many at a time."""

    def __init__(
        self, config: BrokerOptions, greeting: Greeting, on_message: Callable[[Incoming], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        self.version = greeting.version
        self._take = on_message
        self._acked: deque[tuple[int, str]] = deque()
        self._owed: dict[int, _Receipt] = {}
        self._incoming = self._overrun = 0
        super().__init__("mqtt", config, greeting, self._say_lost)

    # -- on the connection's thread ----------------------------------------

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        first = not self._acked
        self._acked.append((mid, str(reason) if reason.value >= REFUSED else ""))
        if first:
            self._tell(self._settle)

    def _received(self, message: Any, *, whole: bool) -> None:
        if not whole:
            return
        if self._incoming >= INCOMING_MAX:
            self._overrun += 1
            if self._overrun == 1 or self._overrun % 1000 == 0:
                log.warning("mqtt_commands_dropped", topic=message.topic, count=self._overrun)
            return
        self._incoming += 1
        properties = message.properties
        self._tell(
            self._hand_over,
            Incoming(
                message.topic,
                bytes(message.payload),
                message.retain,
                time.monotonic() - self._client.proven_s,
                getattr(properties, "MessageExpiryInterval", None),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            ),
        )

    def _say_lost(self, why: str) -> None:
        self._tell(self._end)

    # -- on the event loop ----------------------------------------

    def _hand_over(self, message: Incoming) -> None:
        self._incoming -= 1
        self._take(message)

    def _settle(self) -> None:
        while self._acked:
            mid, refused = self._acked.popleft()
            receipt = self._owed.pop(mid, None)
            if receipt is None:
                continue
            receipt.left -= 1
            receipt.refused = receipt.refused or refused
            if not receipt.left and not receipt.future.done():
                receipt.future.set_result(None)

    def _end(self) -> None:
        self.over.set()
        for receipt in self._owed.values():
            if not receipt.future.done():
                receipt.future.set_exception(self.gone())
        self._owed.clear()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when the broker has accepted all. Raises BusDenied for what it refuses, BusError."""
        if self.lost:
            raise self.gone()
        receipt = _Receipt(self._loop.create_future(), len(messages))
        try:
            for message in messages:
                sent = self._client.publish(
                    message.topic, message.payload, 1, message.retain, self._properties(message)
                )
                self._owed[sent.mid] = receipt
            if self.lost:
                raise self.gone()
            async with asyncio.timeout(ACCEPT_LIMIT_S):
                await receipt.future
        except ValueError as error:
            raise BusDenied(f"{self.where}: cannot publish to {message.topic!r}: {error}") from error
        except TimeoutError:
            raise BusTimeout(f"{self.where}: no acknowledgement in {ACCEPT_LIMIT_S:g} s") from None
        finally:
            receipt.future.cancel()  # nobody asks for it any more
        if receipt.refused:
            topics = ", ".join(sorted({message.topic for message in messages})[:3])
            raise BusDenied(f"{self.where}: the broker refuses {topics}: {receipt.refused}")

    def _properties(self, message: Outgoing) -> Any:
        if self.version < 5 or (message.expires_s is None and message.correlation is None):
            return None
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if message.expires_s is not None:
            properties.MessageExpiryInterval = message.expires_s
        if message.correlation is not None:
            properties.CorrelationData = message.correlation
        return properties


class _Broker(Handle):
    """What is opened and closed on the thread that may wait."""

    kind = "mqtt"

    def __init__(self, connections: Sequence[_Connection]) -> None:
        self.connections = connections

    def open(self) -> None:
        try:
            for connection in self.connections:
                connection.connect()
                if connection.lost:
                    raise connection.gone()
        except BusError:
            self.close()
            raise

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


class BrokerLink:
    """Both connections, from `open` to `close`; over when either is lost.

    Commands come on one of their own: no acknowledgement of ours waits behind a flood of them. They come at
    most once, so that the broker has no reason to keep one back.
    """

    def __init__(
        self,
        config: BrokerOptions,
        will: tuple[str, bytes],
        version: int,
        on_stale: Callable[[Incoming], None],
        on_command: Callable[[Incoming], None] | None,
    ) -> None:
        """`on_stale` gets what is retained of earlier times; without `on_command` no commands are heard."""
        self._sending = _Connection(config, Greeting(will=will, version=version), on_stale)
        self._receiving = None
        if on_command is not None:
            greeting = Greeting(version=version, prove_every_s=PROVE_EVERY_S)
            self._receiving = _Connection(config, greeting, on_command)
        self._broker = _Broker([one for one in (self._sending, self._receiving) if one is not None])
        self._bus = Bus("mqtt", self._broker)

    @property
    def version_refused(self) -> bool:
        """Whether the broker may speak an older protocol only; after `open` failed."""
        return self._sending.version_refused

    async def open(self) -> None:
        """Raises BusError."""
        await self._bus.open()

    async def listen(self, stale: str, commands: Sequence[str]) -> None:
        """Subscribe. Raises BusError."""
        await self._bus.run(lambda: self._sending.ask([stale], 0), self._bus.timeout_s * 5)
        receiving = self._receiving
        if receiving is not None:
            await self._bus.run(lambda: receiving.ask(commands, 0), self._bus.timeout_s * 5)

    def publish(self, *messages: Outgoing) -> Awaitable[None]:
        """Returns when the broker has accepted all. Raises BusDenied for what it refuses, BusError."""
        return self._sending.publish(messages)

    async def until_lost(self) -> None:
        """Raises BusError when either connection is lost."""
        ends = self._broker.connections
        waits = [asyncio.ensure_future(one.over.wait()) for one in ends]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        raise next(one.gone() for one in ends if one.lost)

    async def close(self) -> None:
        """Never raises. One that is just being made ends by itself."""
        for connection in self._broker.connections:
            connection.lose("closed")
        closing = asyncio.ensure_future(self._bus.run_anyway(self._broker.close, CLOSE_PATIENCE_S))
        closing.add_done_callback(self._closed)
        await asyncio.wait([closing], timeout=CLOSE_LIMIT_S)

    def _closed(self, closing: "asyncio.Future[None]") -> None:
        if not closing.cancelled() and (error := closing.exception()) is not None:
            log.debug("mqtt_close_failed", error=str(error))
        self._bus.stop()
