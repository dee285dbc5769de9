"""What an open stream takes of its devices, and what its session commands change."""

import asyncio
import json
from typing import Any

import pytest

from device_agent.messages import events
from device_agent.messages.commands import Pause, Rate, Resume, Select
from device_agent.network import StreamSpec
from device_agent.records import DeviceState, Reading, Status
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.tasks.services import Services
from device_agent.tasks.stream_scope import StreamScope
from device_agent.tasks.stream_subscriptions import StreamSubscriptions
from device_agent.tasks.subscription import ByteSubscription, Subscription
from support.control_side import Fan

T0 = 1_780_000_000_000
SPEC = StreamSpec("control", "t1-1", "bidirectional", "events", "dedicated")


@pytest.fixture
def subscriptions(services: Services) -> StreamSubscriptions:
    """Apart from those of the running devices, which do not disturb here."""
    return StreamSubscriptions(services.clock)


@pytest.fixture
async def queue(services: Services) -> ChannelQueue:
    return await services.outbox.open("t1-1", "events", "drop-oldest")


@pytest.fixture
def subscription(services: Services, queue: ChannelQueue) -> Subscription:
    devices = {name: services.devices[name] for name in ("up", "fan")}
    scope = StreamScope(SPEC, services.config.streams["control"], devices, frozenset({"adviser"}))
    return Subscription(scope, queue, services.clock)


def sent(queue: ChannelQueue) -> list[dict[str, Any]]:
    """The events that came out since the last look."""
    found: list[dict[str, Any]] = []
    while (message := queue.next_message(1_000_000)) is not None:
        found += [json.loads(item) for item in message.items]
        queue.ack(message)
    return found


def reading(device: str, at_s: float, **values: Any) -> Reading:
    return Reading(device, round(at_s * 1000), values or {"on": True}, monotonic_s=at_s, at_once=True)


def devices_of(queue: ChannelQueue) -> list[str]:
    return [event["device"] for event in sent(queue)]


async def test_between_add_and_remove_its_devices_are_passed_on(
    subscription: Subscription, subscriptions: StreamSubscriptions, queue: ChannelQueue
) -> None:
    subscriptions.on_readings([reading("up", 1)])
    subscriptions.add(subscription)
    for name in ("up", "fan", "down"):
        subscriptions.on_readings([reading(name, 2)])
        subscriptions.on_status(Status(name, 2000, DeviceState.OFFLINE, "absent"))
    assert devices_of(queue) == ["up", "up", "fan", "fan"]
    subscriptions.remove(subscription)
    subscriptions.on_readings([reading("up", 3)])
    assert sent(queue) == []


async def test_it_begins_with_the_session_and_the_present(
    subscription: Subscription, services: Services, queue: ChannelQueue
) -> None:
    subscription.apply(Select(kind="select", devices=["fan"]))
    await services.devices["fan"].read_now()
    subscription.begin(["control", "orders"], 9000)
    about, present = sent(queue)
    assert about["about"] == "session"
    assert (about["devices"], about["streams"], about["until"]) == (["fan"], ["control", "orders"], 9000)
    assert (present["kind"], present["device"]) == ("reading", "fan")


