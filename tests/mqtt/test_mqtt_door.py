"""The door alone, at a real broker: what it asks the daemon, and how old a command may be."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from device_agent.bus import mqtt_link
from device_agent.config.mqtt import MqttConfig
from device_agent.errors import Rejected
from device_agent.mqtt import door as door_module
from device_agent.mqtt.door import MqttDoor, question_of
from device_agent.network import OutgoingMessage
from support.broker_client import BrokerClient
from support.broker_proxy import BrokerProxy
from support.mosquitto import Broker
from support.waiting import until_async

P = "device-agent/a"
DESCRIBED = [
    {
        "device": "valve",
        "state": "online",
        "points": [{"name": "on", "type": "boolean", "write": True, "safe": False}],
    }
]


class Source:
    """Messages of the outbox: some, then none until more are added."""

    def __init__(self) -> None:
        self.closed = False
        self.waiting: list[OutgoingMessage] = []
        self.acknowledged: list[int] = []
        self._ready = asyncio.Event()

    def add(self, *items: bytes) -> None:
        self.waiting.append(OutgoingMessage(len(self.waiting) + len(self.acknowledged) + 1, items, 0))
        self._ready.set()

    async def until_ready(self) -> None:
        while not self.waiting:
            self._ready.clear()
            await self._ready.wait()

    def next_message(self, limit_bytes: int) -> OutgoingMessage | None:
        return self.waiting[0] if self.waiting else None

    def ack(self, message: OutgoingMessage) -> None:
        assert message is self.waiting.pop(0)
        self.acknowledged.append(message.number)


class Daemon:
    """Answers as the handlers do, and is the feed as well."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[Mapping[str, Any]] = []
        self.source = Source()
        self.devices = {"valve": ("online", {"device": "valve", "at": 7, "values": {"on": False}})}
        self.hold = asyncio.Event()
        self.hold.set()
        self._news: asyncio.Queue[set[str]] = asyncio.Queue()

    async def answer(self, question: Mapping[str, Any]) -> Any:
        match question["op"]:
            case "describe":
                return DESCRIBED
            case "status":
                return {"version": "1"}
        self.asked.append(dict(question))
        await self.hold.wait()
        if question["age_ms"] > question.get("ttl_ms", 5000):
            raise Rejected("expired", "too old")
        return {"id": question["id"], "state": "done"}

    def handlers(self) -> dict[str, Any]:
        return dict.fromkeys(("describe", "status", "set", "do", "stop"), self.answer)

    async def news(self) -> set[str]:
        return await self._news.get()

    def change(self, name: str, state: str, value: bool) -> None:
        self.devices[name] = (state, {"device": name, "at": 8, "values": {"on": value}})
        self._news.put_nowait({name})

    def present(self, name: str) -> tuple[str, dict[str, Any] | None]:
        state, reading = self.devices[name]
        return state, None if reading is None else dict(reading)

    def readable(self) -> list[str]:
        return list(self.devices)

    def answered(self, ack: Mapping[str, Any]) -> None:
        self.answers.append(ack)


@asynccontextmanager
async def joined(port: int, heard: BrokerClient, **options: Any) -> AsyncIterator[Daemon]:
    daemon = Daemon()
    config = MqttConfig(host="127.0.0.1", port=port, **options)
    task = asyncio.create_task(MqttDoor(config, "a", daemon.handlers(), daemon).run())
    try:
        await came(heard, f"{P}/availability", b"online")
        yield daemon
    finally:
        task.cancel()
        await asyncio.wait([task])


async def came(heard: BrokerClient, topic: str, payload: bytes | None = None, count: int = 1) -> None:
    def fits() -> bool:
        got = heard.of(topic)
        return len(got) >= count and (payload is None or got[-1].payload == payload)

    await until_async(fits, lambda: f"{topic}: {[one[:2] for one in heard.got[-9:]]}")


@pytest.fixture
def heard(broker: Broker) -> Any:
    broker.start()
    client = BrokerClient(broker.port, "device-agent/#", "homeassistant/#", "answers/#")
    yield client
    client.close()


