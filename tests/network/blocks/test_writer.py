"""The writer of a stream: one number in flight, the same content until it is accepted, and its pace."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from device_agent.network import OutgoingMessage, StreamSpec
from device_agent.network.blocks import writer as module
from device_agent.network.blocks.messages import PARTS_MAX
from device_agent.network.blocks.stream_channel import StreamChannel
from device_agent.network.blocks.writer import GROUP_FRESH_S, PublishPace, StreamWriter
from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock
from support.fake_pubsub import REFUSED, TOKEN_REFUSED, UNREACHABLE, FakePubSub

SPEC = StreamSpec("telemetry", "s1", "outbound", "events", "dedicated")


class Source:
    """A `MessageSource`: one message for each item."""

    def __init__(self, *items: bytes) -> None:
        self.items = list(items)
        self.in_flight: OutgoingMessage | None = None
        self.next_number = 1
        self.closed = False
        self.acked: list[int] = []
        self.limits: list[int] = []
        self._changed = asyncio.Event()

    @property
    def pending_bytes(self) -> int:
        return sum(map(len, self.items))

    async def until_ready(self) -> None:
        while not (self.in_flight or self.items or self.closed):
            self._changed.clear()
            await self._changed.wait()

    def next_message(self, limit_bytes: int) -> OutgoingMessage | None:
        self.limits.append(limit_bytes)
        if self.in_flight is None and self.items:
            self.in_flight = OutgoingMessage(self.next_number, (self.items.pop(0),), 1000)
            self.next_number += 1
        return self.in_flight

    def ack(self, message: OutgoingMessage) -> None:
        assert message is self.in_flight
        self.acked.append(message.number)
        self.in_flight = None

    def close(self) -> None:
        self.closed = True
        self._changed.set()


class Tokens:
    """Stream tokens: "new", or the failures of a script first."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.renewals = 0

    async def renew(self, spec: StreamSpec) -> str:
        self.renewals += 1
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        return "new"


@pytest.fixture
def client() -> FakePubSub:
    return FakePubSub("writer-1", "old")


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def channel(client: FakePubSub, tokens: Tokens, connectivity: Connectivity) -> StreamChannel:
    return StreamChannel(SPEC, "greenhouse", client, tokens, connectivity)  # type: ignore[arg-type]