async def test_it_begins_without_a_device_that_may_yet_speak(
    subscription: Subscription, services: Services, queue: ChannelQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fan = services.devices["fan"]
    monkeypatch.setattr(type(fan), "online", False)
    monkeypatch.setattr(type(fan), "awaited", property(lambda device: device is fan))
    subscription.begin(["control"], 9000)
    assert [event["kind"] for event in sent(queue) if event.get("device") == "fan"] == []


async def test_it_begins_with_why_a_device_is_away(
    subscription: Subscription, services: Services, queue: ChannelQueue
) -> None:
    Fan.broken = True
    async with asyncio.timeout(10):
        while services.devices["fan"].online:  # noqa: ASYNC110 - it gives up after some tries
            await asyncio.sleep(0.01)
    subscription.begin([], None)
    [status] = [event for event in sent(queue) if event.get("device") == "fan"]
    assert (status["kind"], status["reason"]) == ("status", "driver_error")


async def test_paused_holds_readings_back_and_nothing_else(
    subscription: Subscription, subscriptions: StreamSubscriptions, queue: ChannelQueue
) -> None:
    subscriptions.add(subscription)
    subscription.apply(Pause(kind="pause"))
    assert "paused" in repr(subscription)
    subscriptions.on_readings([reading("fan", 1)])
    subscriptions.on_status(Status("fan", 1000, DeviceState.OFFLINE, "absent"))
    assert [event["kind"] for event in sent(queue)] == ["status"]
    subscription.apply(Resume(kind="resume"))
    subscriptions.on_readings([reading("fan", 2)])
    assert [event["kind"] for event in sent(queue)] == ["reading"]


async def test_selected_are_only_those_that_it_carries(
    subscription: Subscription, subscriptions: StreamSubscriptions, queue: ChannelQueue
) -> None:
    subscriptions.add(subscription)
    subscription.apply(Select(kind="select", devices=["fan", "button"]))
    for name in ("up", "fan", "button"):
        subscriptions.on_readings([reading(name, 1)])
    assert devices_of(queue) == ["fan"]
    subscription.apply(Select(kind="select", devices=[]))
    subscriptions.on_readings([reading("fan", 2)])
    assert sent(queue) == []


async def test_a_rate_for_one_device_leaves_the_others_and_what_it_does_not_name(
    subscription: Subscription, subscriptions: StreamSubscriptions, services: Services, queue: ChannelQueue
) -> None:
    subscriptions.add(subscription)
    usual_s = services.devices["up"].effective_period_s
    subscription.apply(Rate(kind="rate", device="fan", on_change=True, dead_band=2))
    subscription.apply(Rate(kind="rate", device="fan", every_s=0.01))
    assert (services.devices["up"].effective_period_s, services.devices["fan"].effective_period_s) == (
        usual_s,
        0.02,
    )
    for at_s, level in enumerate((10, 12, 13)):
        subscriptions.on_readings([reading("fan", at_s, level=level)])
        subscriptions.on_readings([reading("up", at_s, level=level)])
    assert devices_of(queue) == ["fan", "up", "up", "fan", "up"]
    subscription.apply(Rate(kind="rate", every_s=0.5))
    assert services.devices["up"].effective_period_s == 0.5
    subscriptions.remove(subscription)
    assert services.devices["up"].effective_period_s == usual_s


async def test_a_replaced_device_begins_with_the_filter_of_its_own_configuration(
    subscription: Subscription, subscriptions: StreamSubscriptions, services: Services, queue: ChannelQueue
) -> None:
    subscriptions.add(subscription)
    subscription.apply(Rate(kind="rate", device="fan", on_change=True))
    subscriptions.on_readings([reading("fan", 1)])
    before = services.devices["fan"]
    subscription.replace("fan", before, services.devices["down"])
    subscriptions.on_readings([reading("fan", 2)])
    assert devices_of(queue) == ["fan", "fan"], "that nothing changed is no matter any more"
    del subscription.devices["fan"]
    subscription.replace("fan", before, None)
    subscriptions.on_readings([reading("fan", 3)])
    subscriptions.on_status(Status("fan", 3000, DeviceState.OFFLINE, "absent"))
    assert sent(queue) == []


async def test_a_delegations_events_go_once_to_the_streams_that_carry_it(
    subscription: Subscription, subscriptions: StreamSubscriptions, queue: ChannelQueue
) -> None:
    first, second = (events.control(T0 + n, "delegation", {"n": n}) for n in (1, 2))
    subscriptions.announce("adviser", first)
    subscriptions.add(subscription)
    assert sent(queue) == []
    subscriptions.announce("adviser", second)
    subscriptions.announce("another", first)
    assert [event["n"] for event in sent(queue)] == [2]
    assert subscriptions.newest({"adviser", "unheard"}) == [second]


class Console:
    """A device with a bytes side, as far as a subscription asks."""

    class Watchers(set[str]):
        def remove(self, who: str) -> None:
            self.discard(who)

    def __init__(self) -> None:
        self.watchers = self.Watchers()


async def test_bytes_are_listened_for_while_somebody_takes_them(
    services: Services, subscriptions: StreamSubscriptions
) -> None:
    queue = await services.outbox.open("t1-2", "bytes", "drop-oldest")
    spec = StreamSpec("console", "t1-2", "outbound", "bytes", "dedicated")
    console, following = Console(), Console()
    devices: Any = {"console": console}
    bytes_ = ByteSubscription(StreamScope(spec, services.config.streams["control"], devices), queue)
    subscriptions.on_bytes("console", b"before")
    subscriptions.add(bytes_)
    assert console.watchers == {"t1-2"}
    subscriptions.on_bytes("console", b"first ")
    devices["console"] = following
    bytes_.replace("console", console, following)  # type: ignore[arg-type]
    assert (console.watchers, following.watchers) == (set(), {"t1-2"})
    subscriptions.on_bytes("console", b"second")
    message = queue.next_message(1000)
    assert message is not None
    assert b"".join(message.items) == b"first second"
    queue.ack(message)
    subscriptions.remove(bytes_)
    assert following.watchers == set()
    subscriptions.on_bytes("console", b"after")
    assert queue.next_message(1000) is None