async def test_state_and_availability_are_retained_and_follow(broker: Broker, heard: BrokerClient) -> None:
    async with joined(broker.port, heard) as daemon:
        daemon.change("valve", "online", True)
        await came(heard, f"{P}/valve/state", b'{"at":8,"values":{"on":true}}')
        daemon.change("valve", "fault", True)
        await came(heard, f"{P}/valve/availability", b"offline")
        late = BrokerClient(broker.port, "device-agent/#")
        await came(late, f"{P}/availability", b"online")
        await came(late, f"{P}/valve/state", b'{"at":8,"values":{"on":true}}')
        assert all(one.retained for one in late.got)
        late.close()
    await came(heard, f"{P}/availability", b"offline")


async def test_commands_become_questions_of_the_door_and_acks_go_where_they_are_awaited(
    broker: Broker, heard: BrokerClient
) -> None:
    async with joined(broker.port, heard) as daemon:
        heard.publish(
            f"{P}/valve/on/set",
            {"value": True, "id": "c1"},
            ResponseTopic="answers/me",
            CorrelationData=b"7",
            MessageExpiryInterval=30,
        )
        await came(heard, "answers/me")
        (answer,), (ack,) = heard.of("answers/me"), heard.of(f"{P}/valve/ack")
        assert answer.json() == ack.json() == {"id": "c1", "state": "done"}
        assert answer.properties.CorrelationData == b"7"
        (question,) = daemon.asked
        assert 0 <= question.pop("age_ms") < 30_000
        assert 20_000 <= question.pop("ttl_ms") <= 30_000
        expected = {"op": "set", "device": "valve", "values": {"on": True}, "id": "c1", "as": "local:mqtt"}
        assert question == expected
        heard.publish(f"{P}/valve/do/pulse", {"args": {"for_s": 2}})
        heard.publish(f"{P}/stop")
        await until_async(lambda: len(daemon.asked) == 3)
        do, stop = daemon.asked[1:]
        assert (do["op"], do["action"], do["args"]) == ("do", "pulse", {"for_s": 2})
        assert (stop["op"], stop["as"]) == ("stop", "local:mqtt")
        await until_async(lambda: len(daemon.answers) == 3)


async def test_a_retained_command_moves_nothing_and_is_told(broker: Broker, heard: BrokerClient) -> None:
    heard.publish(f"{P}/valve/on/set", "true", retain=True)
    heard.publish(f"{P}/stop", "{}", retain=True)
    async with joined(broker.port, heard) as daemon:
        await came(heard, f"{P}/valve/ack")
        assert heard.of(f"{P}/valve/ack")[0].json()["error"]["code"] == "expired"
        heard.publish(f"{P}/valve/on/set", "false")
        await until_async(lambda: daemon.asked)
        assert [(one["op"], one["values"]) for one in daemon.asked] == [("set", {"on": False})]


async def test_with_commands_off_nothing_is_asked(broker: Broker, heard: BrokerClient) -> None:
    async with joined(broker.port, heard, commands=False, home_assistant=True) as daemon:
        heard.publish(f"{P}/valve/on/set", "true")
        daemon.source.add(b'{"seq":1}')
        await came(heard, f"{P}/events", b'{"seq":1}')
        assert not daemon.asked
        parts = heard.of("homeassistant/device/a_valve/config")[0].json()["cmps"]
        assert {name: part["p"] for name, part in parts.items()} == {"on": "binary_sensor"}