@asynccontextmanager
async def writing(
    channel: StreamChannel, source: Source, connectivity: Connectivity, clock: SteppedClock
) -> AsyncIterator["asyncio.Task[None]"]:
    writer = StreamWriter(channel, source, PublishPace(0, clock), connectivity, clock)
    task = asyncio.create_task(writer.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def numbers(client: FakePubSub) -> list[int]:
    return [json.loads(body)["seq"] for _, body in client.published]


async def finish(task: "asyncio.Task[None]", source: Source) -> None:
    source.close()
    await asyncio.wait_for(task, 10)


async def test_what_a_source_holds_goes_out_in_order(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    source = Source(b"1", b"2", b"3")
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert numbers(client) == source.acked == [1, 2, 3]
    assert {name for name, _ in client.published} == {"stream.greenhouse.s1"}


@pytest.mark.parametrize("failure", [UNREACHABLE, REFUSED, TOKEN_REFUSED])
async def test_a_message_is_repeated_with_its_number_until_it_is_accepted(
    client: FakePubSub,
    channel: StreamChannel,
    connectivity: Connectivity,
    clock: SteppedClock,
    failure: Exception,
):
    source = Source(b"1", b"2")
    client.answers.extend([failure, failure, failure])
    async with writing(channel, source, connectivity, clock) as task:
        await client.until(lambda: len(client.tokens) >= 2)
        assert source.acked == [] or len(client.tokens) > 3, "the second waits for the first"
        await finish(task, source)
    assert numbers(client) == source.acked == [1, 2]
    assert len(client.tokens) == 5


async def test_a_message_has_more_time_at_each_try(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    """The first may be lost on a dead connection; a slow link takes as long as it takes."""
    source = Source(b'"%s"' % (b"x" * 9_500), b"1")
    client.answers.extend([UNREACHABLE] * 3)
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert client.limits_s[:2] == [10, 20]
    assert client.limits_s[2] == client.limits_s[3] == pytest.approx(29.5, abs=1), "500 bytes a second"
    assert client.limits_s[4] == 10


async def test_a_refused_token_is_renewed(
    client: FakePubSub,
    tokens: Tokens,
    channel: StreamChannel,
    connectivity: Connectivity,
    clock: SteppedClock,
):
    source = Source(b"1")
    client.answers.append(TOKEN_REFUSED)
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert (client.tokens, tokens.renewals) == (["old", "new"], 1)


async def test_a_token_that_cannot_be_renewed_now_is_renewed_later(
    client: FakePubSub,
    tokens: Tokens,
    channel: StreamChannel,
    connectivity: Connectivity,
    clock: SteppedClock,
):
    source = Source(b"1")
    tokens.failures = [UNREACHABLE, REFUSED]
    client.answers.extend([TOKEN_REFUSED] * 3)
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert (client.tokens, tokens.renewals) == (["old"] * 3 + ["new"], 3)


async def test_only_the_parts_that_failed_are_sent_again(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    source = Source(b'"%s"' % (b"x" * 40_000))
    client.answers.extend([1, UNREACHABLE, 1, 1])
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert sorted(json.loads(body)["multipart"]["part"] for _, body in client.published) == [1, 2, 3, 4]
    assert len(client.tokens) == 5


@pytest.mark.parametrize("failure", [[], [1, UNREACHABLE, 1, 1]])
async def test_all_parts_are_sent_again_when_readers_have_forgotten_the_first(
    client: FakePubSub,
    channel: StreamChannel,
    connectivity: Connectivity,
    clock: SteppedClock,
    failure: list[Any],
):
    publish = client.publish

    async def slow(*args: Any, **options: Any) -> int:
        client.publish = publish  # type: ignore[method-assign]
        clock.step(GROUP_FRESH_S + 1)
        return await publish(*args, **options)

    client.publish = slow  # type: ignore[method-assign]
    source = Source(b'"%s"' % (b"x" * 40_000))
    client.answers.extend(failure)
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert len(client.tokens) == 8


async def test_a_publish_from_before_an_outage_is_repeated_when_it_ends(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    hanging = asyncio.Event()
    publish = client.publish

    async def hang(*args: Any, **options: Any) -> int:
        client.publish = publish  # type: ignore[method-assign]
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    client.publish = hang  # type: ignore[method-assign]
    source = Source(b"1")
    async with writing(channel, source, connectivity, clock) as task:
        await asyncio.wait_for(hanging.wait(), 10)
        connectivity.lost("no answer")
        await asyncio.sleep(0.01)
        connectivity.answered()
        await finish(task, source)
    assert numbers(client) == source.acked == [1]


async def test_a_group_is_only_made_of_a_backlog(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    for _ in range(5):
        with connectivity.message_size.sending(60_000) as sending:
            sending.accepted = True
    source = Source(b'"%s"' % (b"x" * 30_000), b"2")
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert source.limits[0] == module.items_limit_bytes(PARTS_MAX)
    assert source.limits[1] == module.items_limit_bytes(1)


async def test_a_link_that_is_slow_or_not_known_gets_little_at_once(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    source = Source(*(b'"%s"' % (b"x" * 30_000) for _ in range(6)))
    publish = client.publish

    async def timed(*args: Any, **options: Any) -> int:
        clock.step(0.1 if len(source.acked) < 3 else 4.0)
        return await publish(*args, **options)

    client.publish = timed  # type: ignore[method-assign]
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert source.limits[:4] == [8_000, 16_000, 32_000, module.items_limit_bytes(PARTS_MAX)]
    assert source.limits[3] > 2 * source.limits[4] > 3 * source.limits[5]


async def test_the_time_is_asked_for_before_anything_goes_out(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    clock.knows = False
    clock.set_wall(0)
    assert not clock.is_set()
    source = Source(b"1")
    client.answers.extend([UNREACHABLE, REFUSED])
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    assert client.pings == 2
    assert numbers(client) == [1]


async def test_the_end_has_the_number_after_the_last_and_is_tried_three_times(
    client: FakePubSub, channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock
):
    source = Source(b"1", b"2")
    async with writing(channel, source, connectivity, clock) as task:
        await finish(task, source)
    writer = StreamWriter(channel, source, PublishPace(0, clock), connectivity, clock)
    client.answers.extend([UNREACHABLE, REFUSED])
    await writer.end()
    assert json.loads(client.published[-1][1])["type"] == "stream_end"
    assert numbers(client)[-1] == 3
    client.answers.extend([UNREACHABLE] * 5)
    await writer.end()
    assert len(client.answers) == 2


# -- pace ---------------------------------------------------------------------------------------------------


async def test_a_second_of_messages_may_go_at_once_and_then_they_are_spread(
    clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.step(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    pace = PublishPace(10.0, clock)
    for _ in range(10):
        await pace.allowed(1)
        pace.spend(1)
    assert waits == []
    for _ in range(2):
        await pace.allowed(1)
        pace.spend(1)
    assert waits == pytest.approx([0.1, 0.1])


async def test_how_many_may_go_now(clock: SteppedClock):
    pace = PublishPace(4.0, clock)
    assert await pace.allowed(16) == 4
    assert await pace.allowed(2) == 2
    assert await PublishPace(0, clock).allowed(16) == 16


async def test_credit_grows_with_time_up_to_one_second_of_messages(clock: SteppedClock):
    pace = PublishPace(4.0, clock)
    pace.spend(4)
    clock.step(0.5)
    assert await pace.allowed(16) == 2
    clock.step(100)
    assert await pace.allowed(16) == 4


async def test_no_message_is_made_before_it_may_go(
    channel: StreamChannel, connectivity: Connectivity, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
):
    made: list[int] = []

    async def sleep(seconds: float) -> None:
        made.append(len(source.limits))
        source.close()
        clock.step(seconds)

    pace, source = PublishPace(10.0, clock), Source(b"1")
    pace.spend(10)
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    await StreamWriter(channel, source, pace, connectivity, clock).run()
    assert (made[0], source.acked) == (0, [1]), "what comes meanwhile goes with it"
