"""A client of a broker, as other people's programs are: what came, by topic, in order."""

import json
import threading
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.waiting import LIMIT_S, until


class Got(NamedTuple):
    topic: str
    payload: bytes
    retained: bool
    properties: Any

    def json(self) -> Any:
        return json.loads(self.payload)


class BrokerClient:
    """Comes back by itself. `session`: the broker keeps what it misses meanwhile."""

    def __init__(
        self, port: int, *topics: str, version: int = 5, session: bool = False, id_: str = ""
    ) -> None:
        """With the `id_` of one that is closed: its session goes on."""
        self.got: list[Got] = []
        self._new = threading.Condition()
        self._topics = topics
        self.id = id_ or f"t-{uuid.uuid4().hex[:12]}"
        clean = {} if version == 5 else {"clean_session": not session}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, self.id, protocol=version, **clean)  # type: ignore[arg-type]
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._subscribe
        self.client.on_message = self._take
        self.subscribed = 0
        """How often it has come in and its topics were granted."""
        self.client.on_subscribe = self._granted
        options: dict[str, Any] = {}
        if version == 5 and session:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            options = {"properties": properties, "clean_start": False}
        self.client.connect("127.0.0.1", port, keepalive=10, **options)
        self.client.loop_start()
        if topics:
            until(lambda: self.subscribed, "the subscription")

    def _subscribe(self, client: Any, *_: Any) -> None:
        if self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _granted(self, *_: Any) -> None:
        self.subscribed += 1

    def _take(self, client: Any, data: Any, message: Any) -> None:
        with self._new:
            self.got.append(Got(message.topic, message.payload, message.retain, message.properties))
            self._new.notify_all()

    def publish(
        self, topic: str, payload: object = b"", *, retain: bool = False, qos: int = 1, **properties: Any
    ) -> None:
        """Returns when the broker has it."""
        body = payload if isinstance(payload, (bytes, str)) else json.dumps(payload)
        own = None
        if properties:
            own = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(own, name, value)
        self.client.publish(topic, body, qos, retain, own).wait_for_publish(LIMIT_S)

    def of(self, topic: str) -> list[Got]:
        return [one for one in list(self.got) if one.topic == topic]

    def until(
        self, topic: str, fits: Callable[[Got], bool] = lambda _: True, limit_s: float = LIMIT_S
    ) -> Got:
        """The first message of this topic that fits, when it has come."""

        def found() -> bool:
            return any(fits(one) for one in self.of(topic))

        until(found, f"a message of {topic}; there are {[one[:2] for one in self.got[-20:]]}", limit_s)
        return next(one for one in self.of(topic) if fits(one))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