async def test_what_was_on_its_way_for_too_long_is_too_old(
    broker: Broker, heard: BrokerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By no clock but ours: a command is no older than the last sign of life that came before it."""
    monkeypatch.setattr(mqtt_link, "PROVE_EVERY_S", 0.05)
    proxy = BrokerProxy(broker.port)
    async with joined(proxy.port, heard) as daemon:
        proxy.hold()
        heard.publish(f"{P}/valve/on/set", {"value": True, "id": "late"})
        sent_s = time.monotonic()
        await until_async(lambda: time.monotonic() > sent_s + 1.5)
        proxy.release()
        await until_async(lambda: daemon.asked)
        assert daemon.asked[0]["age_ms"] >= 1000
        # Soon after, new ones are young again.
        young = 0

        async def is_young() -> bool:
            nonlocal young
            young += 1
            heard.publish(f"{P}/valve/on/set", {"value": True, "id": f"young-{young}"})
            await until_async(lambda: len(daemon.asked) > young)
            return bool(daemon.asked[-1]["age_ms"] < 1000)

        await until_async(is_young)
    proxy.close()


async def test_a_broker_of_the_old_protocol_is_served_too(broker: Broker, heard: BrokerClient) -> None:
    proxy = BrokerProxy(broker.port, newest=4)
    async with joined(proxy.port, heard) as daemon:
        assert (proxy.versions[0], proxy.versions[-2:]) == (5, [4, 4])
        heard.publish(f"{P}/valve/on/set", {"value": True, "id": "old"}, ResponseTopic="answers/me")
        await came(heard, f"{P}/valve/ack")
        assert daemon.asked[0]["id"] == "old"
    proxy.close()


async def test_events_go_out_again_until_the_broker_has_them(broker: Broker, heard: BrokerClient) -> None:
    proxy = BrokerProxy(broker.port)
    async with joined(proxy.port, heard) as daemon:
        daemon.source.add(b'{"seq":1}', b'{"seq":2}')
        await until_async(lambda: daemon.source.acknowledged == [1])
        proxy.hold()
        daemon.source.add(b'{"seq":3}')
        await came(heard, f"{P}/events", b'{"seq":3}')
        assert daemon.source.acknowledged == [1], "its acknowledgement is held"
        proxy.cut()
        proxy.release()
        daemon.source.add(b'{"seq":4}')
        await came(heard, f"{P}/availability", b"offline")
        proxy.heal()
        await until_async(lambda: daemon.source.acknowledged == [1, 2, 3])
        await came(heard, f"{P}/events", b'{"seq":4}')
        assert [one.json()["seq"] for one in heard.of(f"{P}/events")] == [1, 2, 3, 3, 4]
    proxy.close()


async def test_what_the_broker_refuses_is_no_acknowledgement(
    broker: Broker, heard: BrokerClient, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "REFUSED_AGAIN_S", 0.05)
    broker.stop()
    rules = tmp_path / "acl"
    rules.write_text(f"topic readwrite #\ntopic deny {P}/events\n")
    rules.chmod(0o600)
    broker.start(f"acl_file {rules}")
    async with joined(broker.port, heard) as daemon:
        daemon.source.add(b'{"seq":1}')
        daemon.change("valve", "online", True)
        await came(heard, f"{P}/valve/state", b'{"at":8,"values":{"on":true}}')
        assert not daemon.source.acknowledged
        rules.write_text("topic readwrite #\n")
        assert broker.process is not None
        broker.process.send_signal(1)
        await until_async(lambda: daemon.source.acknowledged == [1])


async def test_a_device_that_is_no_more_is_taken_back(
    broker: Broker, heard: BrokerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this configuration, and of one before the last start."""
    monkeypatch.setattr(door_module, "LOOK_EVERY_S", 0.05)
    heard.publish(f"{P}/cellar/state", "{}", retain=True)
    heard.publish(f"{P}/cellar/availability", "online", retain=True)
    heard.publish("homeassistant/device/a_cellar/config", "{}", retain=True)
    async with joined(broker.port, heard, home_assistant=True) as daemon:
        await came(heard, "homeassistant/device/a_cellar/config", b"")
        assert heard.of("homeassistant/device/a_valve/config")
        del daemon.devices["valve"]
        await came(heard, f"{P}/valve/availability", b"")
        late = BrokerClient(broker.port, "device-agent/#", "homeassistant/device/a_cellar/config")
        await came(late, f"{P}/availability", b"online")
        assert {one.topic for one in late.got} == {f"{P}/availability"}
        late.close()


async def test_more_commands_than_may_wait_are_refused(
    broker: Broker, heard: BrokerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "COMMANDS_MAX", 4)
    async with joined(broker.port, heard) as daemon:
        daemon.hold.clear()
        for number in range(5):
            heard.publish(f"{P}/valve/on/set", {"value": True, "id": f"n{number}"})
        await came(heard, f"{P}/valve/ack")
        assert heard.of(f"{P}/valve/ack")[0].json()["error"]["code"] == "too_soon"
        assert len(daemon.asked) == 4
        heard.publish(f"{P}/stop")
        await until_async(lambda: daemon.asked[-1]["op"] == "stop")
        daemon.hold.set()
        await came(heard, f"{P}/valve/ack", count=5)


async def test_a_stop_does_not_wait_for_a_broker_that_acknowledges_nothing(
    broker: Broker, heard: BrokerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "COMMANDS_MAX", 4)
    proxy = BrokerProxy(broker.port)
    async with joined(proxy.port, heard) as daemon:
        proxy.hold(0)  # of the connection that acks go out on
        for number in range(20):
            heard.publish(f"{P}/valve/on/set", {"value": True, "id": f"n{number}"})
        # Four were carried out, four are refused, and of all eight the answer is on its way.
        await came(heard, f"{P}/valve/ack", count=8)
        for number in range(1, 4):
            heard.publish(f"{P}/stop")
            await until_async(
                lambda number=number: [q["op"] for q in daemon.asked] == ["set"] * 4 + ["stop"] * number
            )
        proxy.release()
    proxy.close()


@pytest.mark.parametrize(
    ("place", "payload", "expected"),
    [
        ("v/on/set", b"true", {"values": {"on": True}}),
        ("v/level/set", b"2.5", {"values": {"level": 2.5}}),
        ("v/text/set", b"hello", {"values": {"text": "hello"}}),
        ("v/text/set", b'{"value": "12"}', {"values": {"text": "12"}}),
        ("v/on/set", b'{"value": null, "ttl_ms": 9}', {"values": {"on": None}, "ttl_ms": 9}),
        ("v/on/set", b'{"value": 1, "dry_run": true}', {"values": {"on": 1}, "dry_run": True}),
        ("v/do/pulse", b"", {"action": "pulse", "args": {}}),
        (
            "v/do/pulse",
            b'{"args": {"for_s": 1}, "at": 5}',
            {"action": "pulse", "args": {"for_s": 1}, "at": 5},
        ),
    ],
)
def test_what_a_command_asks(place: str, payload: bytes, expected: dict[str, Any]) -> None:
    question = question_of(place.split("/"), mqtt_link.Incoming("", payload, False, 0.0))
    assert question.pop("id").startswith("mqtt-")
    op = "do" if "/do/" in place else "set"
    assert question == {"op": op, "device": "v", **expected}


@pytest.mark.parametrize(
    ("place", "payload"),
    [
        ("v/on/set", b""),
        ("v/on/set", b'{"on": true}'),
        ("v/on/set", b'{"value": 1, "op": "release"}'),
        ("v/on/set", b'{"value": 1, "as": "local:page"}'),
        ("v/do/pulse", b"PRESS"),
        ("v/do/pulse", b'{"value": 1}'),
        ("v/on", b"true"),
        ("v/on/set", b"x" * 20_000),
    ],
)
def test_what_is_no_command(place: str, payload: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        question_of(place.split("/"), mqtt_link.Incoming("", payload, False, 0.0))
    assert refused.value.code == "invalid_value"


async def test_a_broker_that_is_full_costs_nothing(
    broker: Broker, heard: BrokerClient, tmp_path: Any
) -> None:
    """It keeps what a subscriber misses until its memory ends; what it does not take goes out again."""
    options = ("persistence true", f"persistence_location {tmp_path}/", "max_queued_messages 0")
    heard.close()
    broker.stop()
    broker.start(*options, "memory_limit 1000000")
    away = BrokerClient(broker.port, f"{P}/#", session=True)
    async with joined(broker.port, away) as daemon:
        away.close()
        for number in range(40):
            daemon.source.add(b'{"seq":%d,"text":"%s"}' % (number + 1, b"x" * 50_000))
        before = -1

        async def is_full() -> bool:
            nonlocal before
            before, now = len(daemon.source.acknowledged), before
            await asyncio.sleep(0.5)
            return 0 < before == now < 40

        await until_async(is_full)
        broker.stop()
        broker.start(*options)
        await until_async(lambda: len(daemon.source.acknowledged) == 40)
        back = BrokerClient(broker.port, f"{P}/#", session=True, id_=away.id)
        await until_async(lambda: {one.json()["seq"] for one in back.of(f"{P}/events")} >= set(range(1, 41)))
        back.close()
